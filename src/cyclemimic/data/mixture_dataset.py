# SPDX-License-Identifier: Apache-2.0
"""Frame pairs of many data sets by weight, decoded as they are needed, in bounded memory and an order that resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .episode import DataError, Episode
from .episode_source import EpisodeSource, check_sources, list_episodes
from .frame_store import MAX_BYTES, iter_transformed
from .pair_order import SegmentOrder, SourceOrder
from .pairs import check_intervals, num_pairs_of, pair_item

# At most so many pairs are decoded side by side: long enough that the frames between the last current frame and the last
# future frame, and those from the keyframe to the first, are a small part. Half as many, and so on, where frames are too
# large for that.
_MAX_SEGMENT_PAIRS = 256
# More segments at a time mix no better, and take longer to decode before the first batch.
_MAX_SLOTS = 64


@dataclass(frozen=True)
class WeightedSource:
    """A data set of a mixture.

    Args:
        source (`EpisodeSource`): The data set.
        weight (`float`): How often its pairs are drawn, against the other data sets' weights.
        interval_s (`float` or `tuple[float, float]`): Time between the frames of a pair in seconds, or the range that it
            is drawn from.
        min_interval_s (`float`): Shortest time allowed at an episode's end, in seconds.

    Raises:
        ValueError: a weight or time that is not above 0, or `min_interval_s` above the interval.
    """

    source: EpisodeSource
    weight: float
    interval_s: float | tuple[float, float]
    min_interval_s: float

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"`weight` of {self.source.name} must be above 0, got {self.weight}")
        shortest, longest = self.interval_range_s
        check_intervals(shortest, self.min_interval_s)
        if not shortest <= longest < float("inf"):
            raise ValueError(f"`interval_s` of {self.source.name} must ascend, got {shortest} to {longest}")

    @property
    def interval_range_s(self) -> tuple[float, float]:
        """Shortest and longest interval, in seconds."""
        return self.interval_s if isinstance(self.interval_s, tuple) else (self.interval_s, self.interval_s)


class MixtureDataset(Dataset):
    """Pairs of frames of many data sets, in their own random order: to be read from first to last, not shuffled.

    Each item follows from its index, the epoch and the arguments below alone ([`~cyclemimic.data.pair_order`]), so a Trainer,
    of which ours read it in order, resumes exactly, by skipping indices, as long as all of them stay: with another
    batch size or number of readers, or room for fewer frames, the order is another one. Frames are decoded once a segment of
    neighbouring pairs, and many segments of different data sets are mixed; items read in another order are the same,
    but slow. An epoch has as many items as the data sets have pairs; the next one goes on with new draws.

    Args:
        sources (`Sequence[WeightedSource]`): The data sets.
        transform (`Callable`, *optional*): As in [`FrameStore`].
        seed (`int`, *optional*, defaults to 0): What decides.
        batch_size (`int`, *optional*, defaults to 1), num_streams (`int`, *optional*, defaults to 1): Batch size a device,
            and how many processes read: data-parallel ranks times their workers. Batches are dealt out to them in turn,
            and each then decodes its own segments only.
        max_bytes (`int`, *optional*, defaults to 2 GiB): Bound on the decoded frames that one reading process keeps.
        with_future (`bool`, *optional*, defaults to `True`): Whether items hold the future frame; else it is not decoded.

    Raises:
        DataError: If a data set has no pair or does not decode, or two episodes go by one name.
        ValueError: If `max_bytes` is too small, a number below 1, or `sources` no list of them.

    Attributes:
        sources (`list[WeightedSource]`): The data sets; none in the process of a data loader.
        embodiments (`list[str]`): Sorted names; `embodiment_id` counts in it.
        interval_s, min_interval_s (`float` or `None`): Those of all data sets, where they have the same.

    Example:

    ```python
    >>> import numpy as np
    >>> from cyclemimic.data import Episode, InMemorySource, MixtureDataset, WeightedSource

    >>> source = InMemorySource([Episode.from_arrays(np.zeros((12, 8, 8, 3), np.uint8), fps=10.0)])
    >>> pairs = MixtureDataset([WeightedSource(source, weight=1.0, interval_s=1.0, min_interval_s=0.5)])
    >>> len(pairs), sorted(pairs[0])[:3]
    (7, ['current', 'embodiment_id', 'episode_index'])
    ```
    """

    def __init__(
        self,
        sources: Sequence[WeightedSource],
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
        seed: int = 0,
        batch_size: int = 1,
        num_streams: int = 1,
        max_bytes: int = MAX_BYTES,
        with_future: bool = True,
    ) -> None:
        if min(batch_size, num_streams) < 1:
            raise ValueError(f"`batch_size` and `num_streams` must be at least 1, got {batch_size} and {num_streams}")
        check_sources(sources, WeightedSource, "`WeightedSource`s")
        self.sources = list(sources)
        list_episodes([weighted.source for weighted in sources])
        self.embodiments = sorted({weighted.source.embodiment for weighted in sources})
        times = {(weighted.interval_range_s, weighted.min_interval_s) for weighted in sources}
        (shortest, longest), least = times.pop()
        is_one = not times and shortest == longest
        self.interval_s: float | None = shortest if is_one else None
        self.min_interval_s: float | None = least if is_one else None
        self._pairs = [
            _SourcePairs(weighted, self.embodiments.index(weighted.source.embodiment), transform, with_future)
            for weighted in sources
        ]
        self._weights = [weighted.weight for weighted in sources]
        self._segment_pairs, self._num_slots = _choose_segments(self._pairs, self._weights, max_bytes)
        self._seed, self.batch_size, self.num_streams = seed, batch_size, num_streams
        # Shared, so that data loader's workers that outlive an epoch learn of the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._streams: dict[int, _Stream] = {}
        draws = sum(pairs.num_pairs for pairs in self._pairs)
        # Whole rounds of batches: the next epoch then starts with the first stream again.
        self._length = -(-draws // (batch_size * num_streams)) * batch_size * num_streams

    @property
    def episodes(self) -> Iterator[tuple[Episode, int]]:
        """Every episode that has pairs, and how many."""
        return chain.from_iterable(pairs.episodes for pairs in self._pairs)

    def __len__(self) -> int:
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Go on with the draws of another epoch; Trainer calls it."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a pair, as [`FramePairDataset`] does; its frames are read-only."""
        if not 0 <= index < self._length:
            raise IndexError(index)
        number, position = divmod(int(self._epoch) * self._length + index, self.batch_size)
        turn, stream = divmod(number, self.num_streams)
        if stream not in self._streams:
            self._streams[stream] = self._open_stream(stream)
        return self._streams[stream].item(turn * self.batch_size + position)

    def __getstate__(self) -> dict[str, Any]:
        # Decoded frames are no part of what a data loader worker should be sent.
        return {**self.__dict__, "_streams": {}, "sources": []}

    def _open_stream(self, stream: int) -> _Stream:
        segments = [
            SegmentOrder(
                pairs.num_pairs, self._segment_pairs, slots, stream, self.num_streams, [self._seed, 1, position]
            )
            for position, (pairs, slots) in enumerate(zip(self._pairs, self._num_slots, strict=True))
        ]
        return _Stream(SourceOrder(self._weights, [self._seed, 0, stream]), segments, self._pairs)


