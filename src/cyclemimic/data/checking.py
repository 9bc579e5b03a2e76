# SPDX-License-Identifier: Apache-2.0
"""Finds the episodes of a data set that cannot be used, by reading all there is of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from .episode import DataError, Episode, EpisodeSource


@dataclass(frozen=True)
class BrokenEpisode:
    """An episode that cannot be used.

    Args:
        index (`int`): Index of the episode in its data set.
        reason (`str`): One line: what is wrong, in which file.
    """

    index: int
    reason: str


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


def check_columns(episode: Episode) -> None:
    """Read all of an episode but its frames.

    Raises:
        DataError: If something does not read, or an action or a state is not a finite number.
    """
    _ = episode.instruction
    for what, values in (("actions", episode.actions), ("states", episode.states)):
        if values is not None and not np.isfinite(values).all():
            frame, dimension = np.argwhere(~np.isfinite(values))[0]
            raise DataError(
                f"{episode.source}: episode {episode.index} has {what} that are not finite, dimension {dimension} of frame "
                f"{frame} first; leave it out with `episodes`"
            )
