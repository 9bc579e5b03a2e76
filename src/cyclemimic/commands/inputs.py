# SPDX-License-Identifier: Apache-2.0
"""What several verbs open, and check before they start to work."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
)
from cyclemimic.checkpoints import choose_device, load_tokenizer, read_config
from cyclemimic.data import (
    EpisodeSource,
    LatentLabels,
    WeightedSource,
    open_mixture,
    open_source,
    read_mixture,
)
from cyclemimic.data.checking import BrokenEpisode, open_usable
from cyclemimic.data.episode_source import list_episodes
from cyclemimic.data.mixture import OpenedMixture, is_mixture
from cyclemimic.data.pairs import check_intervals

logger = logging.getLogger(__name__)


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
        ValueError: one is a mixture; a data set has fewer episodes.
    """
    if mixtures := [str(path) for path in paths if is_mixture(path)]:
        raise ValueError(
            f"`data` must be data sets here, got the mixture {mixtures[0]}; give its data sets one by one."
        )
    sources: list[EpisodeSource] = []
    broken: dict[str, list[BrokenEpisode]] = {}
    for path in paths:
        open_these = partial(open_episodes, path, camera, fps)
        source, faults = open_usable(open_these) if skip_broken else (open_these(None), [])
        if num_episodes is not None:
            if not 1 <= num_episodes <= len(source):
                raise ValueError(
                    f"`num_episodes` must be in [1, {len(source)}], what {source.name} has, got {num_episodes}."
                )
            source = open_these([episode.index for episode in source][:num_episodes])
        sources.append(source)
        broken |= {source.name: faults} if faults else {}
    list_episodes(sources)
    return sources, broken


def open_episodes(
    path: str | Path, camera: str | None, fps: float | None, episodes: Sequence[int] | None
) -> EpisodeSource:
    """Opens a data set with the episodes of these indices, or with all."""
    return open_source(path, camera, episodes=episodes, fps=fps)


def open_mixture_or_sources(arguments: Any, interval_s: float, min_interval_s: float) -> OpenedMixture:
    """The data sets of a mixture, with its weights and intervals; or those of some paths, each by the number of its frames
    and with the interval given here.

    Args:
        arguments: What has `data`, `camera`, `fps`, `leave_out_missing` and `skip_broken`, as [`MixtureArguments`].
        interval_s (`float`), min_interval_s (`float`): Times between the frames of a pair.

    Raises:
        DataError: one of them cannot be used.
        ValueError: a mixture among other data sets, or with arguments that stand in its file; or an argument of mixtures
            without one.
    """
    paths, times = arguments.data, (interval_s, min_interval_s)
    if not any(map(is_mixture, paths)):
        if arguments.leave_out_missing:
            raise ValueError(
                "`leave_out_missing` must be left out without a mixture, of which it leaves data sets out, got True for "
                f"{[str(path) for path in paths]}."
            )
        sources, broken = open_sources(paths, arguments.camera, fps=arguments.fps, skip_broken=arguments.skip_broken)
        frames = [sum(episode.num_frames for episode in source) for source in sources]
        weighted = [WeightedSource(source, count, *times) for source, count in zip(sources, frames, strict=True)]
        _warn_of_coarse_rates(weighted)
        return OpenedMixture(weighted, {}, broken)
    if len(paths) > 1:
        raise ValueError(f"`data` must be one mixture, or data sets without one, got {list(paths)}.")
    check_stands_in_mixture(arguments)
    opened = open_mixture(read_mixture(paths[0]), *times, arguments.leave_out_missing, arguments.skip_broken)
    _warn_of_coarse_rates(opened.sources)
    return opened


def check_stands_in_mixture(arguments: Any) -> None:
    """Raises `ValueError` where `camera` or `fps` is given for a mixture."""
    for name in ("camera", "fps"):
        if getattr(arguments, name) is not None:
            raise ValueError(
                f"`{name}` stands in the mixture's file, source by source; leave it out, got {getattr(arguments, name)}."
            )


def _warn_of_coarse_rates(sources: Sequence[WeightedSource]) -> None:
    """Whole frames may be far from the time asked for: a folder of films is read at the rate of its slowest."""
    for entry in sources:
        fps, (shortest, longest) = entry.source[0].fps, entry.interval_range_s
        apart = max(1, round(shortest * fps)) / fps
        if not 0.75 * shortest <= apart <= 1.25 * longest:
            logger.warning(
                "%s: pairs are %.2g s apart instead of %.2g s, as it is read at %.3g frames a second",
                *(entry.source.name, apart, shortest, fps),
            )