class _SourcePairs:
    """The pairs of one data set, numbered through, and how they are decoded."""

    def __init__(
        self,
        weighted: WeightedSource,
        embodiment_id: int,
        transform: Callable[[np.ndarray], np.ndarray] | None,
        with_future: bool,
    ) -> None:
        self._with_future = with_future
        source, self._transform, self._embodiment_id = weighted.source, transform, embodiment_id
        self._interval_range_s = weighted.interval_range_s
        counts = [num_pairs_of(episode, weighted.min_interval_s) for episode in source]
        self._episodes = [episode for episode, count in zip(source, counts, strict=True) if count]
        if not self._episodes:
            raise DataError(
                f"{source.name}: no episode has two frames {weighted.min_interval_s:g} s apart; lower `min_interval_s`"
            )
        self._ends = np.cumsum([count for count in counts if count])
        self.num_pairs = int(self._ends[-1])
        # One frame now: a data set that does not decode is found before training, not on its way.
        self.frame_bytes = next(iter_transformed(self._episodes[0], [0], transform)).nbytes

    def segment_bytes(self, segment_pairs: int) -> int:
        """Most that the frames of a segment of so many pairs take."""
        pairs = min(segment_pairs, self.num_pairs)
        if not self._with_future:
            return self.frame_bytes * pairs
        # A segment that begins with the last pair of an episode reaches furthest; after the last episode comes the first.
        reached = np.searchsorted(self._ends, self._ends + pairs - 2, side="right")
        num_episodes = int((reached - np.arange(len(reached))).max()) + 2
        # Each episode has the frames from its last current to its last future one besides.
        beyond = max(1, round(self._interval_range_s[1] * self._episodes[0].fps))
        return self.frame_bytes * min(2 * pairs, pairs + num_episodes * beyond)

    @property
    def episodes(self) -> Iterator[tuple[Episode, int]]:
        return zip(self._episodes, np.diff(self._ends, prepend=0).tolist(), strict=True)

    def decode(self, pairs: np.ndarray, generator: np.random.Generator) -> _Segment:
        """Decode the frames of some pairs, each once; `generator` draws the intervals."""
        positions = np.searchsorted(self._ends, pairs, side="right")
        current = pairs - np.where(positions > 0, self._ends[positions - 1], 0)
        episodes = [self._episodes[position] for position in positions]
        fps, num_frames = (np.array([getattr(e, name) for e in episodes]) for name in ("fps", "num_frames"))
        interval = np.maximum(1, np.rint(generator.uniform(*self._interval_range_s, len(pairs)) * fps)).astype(int)
        future = np.minimum(current + interval, num_frames - 1)
        # Ascending, so that one pass over the video files finds all of an episode's frames.
        looked_at = [current, future] if self._with_future else [current]
        wanted, rows = np.unique(
            np.concatenate([np.stack([positions, indices], 1) for indices in looked_at]), axis=0, return_inverse=True
        )
        frames = list(self._iter_frames(wanted))
        return _Segment(episodes, self._embodiment_id, current, future, rows.reshape(len(looked_at), -1).T, frames)

    def _iter_frames(self, wanted: np.ndarray) -> Iterator[np.ndarray]:
        for position in np.unique(wanted[:, 0]):
            indices = wanted[wanted[:, 0] == position, 1].tolist()
            for frame in iter_transformed(self._episodes[position], indices, self._transform):
                # Items hand them out as they are: a copy of both frames would cost a third of decoding one.
                frame.flags.writeable = False
                yield frame


