# SPDX-License-Identifier: Apache-2.0
"""Pairs of frames some time apart: what the latent action tokenizer looks at (paper §1)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .episode import DataError, Episode
from .episode_source import EpisodeSource, list_episodes
from .frame_store import FrameStore

logger = logging.getLogger(__name__)


class FramePairDataset(Dataset):
    """Every frame `o_t` that has a frame at least `min_interval_s` later, with the frame `o_{t+H}`.

    `H` is `interval_s` in frames of the source, so one setting serves data of any frame rate. Near an episode's end
    the pair is shorter; pairs shorter than `min_interval_s` are left out, because next to nothing happens in them
    (UniVLA clamps there, down to pairs of a frame with itself).

    Args:
        sources (`Sequence[EpisodeSource]`): Data sets.
        interval_s (`float`): Time from the current to the future frame, in seconds; at least one frame is taken.
        min_interval_s (`float`): Shortest time allowed at an episode's end, in seconds, to the nearest frame, as the other; at
            least one frame is taken.
        transform (`Callable`, *optional*): As in [`FrameStore`].
        max_bytes (`int`, *optional*): As in [`FrameStore`].

    Raises:
        DataError: If no episode is long enough for a pair.
        ValueError: If the times are not positive, `min_interval_s` exceeds `interval_s`, or `sources` is no list of data sets.

    Attributes:
        pairs (`np.ndarray` of shape `(num_pairs, 3)`): `int32` position of the episode in `episodes`, index of the
            current and of the future frame.
        episodes (`list[Episode]`): Episodes that have pairs.
        sources (`list[EpisodeSource]`): The data sets; none in the process of a data loader.
        embodiments (`list[str]`): Sorted names; `embodiment_id` counts in it.

    Example:

    ```python
    >>> import numpy as np
    >>> from cyclemimic.data import Episode, FramePairDataset, InMemorySource

    >>> source = InMemorySource([Episode.from_arrays(np.zeros((12, 8, 8, 3), np.uint8), fps=10.0)])
    >>> pairs = FramePairDataset([source], interval_s=1.0, min_interval_s=0.5)
    >>> len(pairs), pairs.pairs[-1].tolist(), pairs[0]["future"].shape
    (7, [0, 6, 11], (8, 8, 3))
    ```
    """

    def __init__(
        self,
        sources: Sequence[EpisodeSource],
        interval_s: float,
        min_interval_s: float,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
        max_bytes: int | None = None,
    ) -> None:
        check_intervals(interval_s, min_interval_s)
        episodes = list_episodes(sources)
        self.sources = list(sources)
        self.interval_s, self.min_interval_s = interval_s, min_interval_s
        futures = [future_indices(episode, interval_s, min_interval_s) for episode in episodes]
        self.episodes: list[Episode] = [episode for episode, future in zip(episodes, futures) if len(future)]
        if not self.episodes:
            raise DataError(
                f"{[source.name for source in sources]}: no episode has two frames {min_interval_s:g} s apart; lower "
                "`min_interval_s`"
            )
        if len(self.episodes) < len(episodes):
            short = [episode for episode, future in zip(episodes, futures) if not len(future)]
            first = f"{short[0].source}'s {short[0].index if short[0].place is None else short[0].place}"
            logger.info("%d of %d episodes are too short for a pair, %s first", len(short), len(episodes), first)
        self.pairs = _stack_pairs([future for future in futures if len(future)])
        self.embodiments = sorted({source.embodiment for source in sources})
        ids = {name: index for index, name in enumerate(self.embodiments)}
        self._embodiment_ids = [ids[episode.embodiment] for episode in self.episodes]
        self._frames = FrameStore(self.episodes, transform, max_bytes)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getstate__(self) -> dict[str, Any]:
        # All that is read of them are the episodes.
        return {**self.__dict__, "sources": []}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a pair.

        - **current**, **future** (`np.ndarray` of shape `(height, width, 3)`): RGB, `uint8`.
        - **embodiment_id** (`int`): Index in `embodiments`.
        - **source** (`str`), **episode_index**, **frame_index**, **future_index** (`int`): Where the pair is from.
        - **instruction** (`str` or `None`): The episode's instruction.
        """
        position, frame_index, future_index = self.pairs[index].tolist()
        episode = self.episodes[position]
        frames = self._frames.frames(position, (frame_index, future_index))
        return pair_item(episode, self._embodiment_ids[position], frame_index, future_index, list(frames))


def check_intervals(interval_s: float, min_interval_s: float) -> None:
    """Raises `ValueError` unless the two are times between the frames of a pair."""
    if not 0 < min_interval_s <= interval_s < float("inf"):
        raise ValueError(
            f"`min_interval_s` must be above 0 and at most `interval_s` ({interval_s:g}), got {min_interval_s:g}."
        )


def num_pairs_of(episode: Episode, min_interval_s: float) -> int:
    """Return how many frames 0, 1, … of an episode have a frame at least `min_interval_s` later."""
    return max(0, episode.num_frames - max(1, round(min_interval_s * episode.fps)))


def future_indices(episode: Episode, interval_s: float, min_interval_s: float) -> np.ndarray:
    """Return the future frame of frames 0, 1, … of an episode, as far as there is one (`int32`, ascending)."""
    current = np.arange(num_pairs_of(episode, min_interval_s), dtype=np.int32)
    return np.minimum(current + max(1, round(interval_s * episode.fps)), episode.num_frames - 1).astype(np.int32)


def pair_item(
    episode: Episode, embodiment_id: int, frame_index: int, future_index: int, frames: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Describe a pair as [`FramePairDataset`] returns it; `frames` are its two, or the current one alone."""
    return {
        **dict(zip(("current", "future"), frames)),
        "embodiment_id": embodiment_id,
        "source": episode.source,
        "episode_index": episode.index,
        "frame_index": frame_index,
        "future_index": future_index,
        "instruction": episode.instruction_at(frame_index),
    }


def _stack_pairs(futures: Sequence[np.ndarray]) -> np.ndarray:
    # int32 throughout: a mixture has tens of millions of pairs.
    pairs = np.empty((sum(map(len, futures)), 3), dtype=np.int32)
    start = 0
    for position, future in enumerate(futures):
        block = pairs[start : start + len(future)]
        block[:, 0], block[:, 1], block[:, 2] = position, np.arange(len(future)), future
        start += len(future)
    return pairs
