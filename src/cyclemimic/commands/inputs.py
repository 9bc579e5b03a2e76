# SPDX-License-Identifier: Apache-2.0
"""What several verbs open, and check before they start to work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedConfig

from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.commands.devices import place
from cyclemimic.data import (
    DataError,
    EpisodeSource,
    LatentLabels,
    WeightedSource,
    open_mixture,
    open_source,
    read_mixture,
)
from cyclemimic.data.checking import BrokenEpisode, open_usable
from cyclemimic.data.episode import list_episodes
from cyclemimic.data.mixture import OpenedMixture, is_mixture
from cyclemimic.data.pairs import check_intervals
from cyclemimic.data.readers.hub import is_repository_id
from cyclemimic.hub.publication import check_weights
from cyclemimic.hub.redaction import redacted
from cyclemimic.hub.revisions import load_pinned, split_revision


def open_sources(
    paths: Sequence[str | Path],
    camera: str | None = None,
    num_episodes: int | None = None,
    fps: float | None = None,
    skip_broken: bool = False,
) -> tuple[list[EpisodeSource], dict[str, list[BrokenEpisode]]]:
    """Opens data sets, of which no two may share a name; with `num_episodes`, so many of each, from the first. `fps` is
    the frame rate of those that are images.

    Returns:
        The data sets, and the broken episodes left out of each, by name, where `skip_broken` asks to look for them.

    Raises:
        DataError: one of them cannot be used, or two go by one name.
        ValueError: a data set has fewer episodes.
    """
    sources: list[EpisodeSource] = []
    broken: dict[str, list[BrokenEpisode]] = {}
    for path in paths:
        open_episodes = partial(_open_episodes, path, camera, fps)
        source, faults = open_usable(open_episodes) if skip_broken else (open_episodes(None), [])
        if num_episodes is not None:
            if not 1 <= num_episodes <= len(source):
                raise ValueError(
                    f"`num_episodes` must be in [1, {len(source)}], what {source.name} has, got {num_episodes}."
                )
            source = open_episodes([episode.index for episode in source][:num_episodes])
        sources.append(source)
        broken |= {source.name: faults} if faults else {}
    list_episodes(sources)
    return sources, broken


def _open_episodes(
    path: str | Path, camera: str | None, fps: float | None, episodes: Sequence[int] | None
) -> EpisodeSource:
    return open_source(path, camera, episodes=episodes, fps=fps)


def open_mixture_or_sources(arguments: Any, interval_s: float, min_interval_s: float) -> OpenedMixture:
    """The data sets of a mixture, with its weights and intervals; or those of some paths, each by the number of its frames
    and with the interval given here.

    Args:
        arguments: What has `data`, `camera`, `fps`, `leave_out_missing` and `skip_broken`, as [`MixtureArguments`].
        interval_s (`float`), min_interval_s (`float`): Times between the frames of a pair.

    Raises:
        DataError: one of them cannot be used.
        ValueError: a mixture among other data sets, or with arguments that stand in its file.
    """
    paths, times = arguments.data, (interval_s, min_interval_s)
    if not any(map(is_mixture, paths)):
        sources, broken = open_sources(paths, arguments.camera, fps=arguments.fps, skip_broken=arguments.skip_broken)
        frames = [sum(episode.num_frames for episode in source) for source in sources]
        weighted = [WeightedSource(source, count, *times) for source, count in zip(sources, frames, strict=True)]
        return OpenedMixture(weighted, {}, broken)
    if len(paths) > 1:
        raise ValueError(f"`data` must be one mixture, or data sets without one, got {list(paths)}.")
    for name in ("camera", "fps"):
        if getattr(arguments, name) is not None:
            raise ValueError(
                f"`{name}` stands in the mixture's file, source by source; leave it out, got {getattr(arguments, name)}."
            )
    return open_mixture(read_mixture(paths[0]), *times, arguments.leave_out_missing, arguments.skip_broken)


def instructions_of(sources: Sequence[EpisodeSource], may_be_silent: bool = False) -> list[str]:
    """The distinct instructions of some data sets.

    Raises:
        DataError: an episode has none, or with `may_be_silent` all of them.
    """
    episodes = list_episodes(sources)
    silent = [episode for episode in episodes if not (episode.instruction or "").strip()]
    if silent and not (may_be_silent and len(silent) < len(episodes)):
        raise DataError(
            f"{silent[0].source}: {len(silent)} episodes have no instruction, episode {silent[0].index} first; the "
            "policy needs one an episode"
        )
    said = {episode.instruction for episode in episodes if episode.instruction is not None}
    return sorted(said - {episode.instruction for episode in silent})


def read_config(argument: str, checkpoint: str | Path, model_type: str) -> PreTrainedConfig:
    """The configuration of a checkpoint of the package: a folder, or an id on the Hub.

    Args:
        argument (`str`): Which argument named it, for messages.
        checkpoint (`str` or `Path`): What it named; an id may end with `@` and a revision.
        model_type (`str`): What it must be, e.g. `"cyclemimic"`.

    Raises:
        ValueError: there is no such checkpoint, it is one of another model, or its folder has weights that are pickled or
            elsewhere.
    """
    if not (Path(checkpoint).exists() or is_repository_id(split_revision(checkpoint)[0])):
        # Which the Hub would be asked for, and a machine without a connection would blame that.
        raise ValueError(
            f"`{argument}` must be a checkpoint folder or a Hub id, got {checkpoint}, no folder and no OWNER/NAME."
        )
    check_weights(checkpoint)
    try:
        config = load_pinned(AutoConfig.from_pretrained, checkpoint)
    except (OSError, ValueError) as error:
        config, reason = None, redacted(str(error).strip().splitlines()[0])
    if config is None:
        raise ValueError(f"`{argument}` must be a checkpoint folder or a Hub id, got {checkpoint}: {reason}")
    if config.model_type != model_type:
        raise ValueError(
            f"`{argument}` must be a checkpoint of model type {model_type}, got {checkpoint} of {config.model_type}."
        )
    return config


def load_tokenizer(
    checkpoint: str | Path, device: torch.device
) -> tuple[LatentActionTokenizerModel, LatentActionTokenizerImageProcessor]:
    """A trained tokenizer, in evaluation mode on the device, and its image processor.

    Raises:
        ValueError: there is no such checkpoint, or it is one of another model.
    """
    read_config("tokenizer", checkpoint, "latent_action_tokenizer")
    tokenizer = place(load_pinned(LatentActionTokenizerModel.from_pretrained, checkpoint), device)
    return tokenizer, load_pinned(LatentActionTokenizerImageProcessor.from_pretrained, checkpoint)


def open_tokenizer_and_data(
    arguments: argparse.Namespace, may_differ: bool = False
) -> tuple[LatentActionTokenizerModel, LatentActionTokenizerImageProcessor, list[WeightedSource]]:
    """What the flags of [`add_tokenizer_flags`] name, everything checked before the tokenizer is loaded; `may_differ` lets
    the data sets of a mixture have intervals of their own.

    Raises:
        DataError, ValueError: As the functions above and below.
    """
    check_intervals(arguments.interval_s, arguments.min_interval_s)
    check_at_least_one(batch_size=arguments.batch_size)
    device = choose_device(arguments.device)
    times = arguments.interval_s, arguments.min_interval_s
    sources = open_mixture_or_sources(arguments, *times).sources
    own = [entry.source.name for entry in sources if (entry.interval_s, entry.min_interval_s) != times]
    if own and not may_differ:
        raise ValueError(
            f"`data` must be looked at with one interval, got a mixture with others for {own[:5]}; give its data sets "
            "one by one, or a mixture without `interval_s` and `min_interval_s`."
        )
    return *load_tokenizer(arguments.tokenizer, device), sources


def check_labels(labels: LatentLabels, codebook_size: int, num_latent_tokens: int) -> None:
    """Raises `ValueError` unless the policy has a word for every code of the labels."""
    if (labels.codebook_size, labels.num_latent_tokens) != (codebook_size, num_latent_tokens):
        raise ValueError(
            f"`labels` must be of {num_latent_tokens} tokens out of {codebook_size}, as the policy is, got "
            f"{labels.num_latent_tokens} out of {labels.codebook_size}."
        )


def check_at_least_one(**numbers: int) -> None:
    """Raises `ValueError` naming a number below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")


def choose_action_steps(wanted: int | None, config: PreTrainedConfig) -> int:
    """Actions of a chunk that are carried out before the policy looks again: so many as wanted, else as the policy's
    configuration says, else half a chunk.

    Raises:
        ValueError: they are more than a chunk has, or none.
    """
    if wanted is not None and not 1 <= wanted <= config.chunk_size:
        raise ValueError(f"`num_action_steps` must be in [1, {config.chunk_size}], the policy's chunk, got {wanted}.")
    return wanted or config.num_executed_steps


def choose_device(name: str | None) -> torch.device:
    """The device of that name; without a name, the GPU where there is one.

    Raises:
        ValueError: torch does not know it, or it is not there.
    """
    if name is None:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        # Processes of one machine, started by `accelerate launch` or `torchrun`, take a GPU each.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    try:
        return torch.empty(0, device=name).device
    # A build of torch without CUDA says so in an assertion.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"`device` must be one that torch can use here, such as cpu, got {name}: {reason}") from error