@dataclass(frozen=True)
class _Segment:
    """Neighbouring pairs, and the frames they need, read-only; `rows` says which two of them, or which one, are a pair's."""

    episodes: Sequence[Episode]
    embodiment_id: int
    current: np.ndarray
    future: np.ndarray
    rows: np.ndarray
    frames: Sequence[np.ndarray]

    def item(self, pair: int) -> dict[str, Any]:
        indices = int(self.current[pair]), int(self.future[pair])
        frames = [self.frames[row] for row in self.rows[pair]]
        return pair_item(self.episodes[pair], self.embodiment_id, *indices, frames)


class _Stream:
    """What one reading process goes through: an order, and the segments it has decoded, one a slot."""

    def __init__(self, order: SourceOrder, segments: Sequence[SegmentOrder], pairs: Sequence[_SourcePairs]) -> None:
        self._order, self._segments, self._pairs = order, segments, pairs
        self._decoded: dict[tuple[int, int], tuple[int, _Segment]] = {}

    def item(self, draw: int) -> dict[str, Any]:
        source, count = self._order.locate(draw)
        order = self._segments[source]
        place = order.locate(count)
        held = self._decoded.pop((source, place.slot), None)
        if held is not None and held[0] == place.segment:
            segment = held[1]
        else:
            # The old frames go first: memory holds a segment a slot, not one more.
            held = None
            segment = self._pairs[source].decode(order.pairs_of(place.segment), order.generator_of(place.segment))
        self._decoded[source, place.slot] = (place.segment, segment)
        return segment.item(place.pair)


def _choose_segments(pairs: Sequence[_SourcePairs], weights: Sequence[float], max_bytes: int) -> tuple[int, list[int]]:
    """
    Pairs of a segment, and how many segments of each data set are held at a time: by weight, at least one, all within the
    bound; long ones first, then many.
    """
    segment_pairs = _MAX_SEGMENT_PAIRS
    while segment_pairs:
        segment_bytes = [source.segment_bytes(segment_pairs) for source in pairs]
        for total in range(_MAX_SLOTS, 0, -1):
            # More slots than a data set has segments would hold the same pairs several times.
            slots = [
                min(max(1, int(total * weight / sum(weights))), -(-source.num_pairs // segment_pairs))
                for source, weight in zip(pairs, weights, strict=True)
            ]
            if sum(map(int.__mul__, slots, segment_bytes)) <= max_bytes:
                return segment_pairs, slots
        segment_pairs //= 2
    raise ValueError(
        f"`max_bytes` must be at least {sum(source.segment_bytes(1) for source in pairs)} for {len(pairs)} data sets with "
        f"frames of {max(source.frame_bytes for source in pairs)} bytes, got {max_bytes}"
    )
