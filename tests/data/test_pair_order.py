# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cyclemimic.data.pair_order import SegmentOrder, SourceOrder


def pair_of(order: SegmentOrder, draw: int) -> int:
    place = order.locate(draw)
    return int(order.pairs_of(place.segment)[place.pair])


def test_shares_of_thirty_unequal_sources_are_those_of_the_weights():
    weights = np.geomspace(0.01, 14, 30)
    order, draws = SourceOrder(weights, [0]), 100_000
    counts = np.bincount([order.locate(draw)[0] for draw in range(draws)], minlength=30)
    shares = weights / weights.sum()
    errors = np.sqrt(shares * (1 - shares) / draws)
    assert (np.abs(counts / draws - shares) < 3 * errors).all()


def test_a_source_without_a_whole_draw_a_block_gets_its_expected_share():
    # 0.3 draws a block of 1,024, so 0 or 1: over many seeds the mean is what the weight says.
    weights = [0.3, 1024 - 0.3]
    orders = [SourceOrder(weights, [seed]) for seed in range(120)]
    counts = [sum(order.locate(draw)[0] == 0 for draw in range(1024)) for order in orders]
    assert set(counts) == {0, 1}
    assert np.mean(counts) == pytest.approx(0.3, abs=3 * np.sqrt(0.3 * 0.7 / 120))


def test_draws_of_each_source_are_counted_without_gap():
    order = SourceOrder([1, 2, 5], [3])
    seen: Counter[int] = Counter()
    for draw in range(3000):
        source, count = order.locate(draw)
        assert count == seen[source]
        seen[source] += 1


@pytest.mark.parametrize("draw", [0, 1023, 1024, 5000, 40_000])
def test_a_draw_follows_from_its_number_alone(draw):
    steady, jumping = SourceOrder([1, 2, 5], [3]), SourceOrder([1, 2, 5], [3])
    for earlier in range(draw):
        steady.locate(earlier)
    jumping.locate(60_000)
    assert steady.locate(draw) == jumping.locate(draw)


@pytest.mark.parametrize("weights", [[], [1, 0], [1, -1], [1, float("nan")], [float("inf")]])
def test_weights_must_be_positive(weights):
    with pytest.raises(ValueError, match="`weights` must be above 0"):
        SourceOrder(weights, [0])


def test_a_pass_holds_every_pair_once():
    # 1,000 pairs, 8 segments of 125: no overlap. The stream begins within its first segments, a little into each.
    order = SegmentOrder(1000, 128, 1, 0, 1, [0])
    assert [pair_of(order, draw) for draw in range(1000)] != sorted(range(1000))
    for start in (0, 1000, 7000):
        assert sorted(pair_of(order, draw) for draw in range(start, start + 1000)) == list(range(1000))


def test_streams_share_a_pass_without_overlap():
    streams = [SegmentOrder(1024, 128, 1, stream, 4, [0]) for stream in range(4)]
    drawn = [pair_of(order, draw) for order in streams for draw in range(256)]
    assert sorted(drawn) == list(range(1024))


def test_every_round_takes_one_pair_of_each_slot():
    order = SegmentOrder(10_000, 128, 16, 0, 1, [0])
    for turn in range(300):
        assert sorted(order.locate(16 * turn + i).slot for i in range(16)) == list(range(16))


def test_slots_want_their_next_segment_one_after_the_other():
    order = SegmentOrder(10_000, 128, 16, 0, 1, [0])
    held = {order.locate(draw).slot: order.locate(draw).segment for draw in range(16)}
    for turn in range(1, 400):
        now = {place.slot: place.segment for place in (order.locate(16 * turn + i) for i in range(16))}
        assert sum(held[slot] != now[slot] for slot in held) <= 1
        held = now


def test_every_pair_is_equally_likely():
    # 7 pairs in segments of 4: cuts overlap by one pair, and lie elsewhere in every pass.
    order = SegmentOrder(7, 4, 2, 0, 1, [0])
    counts = np.bincount([pair_of(order, draw) for draw in range(70_000)], minlength=7)
    assert np.abs(counts / 10_000 - 1).max() < 0.03


def test_a_segment_longer_than_the_data_set_is_the_data_set():
    order = SegmentOrder(3, 128, 4, 0, 1, [0])
    assert order.segment_pairs == 3
    assert {pair_of(order, draw) for draw in range(40)} == {0, 1, 2}


def test_pairs_of_a_segment_come_in_random_order():
    order = SegmentOrder(1000, 128, 1, 0, 1, [0])
    steps = np.diff([pair_of(order, draw) for draw in range(1000)])
    assert (np.abs(steps) == 1).mean() < 0.1
