# SPDX-License-Identifier: Apache-2.0
"""What is in a data set: sizes, cameras, instructions, statistics of actions and states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .checking import BrokenEpisode, check_columns, checked_vectors, find_broken_episodes
from .episode import DataError, Episode
from .episode_source import EpisodeSource
from .feature_statistics import DistinctValues, VectorStatistics

_MAX_INSTRUCTIONS = 5


@dataclass(frozen=True)
class VectorSummary:
    """Statistics of actions or states: lists of one entry a dimension, in physical units.

    Args:
        min, q01, mean, std, q99, max (`list[float]`): Over all frames of the episodes that read.
        constant (`list[bool]`): Whether the dimension never changes.
        binary (`list[bool]`): Whether it has two values, as a gripper that is open or closed.
    """

    min: list[float]
    q01: list[float]
    mean: list[float]
    std: list[float]
    q99: list[float]
    max: list[float]
    constant: list[bool]
    binary: list[bool]


@dataclass(frozen=True)
class SourceInspection:
    """What is in a data set.

    Args:
        name, embodiment (`str`): Of the data set.
        cameras (`list[str]`): All that can be read.
        camera (`str`): The one read.
        resolution (`tuple[int, int]` or `None`): Width and height of the first frame that decodes.
        fps (`float`): Frames per second.
        num_episodes, num_frames (`int`): Totals.
        hours (`float`): Length of all episodes together.
        shortest, longest (`tuple[int, int]`): Index of such an episode, and its number of frames.
        num_instructions (`int`): Distinct ones.
        frequent_instructions (`list[tuple[str, int]]`): Those of most episodes, and of how many.
        num_without_instruction (`int`): Episodes that have none.
        actions, states (`VectorSummary` or `None`): Statistics; `None` where there are no such values.
        broken (`list[BrokenEpisode]`): Episodes that cannot be used; they count in the totals, not in the statistics.
    """

    name: str
    embodiment: str
    cameras: list[str]
    camera: str
    resolution: tuple[int, int] | None
    fps: float
    num_episodes: int
    num_frames: int
    hours: float
    shortest: tuple[int, int]
    longest: tuple[int, int]
    num_instructions: int
    frequent_instructions: list[tuple[str, int]]
    num_without_instruction: int
    actions: VectorSummary | None
    states: VectorSummary | None
    broken: list[BrokenEpisode]


def inspect_source(
    source: EpisodeSource, check: bool = False, left_out: Sequence[BrokenEpisode] = ()
) -> SourceInspection:
    """Look through a data set, an episode's columns and a frame in memory at a time.

    Args:
        source (`EpisodeSource`): Data set.
        check (`bool`, *optional*, defaults to `False`): Also decode every frame. Without, an episode that does not
            decode is noticed only before one that does.
        left_out (`Sequence[BrokenEpisode]`, *optional*): Broken episodes that `source` was opened without, to be reported
            with the others; of them, no length is known.

    Returns:
        `SourceInspection`: What is in it.
    """
    found = find_broken_episodes(source) if check else []
    broken = {episode.index: episode for episode in [*left_out, *found]}
    lengths: list[tuple[int, int]] = []
    instructions: Counter[str] = Counter()
    num_without_instruction = 0
    actions, states = _Vectors("actions"), _Vectors("states")
    resolution = None
    for episode in source:
        lengths.append((episode.index, episode.num_frames))
        if episode.index in broken:
            continue
        try:
            check_columns(episode)
            actions.check(episode)
            states.check(episode)
            if resolution is None:
                resolution = _resolution(episode)
        except DataError as fault:
            broken[episode.index] = BrokenEpisode(episode.index, str(fault))
            continue
        actions.update(episode)
        states.update(episode)
        said = [text for text in episode.instructions if text.strip()]
        num_without_instruction += not said
        instructions.update(said)
    num_frames = sum(num_frames for _, num_frames in lengths)
    return SourceInspection(
        name=source.name,
        embodiment=source.embodiment,
        cameras=list(source.cameras),
        camera=source.camera,
        resolution=resolution,
        fps=source.fps,
        num_episodes=len(lengths) + len(left_out),
        num_frames=num_frames,
        hours=num_frames / source.fps / 3600,
        shortest=min(lengths, key=lambda length: length[1]),
        longest=max(lengths, key=lambda length: length[1]),
        num_instructions=len(instructions),
        frequent_instructions=instructions.most_common(_MAX_INSTRUCTIONS),
        num_without_instruction=num_without_instruction,
        actions=actions.summary(),
        states=states.summary(),
        broken=sorted(broken.values(), key=lambda episode: episode.index),
    )


def _resolution(episode: Episode) -> tuple[int, int]:
    height, width, _ = next(iter(episode.iter_frames([0]))).shape
    return width, height


class _Vectors:
    """Gathers the statistics of actions or states, an episode at a time."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._statistics = VectorStatistics()
        self._distinct = DistinctValues()
        self._size: int | None = None

    def check(self, episode: Episode) -> None:
        """Raise `DataError` if an episode's values are of another size than those before."""
        if getattr(episode, self._what) is not None:
            checked_vectors(episode, self._what, self._size, "")

    def update(self, episode: Episode) -> None:
        """Add an episode's values, if it has any."""
        values = getattr(episode, self._what)
        if values is not None:
            self._size = values.shape[1]
            self._statistics.update(values)
            self._distinct.update(values)

    def summary(self) -> VectorSummary | None:
        """The statistics so far; `None` if there was no value."""
        if self._size is None:
            return None
        statistics = self._statistics.result()
        return VectorSummary(
            **{name: statistics[name].tolist() for name in ("min", "q01", "mean", "std", "q99", "max")},
            constant=[count == 1 for count in self._distinct.counts()],
            binary=[count == 2 for count in self._distinct.counts()],
        )
