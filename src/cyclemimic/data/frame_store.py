# SPDX-License-Identifier: Apache-2.0
"""Decoded frames in memory, within a bound: video is decoded once, not once a training step."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice

import numpy as np
from torch.utils.data import get_worker_info

from .episode import Episode, stack_frames
from .free_memory import free_memory

# Frames decoded and resized at a time: an episode of full-size frames is never in memory whole.
_BLOCK = 32

MAX_BYTES = 2 << 30
"""How many bytes of decoded frames a process may keep on any machine."""

# Of the memory that is free, what all processes of a training keep together.
_SHARE = 0.25

_OF_ONE_PROCESS = {"_kept", "_num_bytes", "_frame_bytes", "_last_bytes", "_last"}


class FrameStore:
    """Keeps the frames of recently used episodes.

    An episode is decoded whole when one of its frames is first asked for. Once memory is full, what follows depends on
    the order of access: when what is asked for comes soon after what was asked for last (a pass in order), the episode is
    decoded whole and takes the place of the least recently used one; otherwise (random order) only the frames asked for are decoded, because
    a whole episode for one item would be decoded for nothing. So are those of an episode that alone takes more than
    there may be.

    Each process has a store of its own: data loader workers receive it empty, and each may use `max_bytes`. By default the
    processes of this machine (ranks, and the workers of each) share a quarter of the memory that is free when the store is
    made, but have 2 GiB each. What is read does not depend on it.

    Args:
        episodes (`Sequence[Episode]`): Episodes, addressed by their position here.
        transform (`Callable`, *optional*): Maps `uint8` frames `(num_frames, height, width, 3)` to `uint8` frames of
            another size, such as a resize; what it returns is kept. It is given blocks of an episode.
        max_bytes (`int`, *optional*): Bound on the frames kept by a process, in bytes.
        num_stores (`int`, *optional*, defaults to 1): Stores of a process that share the bound.
    """

    # The episode and the first frame that were asked for last; set anew in a process that receives the store.
    _last: tuple[int, int] | None

    def __init__(
        self,
        episodes: Sequence[Episode],
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
        max_bytes: int | None = None,
        num_stores: int = 1,
    ) -> None:
        if max_bytes is not None and max_bytes <= 0:
            raise ValueError(f"`max_bytes` must be above 0, got {max_bytes}")
        self.episodes = list(episodes)
        self.transform = transform
        self._given_bytes, self._num_stores = max_bytes, num_stores
        self._rank_bytes = int(free_memory() * _SHARE) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        self._clear()

    @property
    def max_bytes(self) -> int:
        """Bound on the frames kept in this process."""
        max_bytes = self._given_bytes
        if max_bytes is None:
            worker = get_worker_info()
            max_bytes = max(MAX_BYTES, self._rank_bytes // (1 if worker is None else worker.num_workers))
        return max(1, max_bytes // self._num_stores)

    def frame(self, episode_position: int, frame_index: int) -> np.ndarray:
        """Return frame `frame_index` of the episode at `episode_position`, `uint8` of shape `(height, width, 3)`, as
        [`FrameStore.frames`]."""
        return self.frames(episode_position, [frame_index])[0]

    def frames(self, episode_position: int, frame_indices: Sequence[int]) -> np.ndarray:
        """Return frames of one episode.

        Args:
            episode_position (`int`): Position in `episodes`.
            frame_indices (`Sequence[int]`): Frame indices, in any order.

        Returns:
            `np.ndarray` of shape `(len(frame_indices), height, width, 3)`: RGB, `uint8`; a copy, free to change.

        Raises:
            DataError: If the frames cannot be decoded.
        """
        kept = self._kept.get(episode_position)
        first = min(frame_indices, default=0)
        is_wanted = self._has_room(episode_position) or self._follows(episode_position, first)
        self._last = episode_position, first
        if kept is None and is_wanted and self._fits(episode_position):
            kept = self._decode(episode_position)
        if kept is None:
            return _transformed(self.episodes[episode_position].read_frames(frame_indices), self.transform)
        self._kept.move_to_end(episode_position)
        return kept[list(frame_indices)]

    def __getstate__(self) -> dict[str, object]:
        # Gigabytes of frames are no part of what a data loader worker should be sent.
        return {name: value for name, value in self.__dict__.items() if name not in _OF_ONE_PROCESS}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._clear()

    def _clear(self) -> None:
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._num_bytes = 0
        self._frame_bytes: dict[int, int] = {}
        self._last_bytes = 0
        self._last = None

    def _has_room(self, episode_position: int) -> bool:
        return self._num_bytes + self._expected_bytes(episode_position) <= self.max_bytes

    def _follows(self, episode_position: int, first: int) -> bool:
        """Whether it is a little further on in the same episode, which random order seldom is."""
        return self._last is not None and self._last[0] == episode_position and 0 <= first - self._last[1] <= _BLOCK

    def _fits(self, episode_position: int) -> bool:
        """False where its own first frame has told that it does not."""
        return episode_position not in self._frame_bytes or self._expected_bytes(episode_position) <= self.max_bytes

    def _expected_bytes(self, episode_position: int) -> int:
        """Of the whole episode, by its own frames where one has been seen, else as those of the last; at first nothing."""
        return self.episodes[episode_position].num_frames * self._frame_bytes.get(episode_position, self._last_bytes)

    def _decode(self, episode_position: int) -> np.ndarray | None:
        """The whole episode, kept from now on; `None` if it takes more than there may be, as its first frame tells."""
        episode = self.episodes[episode_position]
        frames = iter_transformed(episode, None, self.transform)
        first = next(frames)
        self._frame_bytes[episode_position] = self._last_bytes = first.nbytes
        if not self._fits(episode_position):
            return None
        stored = stack_frames(chain([first], frames), episode.num_frames)
        while self._kept and self._num_bytes + stored.nbytes > self.max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._num_bytes -= oldest.nbytes
        self._kept[episode_position] = stored
        self._num_bytes += stored.nbytes
        return stored


def iter_transformed(
    episode: Episode, indices: Sequence[int] | None, transform: Callable[[np.ndarray], np.ndarray] | None
) -> Iterator[np.ndarray]:
    """Decode frames of an episode one at a time, as [`Episode.iter_frames`], each as `transform` returns it."""
    frames = episode.iter_frames(indices)
    if transform is None:
        yield from frames
    while block := list(islice(frames, _BLOCK)):
        yield from _transformed(np.stack(block), transform)


def _transformed(frames: np.ndarray, transform: Callable[[np.ndarray], np.ndarray] | None) -> np.ndarray:
    if transform is None:
        return frames
    resized = np.asarray(transform(frames))
    if resized.dtype != np.uint8 or resized.ndim != 4 or len(resized) != len(frames):
        raise ValueError(
            "`transform` must return uint8 of shape (num_frames, height, width, 3) with as many frames as it was "
            f"given, {len(frames)}; got {resized.dtype} {resized.shape}"
        )
    return resized
