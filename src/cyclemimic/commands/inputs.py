# SPDX-License-Identifier: Apache-2.0
"""What several verbs open, and check before they start to work."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, PreTrainedConfig

from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.data import (
    DataError,
    EpisodeSource,
    LatentLabels,
    WeightedSource,
    open_mixture,
    open_source,
    read_mixture,
)
from cyclemimic.data.episode import list_episodes
from cyclemimic.data.mixture import is_mixture
from cyclemimic.data.pairs import check_intervals


def open_sources(
    paths: Sequence[str | Path],
    camera: str | None = None,
    num_episodes: int | None = None,
    fps: float | None = None,
) -> list[EpisodeSource]:
    """Opens data sets, of which no two may share a name; with `num_episodes`, so many of each, from the first. `fps` is
    the frame rate of those that are images.

    Raises:
        DataError: one of them cannot be used, or two go by one name.
        ValueError: a data set has fewer episodes.
    """
    sources = [open_source(path, camera, fps=fps) for path in paths]
    if num_episodes is not None:
        for source in sources:
            if not 1 <= num_episodes <= len(source):
                raise ValueError(
                    f"`num_episodes` must be in [1, {len(source)}], what {source.name} has, got {num_episodes}."
                )
        chosen = [[episode.index for episode in source][:num_episodes] for source in sources]
        sources = [open_source(path, camera, episodes=indices) for path, indices in zip(paths, chosen, strict=True)]
    list_episodes(sources)
    return sources


def open_weighted_sources(
    paths: Sequence[str],
    interval_s: float,
    min_interval_s: float,
    camera: str | None = None,
    fps: float | None = None,
    leave_out_missing: bool = False,
) -> list[WeightedSource]:
    """The data sets of a mixture, with its weights and intervals; or those of some paths, each by the number of its frames
    and with the interval given here.

    Raises:
        DataError: one of them cannot be used.
        ValueError: a mixture among other data sets, or with arguments that stand in its file.
    """
    if not any(map(is_mixture, paths)):
        sources = open_sources(paths, camera, fps=fps)
        frames = [sum(episode.num_frames for episode in source) for source in sources]
        return [
            WeightedSource(source, count, interval_s, min_interval_s)
            for source, count in zip(sources, frames, strict=True)
        ]
    if len(paths) > 1:
        raise ValueError(f"`data` must be one mixture, or data sets without one, got {list(paths)}.")
    for name, value in (("camera", camera), ("fps", fps)):
        if value is not None:
            raise ValueError(f"`{name}` stands in the mixture's file, source by source; leave it out, got {value}.")
    return open_mixture(read_mixture(paths[0]), interval_s, min_interval_s, leave_out_missing)


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
    return sorted({episode.instruction for episode in episodes} - {episode.instruction for episode in silent})


def read_config(argument: str, checkpoint: str | Path, model_type: str) -> PreTrainedConfig:
    """The configuration of a checkpoint of the package: a folder, or an id on the Hub.

    Args:
        argument (`str`): Which argument named it, for messages.
        checkpoint (`str` or `Path`): What it named.
        model_type (`str`): What it must be, e.g. `"cyclemimic"`.

    Raises:
        ValueError: there is no such checkpoint, or it is one of another model.
    """
    try:
        config = AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"`{argument}` must be a checkpoint folder or a Hub id, got {checkpoint}: {reason}"
        ) from error
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
    tokenizer = LatentActionTokenizerModel.from_pretrained(checkpoint).to(device)
    return tokenizer, LatentActionTokenizerImageProcessor.from_pretrained(checkpoint)


def open_tokenizer_and_data(
    arguments: argparse.Namespace,
) -> tuple[LatentActionTokenizerModel, LatentActionTokenizerImageProcessor, list[WeightedSource]]:
    """What the flags of [`add_tokenizer_flags`] name, everything checked before the tokenizer is loaded.

    Raises:
        DataError, ValueError: As the functions above and below.
    """
    check_intervals(arguments.interval_s, arguments.min_interval_s)
    check_at_least_one(batch_size=arguments.batch_size)
    device = choose_device(arguments.device)
    times = arguments.interval_s, arguments.min_interval_s
    sources = open_weighted_sources(
        arguments.data, *times, arguments.camera, arguments.fps, arguments.leave_out_missing
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