def fill_intervals(arguments: Any) -> None:
    """Sets those of `interval_s` and `min_interval_s` that were not given: as the configuration of `tokenizer` has them, or,
    with a warning, 1 and 0.5 seconds. Another interval than the tokenizer's gets a warning, too.

    Raises:
        ValueError: no such tokenizer; they are no times between the frames of a pair.
    """
    config = read_config("tokenizer", arguments.tokenizer, "latent_action_tokenizer")
    given, trained = arguments.interval_s, config.interval_s
    if given is None and trained is None:
        logger.warning("%s does not say how far apart its pairs were; taking `interval_s` 1.0", arguments.tokenizer)
    for name, default in (("interval_s", 1.0), ("min_interval_s", 0.5)):
        if getattr(arguments, name) is None:
            known = getattr(config, name)
            setattr(arguments, name, default if known is None else known)
    check_intervals(arguments.interval_s, arguments.min_interval_s)
    if None not in (given, trained) and given != trained:
        logger.warning("`interval_s` is %g s, where %s was trained on %g s", given, arguments.tokenizer, trained)


def open_tokenizer_and_data(
    arguments: argparse.Namespace, may_differ: bool = False
) -> tuple[LatentActionTokenizerModel, LatentActionTokenizerImageProcessor, OpenedMixture]:
    """What the flags of [`add_tokenizer_flags`] name, with intervals by [`fill_intervals`], everything checked before the
    tokenizer is loaded; `may_differ` lets the data sets of a mixture have intervals of their own.

    Raises:
        DataError, ValueError: As the functions above and below.
    """
    check_at_least_one(batch_size=arguments.batch_size)
    device = choose_device(arguments.device)
    times = arguments.interval_s, arguments.min_interval_s
    opened = open_mixture_or_sources(arguments, *times)
    own = [entry.source.name for entry in opened.sources if (entry.interval_s, entry.min_interval_s) != times]
    if own and not may_differ:
        raise ValueError(
            f"`data` must be looked at with one interval, got a mixture with others for {own[:5]}; give its data sets "
            "one by one, or a mixture without `interval_s` and `min_interval_s`."
        )
    return *load_tokenizer(arguments.tokenizer, device), opened


def check_labels(
    labels: LatentLabels | LatentActionTokenizerConfig,
    codebook_size: int,
    num_latent_tokens: int,
    argument: str = "labels",
) -> None:
    """Raises `ValueError` unless the policy has a word for every code of the labels, or of the tokenizer that is to make
    them."""
    if (labels.codebook_size, labels.num_latent_tokens) != (codebook_size, num_latent_tokens):
        raise ValueError(
            f"`{argument}` must be of {num_latent_tokens} tokens out of {codebook_size}, as the policy is, got "
            f"{labels.num_latent_tokens} out of {labels.codebook_size}."
        )


def check_labels_are_of(labels: LatentLabels, sources: Sequence[EpisodeSource]) -> None:
    """Raises `DataError` where labels say that they are of other episodes than the data sets have by those names."""
    for episode in (episode for source in sources for episode in source):
        labels.check_is_of(episode)


def check_all_labelled(labels: LatentLabels, sources: Sequence[EpisodeSource]) -> None:
    """Raises `ValueError` unless something of every data set is labelled: a training would claim to have learnt from it."""
    counts = [sum((episode.source, episode.index) not in labels for episode in source) for source in sources]
    # Of a data set that stands in a mixture more than once, each part counts.
    missing = [source.name for source, without in zip(sources, counts, strict=True) if without == len(source)]
    if missing:
        labelled = sorted({name for name, _ in labels.episodes})
        raise ValueError(f"`labels` must be of every data set, got those of {labelled}, none of {missing}.")
    for source, without in zip(sources, counts, strict=True):
        if without:
            logger.warning(
                "%s: %d of %d episodes have no labels, and are not learnt from", source.name, without, len(source)
            )


def check_left_out(arguments: Any, names: Sequence[str], reason: str) -> None:
    """Raises `ValueError` naming an argument that was given, another value than its default, and would be ignored.

    Args:
        arguments: A dataclass.
        names (`Sequence[str]`): Its fields that say nothing here.
        reason (`str`): Where they are to be left out, such as ``"with `labels`"``.
    """
    for field in (field for field in fields(arguments) if field.name in names):
        value = getattr(arguments, field.name)
        if value != field.default:
            raise ValueError(f"`{field.name}` must be left out {reason}, got {value}.")


def is_same_rate(one: float, other: float) -> bool:
    """Whether two frame rates are as near as 30 and 29.97, or as those of clocks that drift."""
    return math.isclose(one, other, rel_tol=0.05)


def check_at_least_one(**numbers: int) -> None:
    """Raises `ValueError` naming a number below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")


def choose_action_steps(wanted: int | None, config: PreTrainedConfig) -> int:
    """Actions of a chunk that are carried out before the policy looks again: so many as wanted, else as the policy's
    configuration says ([`~CycleMimicConfig.num_executed_steps`]).

    Raises:
        ValueError: they are more than a chunk has, or none; or the policy averages, and a number is wanted.
    """
    if config.temporal_ensemble_coeff is not None and wanted is not None:
        raise ValueError(
            "`num_action_steps` must be left out for a policy that looks before every action "
            f"(`temporal_ensemble_coeff`), got {wanted}."
        )
    if wanted is not None and not 1 <= wanted <= config.chunk_size:
        raise ValueError(f"`num_action_steps` must be in [1, {config.chunk_size}], the policy's chunk, got {wanted}.")
    return wanted or config.num_executed_steps
