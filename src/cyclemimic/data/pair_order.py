# SPDX-License-Identifier: Apache-2.0
"""The order in which a mixture's pairs are drawn, as arithmetic: draw `n` follows from `n` and the seed alone.

So the position in a stream of data is one number. A resumed training goes on at the very next pair without a state to
save, and without decoding what it has seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_BLOCK = 1024


class SourceOrder:
    """Which data set each draw of a stream is from.

    Every 1,024 draws hold each data set as often as its weight says, up to one draw that a coin of just that expectation
    decides (systematic sampling), in random order.

    Args:
        weights (`Sequence[float]`): A weight a data set; only their ratios count.
        seed (`Sequence[int]`): What decides.
    """

    def __init__(self, weights: Sequence[float], seed: Sequence[int]) -> None:
        shares = np.asarray(weights, dtype=np.float64)
        if not len(shares) or not np.isfinite(shares).all() or (shares <= 0).any():
            raise ValueError(f"`weights` must be above 0, got {list(weights)}")
        self._bounds = _BLOCK * np.append(np.cumsum(shares)[:-1] / shares.sum(), 1.0)
        self._seed = list(seed)
        self._block = -1
        self._before = np.zeros(len(shares), dtype=np.int64)
        self._counts = self._before
        self._sources = np.empty(0, dtype=np.int64)
        self._ranks = self._sources

    def locate(self, draw: int) -> tuple[int, int]:
        """Return the data set of a draw, and how many draws of the stream were from it before."""
        block, position = divmod(draw, _BLOCK)
        if block != self._block:
            self._go_to(block)
        source = int(self._sources[position])
        return source, int(self._before[source] + self._ranks[position])

    def _go_to(self, block: int) -> None:
        if block == self._block + 1:
            self._before = self._before + self._counts
        else:
            self._before = self._counts_of(self._offsets(block)).sum(0)
        self._counts = self._counts_of(self._offsets(block + 1)[-1:])[0]
        in_order = np.repeat(np.arange(len(self._counts)), self._counts)
        ranks = np.arange(_BLOCK) - np.repeat(np.cumsum(self._counts) - self._counts, self._counts)
        # A data set's own draws stay in their order: only their places among the others' are drawn.
        places = np.random.default_rng([*self._seed, 1, block]).permutation(_BLOCK)
        self._sources = in_order[places]
        self._ranks = np.empty(_BLOCK, dtype=np.int64)
        self._ranks[np.argsort(self._sources, kind="stable")] = ranks
        self._block = block

    def _offsets(self, num_blocks: int) -> np.ndarray:
        return np.random.default_rng([*self._seed, 0]).random(num_blocks)

    def _counts_of(self, offsets: np.ndarray) -> np.ndarray:
        """Points `0 + offset, 1 + offset, …` below each bound, a row a block, turned into counts a data set."""
        below = np.ceil(self._bounds - offsets[:, None]).astype(np.int64).clip(0, _BLOCK)
        # The last bound is the block's size, whatever the offset and rounding.
        below[:, -1] = _BLOCK
        return np.diff(below, axis=1, prepend=0)


class Place(NamedTuple):
    """Where a draw of a data set is found: which segment stands in which slot, and which of its pairs is meant."""

    slot: int
    segment: int
    pair: int


class SegmentOrder:
    """Which pair each draw from one data set is: a shuffle that decodes frames where they lie side by side.

    The data set's pairs are cut into segments of neighbours. A stream holds a few segments at a time, one a slot; each
    round takes one pair from every slot, in random order, and a slot whose segment is used up gets the next one, the
    slots one after the other. Segments come in random order, all of them before one comes again; streams share them
    out among each other. In every pass the cuts lie elsewhere.

    Args:
        num_pairs (`int`): Pairs of the data set.
        segment_pairs (`int`): Largest number of pairs a segment.
        num_slots (`int`): Segments held at a time.
        stream (`int`), num_streams (`int`): Of how many streams this is which.
        seed (`Sequence[int]`): What decides, the same for all streams.
    """

    def __init__(
        self, num_pairs: int, segment_pairs: int, num_slots: int, stream: int, num_streams: int, seed: Sequence[int]
    ) -> None:
        self.num_pairs = num_pairs
        self.num_slots = num_slots
        self.num_segments = -(-num_pairs // segment_pairs)
        self.segment_pairs = -(-num_pairs // self.num_segments)
        self._stream, self._num_streams, self._seed = stream, num_streams, list(seed)
        # Of this object, not of the class: a cache on the method would keep every instance alive.
        self._pass = lru_cache(maxsize=2)(self._make_pass)
        self._shuffled = lru_cache(maxsize=2 * num_slots)(self._make_shuffled)
        self._round = lru_cache(maxsize=2)(self._make_round)

    def locate(self, draw: int) -> Place:
        """Return where a draw is found."""
        turn, position = divmod(draw, self.num_slots)
        slot = int(self._round(turn)[position])
        # Spread over a segment's length, so that two slots seldom want the next segment at once.
        elapsed = turn + slot * self.segment_pairs // self.num_slots
        generation, step = divmod(elapsed, self.segment_pairs)
        segment = (generation * self.num_slots + slot) * self._num_streams + self._stream
        return Place(slot, segment, int(self._shuffled(segment)[step]))

    def pairs_of(self, segment: int) -> np.ndarray:
        """Return the pairs of a segment, `segment_pairs` neighbours; after the last comes the first."""
        number, position = divmod(segment, self.num_segments)
        order, offset = self._pass(number)
        start = int(order[position]) * self.num_pairs // self.num_segments + offset
        return (start + np.arange(self.segment_pairs)) % self.num_pairs

    def generator_of(self, segment: int) -> np.random.Generator:
        """Return what decides all else about a segment, such as the intervals of its pairs."""
        return np.random.default_rng([*self._seed, 3, segment])

    def _make_pass(self, number: int) -> tuple[np.ndarray, int]:
        generator = np.random.default_rng([*self._seed, 0, number])
        return generator.permutation(self.num_segments), int(generator.integers(self.num_pairs))

    def _make_shuffled(self, segment: int) -> np.ndarray:
        return np.random.default_rng([*self._seed, 1, segment]).permutation(self.segment_pairs)

    def _make_round(self, turn: int) -> np.ndarray:
        return np.random.default_rng([*self._seed, 2, self._stream, turn]).permutation(self.num_slots)
