# SPDX-License-Identifier: Apache-2.0
"""Finds the episodes of a data set that cannot be used, by reading all there is of each, and goes on without them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from .episode import DataError, Episode
from .episode_source import EpisodeSource

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrokenEpisode:
    """An episode that cannot be used.

    Args:
        index (`int`): Index of the episode in its data set.
        reason (`str`): One line: what is wrong, in which file.
    """

    index: int
    reason: str


class BrokenEpisodesError(DataError):
    """Episodes that show on opening a data set that they cannot be used.

    Args:
        message (`str`): One line: what is wrong, in which file.
        broken (`Sequence[BrokenEpisode]`): These episodes.
        usable (`Sequence[int]`): Indices of the others.
    """

    def __init__(self, message: str, broken: Sequence[BrokenEpisode], usable: Sequence[int]) -> None:
        super().__init__(message)
        self.broken, self.usable = list(broken), list(usable)


def open_usable(
    open_episodes: Callable[[Sequence[int] | None], EpisodeSource],
) -> tuple[EpisodeSource, list[BrokenEpisode]]:
    """Open a data set without its broken episodes, which are named in the log. Everything in it is decoded once for that.

    Args:
        open_episodes (`Callable`): Opens the data set with the episodes of these indices, or with all.

    Returns:
        The data set, and the episodes left out, by index.

    Raises:
        DataError: If it cannot be opened for another reason, or has no other episode.
    """
    source, broken = open_readable(open_episodes)
    found = find_broken_episodes(source)
    broken = sorted([*broken, *found], key=lambda episode: episode.index)
    for episode in broken:
        logger.warning("%s: episode %d left out: %s", source.name, episode.index, episode.reason)
    if not found:
        return source, broken
    indices = {episode.index for episode in found}
    usable = [episode.index for episode in source if episode.index not in indices]
    if not usable:
        raise DataError(f"{source.name}: all {len(broken)} episodes are broken; the first: {broken[0].reason}")
    return open_episodes(usable), broken


def open_readable(
    open_episodes: Callable[[Sequence[int] | None], EpisodeSource],
) -> tuple[EpisodeSource, list[BrokenEpisode]]:
    """As [`open_usable`], but without those episodes alone that show on opening the data set that they are broken."""
    try:
        return open_episodes(None), []
    except BrokenEpisodesError as error:
        if not error.usable:
            raise
        return open_episodes(error.usable), error.broken


def find_broken_episodes(source: EpisodeSource) -> list[BrokenEpisode]:
    """Read instruction, actions and states of every episode, and decode every frame, one in memory at a time.

    Args:
        source (`EpisodeSource`): Data set.

    Returns:
        `list[BrokenEpisode]`: The episodes that cannot be used, each with the first fault found; in the source's order.
        The others are what to open it with as `episodes`, to leave these out.
    """
    broken = []
    num_frames = sum(episode.num_frames for episode in source)
    with tqdm(total=num_frames, desc=f"check {source.name}", unit="frame", unit_scale=True) as progress:
        done = 0
        for episode in source:
            try:
                check_columns(episode)
                for _ in episode.iter_frames():
                    progress.update()
            except DataError as fault:
                broken.append(BrokenEpisode(episode.index, str(fault)))
            done += episode.num_frames
            progress.update(done - progress.n)
    return broken


def checked_vectors(episode: Episode, column: str, size: int | None, remedy: str) -> np.ndarray:
    """An episode's `actions` or `states`, which a data set must have: finite, and of `size` where one is known.

    Args:
        remedy (`str`): What to do where there are none.

    Raises:
        DataError: If they are not so.
    """
    values = getattr(episode, column)
    if values is None:
        raise DataError(f"{episode.source} has no {column}; {remedy}")
    _check_finite(episode, column, values)
    if size not in (None, values.shape[1]):
        raise DataError(
            f"{episode.source}: episode {episode.index} has {column} of size {values.shape[1]}, the ones before of size "
            f"{size}; use data sets with one {column[:-1]} space"
        )
    return values


def check_columns(episode: Episode) -> None:
    """Read all of an episode but its frames.

    Raises:
        DataError: If something does not read, or an action or a state is not a finite number.
    """
    _ = episode.instructions
    for column in ("actions", "states"):
        if getattr(episode, column) is not None:
            checked_vectors(episode, column, None, "")


def _check_finite(episode: Episode, column: str, values: np.ndarray) -> None:
    """Raise `DataError` if a value of an episode's `column` is not a finite number."""
    if not np.isfinite(values).all():
        frame, dimension = np.argwhere(~np.isfinite(values))[0]
        raise DataError(
            f"{episode.source}: episode {episode.index} has {column} that are not finite, dimension {dimension} of frame "
            f"{frame} first; leave it out with `--skip_broken`"
        )
