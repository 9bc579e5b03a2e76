# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from torch.utils.data import DataLoader

from cyclemimic.data import DataError, Episode, FramePairDataset, InMemorySource, MixtureDataset, WeightedSource

from .conftest import make_frames


class CountingSource(InMemorySource):
    """Says which frames were decoded, and how often it was asked."""

    def __init__(self, episodes):
        super().__init__(episodes)
        self.requests = []

    def __iter__(self):
        return (self._watched(episode) for episode in super().__iter__())

    def _watched(self, episode):
        source, reader = self, episode.reader

        class Watching:
            def iter_frames(self, indices):
                source.requests.append(len(indices))
                return reader.iter_frames(indices)

            def __getattr__(self, name):
                return getattr(reader, name)

        return Episode(*[getattr(episode, name) for name in _FIELDS], Watching())


_FIELDS = ("source", "embodiment", "index", "num_frames", "fps", "camera")


def make_source(name, lengths, fps=10.0, embodiment="arm", kind=InMemorySource):
    episodes = [
        Episode.from_arrays(make_frames(n, size=8), fps, f"do {name}", source=name, embodiment=embodiment, index=index)
        for index, n in enumerate(lengths)
    ]
    return kind(episodes)


def make_mixture(**kwargs):
    sources = [
        WeightedSource(make_source("a", [30, 20, 8], embodiment="left"), 1.0, 0.5, 0.2),
        WeightedSource(make_source("b", [40], embodiment="right"), 3.0, (0.3, 1.0), 0.2),
    ]
    return MixtureDataset(sources, **kwargs)


def key(item):
    return item["source"], item["episode_index"], item["frame_index"], item["future_index"]


def keys(dataset, indices=None):
    return [key(dataset[index]) for index in (range(len(dataset)) if indices is None else indices)]


def test_items_are_those_of_a_pair_dataset():
    source = make_source("a", [30, 20, 8])
    mixture = MixtureDataset([WeightedSource(source, 1.0, 0.5, 0.2)])
    pairs = FramePairDataset([source], 0.5, 0.2)
    expected = {key(pairs[index]): pairs[index] for index in range(len(pairs))}
    assert len(mixture) == len(pairs)
    for index in range(3 * len(mixture)):
        mixture.set_epoch(index // len(mixture))
        item = mixture[index % len(mixture)]
        twin = expected[key(item)]
        assert item.keys() == twin.keys()
        np.testing.assert_array_equal(item["current"], twin["current"])
        np.testing.assert_array_equal(item["future"], twin["future"])
        assert item["embodiment_id"] == 0 and item["instruction"] == "do a"


def test_what_is_no_list_of_weighted_sources_is_refused():
    source = make_source("a", [30])
    weighted = WeightedSource(source, 1.0, 0.5, 0.2)
    for sources, got in [
        (weighted, "WeightedSource"),
        ([source], "InMemorySource"),
        (source, "InMemorySource"),
        ("a", "str"),
    ]:
        with pytest.raises(ValueError, match=f"`sources` must be a list of `WeightedSource`s, got {got}"):
            MixtureDataset(sources)
    with pytest.raises(
        ValueError, match="`sources` must be a list of data sets, as `open_source` opens them, got Episode"
    ):
        MixtureDataset([WeightedSource(source[0], 1.0, 0.5, 0.2)])


def test_shares_and_embodiments_follow_the_weights():
    mixture = make_mixture()
    drawn = []
    for epoch in range(40):
        mixture.set_epoch(epoch)
        drawn += [(mixture[index]["source"], mixture[index]["embodiment_id"]) for index in range(len(mixture))]
    counts = Counter(drawn)
    assert set(counts) == {("a", 0), ("b", 1)}
    assert counts["b", 1] / len(drawn) == pytest.approx(0.75, abs=0.01)


def test_an_interval_range_is_used_and_never_left():
    mixture = make_mixture()
    gaps = []
    for epoch in range(30):
        mixture.set_epoch(epoch)
        for source, _, frame, future in keys(mixture):
            assert 0 <= frame < future
            if source == "a":
                # Half a second is 5 frames; near the end fewer, at least 2.
                assert future - frame == 5 or (2 <= future - frame < 5)
            elif frame < 30:
                gaps.append(future - frame)
    assert set(gaps) == set(range(3, 11))


@pytest.mark.parametrize(
    ("times", "common"),
    [
        ([(0.3, 0.2), (0.3, 0.2)], (0.3, 0.2)),
        ([((0.3, 0.3), 0.2), (0.3, 0.2)], (0.3, 0.2)),
        ([(0.3, 0.2), (0.4, 0.2)], (None, None)),
        ([((0.3, 0.4), 0.2)], (None, None)),
    ],
)
def test_times_that_all_data_sets_have_are_the_mixtures(times, common):
    sources = [WeightedSource(make_source(f"source{i}", [12]), 1.0, *each) for i, each in enumerate(times)]
    pairs = MixtureDataset(sources)
    assert (pairs.interval_s, pairs.min_interval_s) == common


def test_epochs_go_on_with_new_draws():
    mixture = make_mixture()
    first = keys(mixture)
    mixture.set_epoch(1)
    assert keys(mixture) != first
    mixture.set_epoch(0)
    assert keys(mixture) == first


def test_workers_that_outlive_an_epoch_learn_of_the_next():
    pairs = make_mixture(batch_size=4, num_streams=2)
    loader = DataLoader(pairs, batch_size=4, num_workers=2, persistent_workers=True, collate_fn=list)
    for epoch in range(3):
        pairs.set_epoch(epoch)
        assert [key(item) for batch in loader for item in batch] == keys(pairs)


def test_items_follow_from_their_index_alone():
    there, back = make_mixture(batch_size=4, num_streams=3), make_mixture(batch_size=4, num_streams=3)
    indices = list(range(len(there)))
    assert keys(there, indices) == keys(back, indices[::-1])[::-1]


def test_another_seed_is_another_order():
    assert keys(make_mixture(seed=0)) != keys(make_mixture(seed=1))


def test_workers_read_what_one_process_reads():
    mixture = make_mixture(batch_size=4, num_streams=2)
    alone = [keys(mixture, range(start, start + 4)) for start in range(0, len(mixture), 4)]
    loader = DataLoader(mixture, batch_size=4, num_workers=2, collate_fn=lambda items: [key(item) for item in items])
    assert list(loader) == alone


def test_a_small_data_set_is_not_held_several_times():
    source = make_source("a", [400], kind=CountingSource)
    mixture = MixtureDataset([WeightedSource(source, 1.0, 0.5, 0.5)])
    source.requests.clear()
    mixture[0], mixture[1]
    for index in range(len(mixture)):
        mixture[index]
    # Its two segments, and those of the next round: not one for each of 64 slots.
    assert sum(source.requests) < 5 * 210


def test_frames_of_neighbouring_pairs_are_decoded_once():
    source = make_source("a", [400], kind=CountingSource)
    mixture = MixtureDataset([WeightedSource(source, 1.0, 0.5, 0.5)], max_bytes=1 << 18)
    source.requests.clear()
    for epoch in range(4):
        mixture.set_epoch(epoch)
        for index in range(len(mixture)):
            mixture[index]
    pairs, decoded = 4 * len(mixture), sum(source.requests)
    # 395 pairs in segments of 198, which need 198 + 5 frames, a few more where they go over the end.
    assert decoded < 1.1 * pairs + 4 * 210


def held_bytes(segment):
    return sum(frame.nbytes for frame in segment.frames)


def test_items_share_the_decoded_frames_and_cannot_change_them():
    mixture = MixtureDataset([WeightedSource(make_source("a", [40]), 1.0, 0.5, 0.5)], max_bytes=1 << 14)
    items = [mixture[index] for index in range(len(mixture))]
    futures = {id(item["future"]) for item in items}
    assert any(id(item["current"]) in futures for item in items)
    with pytest.raises(ValueError, match="read-only"):
        items[0]["current"][:] = 0


def test_memory_stays_within_the_bound():
    frame_bytes, sources = 8 * 8 * 3, [make_source(name, [600]) for name in "abc"]
    bound = 5 * 300 * frame_bytes
    mixture = MixtureDataset([WeightedSource(source, 1.0, 1.0, 0.5) for source in sources], max_bytes=bound)
    most = 0
    for index in range(len(mixture)):
        mixture[index]
        streams = mixture._streams.values()
        most = max(most, sum(held_bytes(segment) for stream in streams for _, segment in stream._decoded.values()))
    assert 0 < most <= bound


def test_a_segment_takes_no_more_than_expected():
    random = np.random.default_rng(0)
    for lengths, interval in (([600], 1.0), (random.integers(4, 60, 40), 1.0), ([5] * 200, 0.3), ([900, 3, 3], 5.0)):
        mixture = MixtureDataset([WeightedSource(make_source("a", lengths), 1.0, (0.2, interval), 0.2)])
        (pairs,) = mixture._pairs
        for _ in range(50):
            start = random.integers(pairs.num_pairs)
            chosen = (start + np.arange(min(256, pairs.num_pairs))) % pairs.num_pairs
            assert held_bytes(pairs.decode(chosen, random)) <= pairs.segment_bytes(256)


def test_large_frames_are_decoded_in_shorter_segments():
    """Of three data sets, segments of 256 pairs and 10 frames more would take five times as much."""
    bound = 3 * 50 * 8 * 8 * 3
    sources = [WeightedSource(make_source(name, [600]), 1.0, 1.0, 0.5) for name in "abc"]
    small, large = MixtureDataset(sources, max_bytes=bound), MixtureDataset(sources)
    for mixture in (small, large):
        for epoch in range(2):
            mixture.set_epoch(epoch)
            drawn = [mixture[index] for index in range(len(mixture))]
            seen = {(item["source"], item["frame_index"]) for item in drawn}
            assert len(drawn) == 3 * 595 and {source for source, _ in seen} == {"a", "b", "c"}
    held = [segment for stream in small._streams.values() for _, segment in stream._decoded.values()]
    assert 0 < sum(map(held_bytes, held)) <= bound


def test_too_little_memory_is_an_error_before_training():
    with pytest.raises(ValueError, match="`max_bytes` must be at least .* got 100"):
        make_mixture(max_bytes=100)


def test_a_source_without_pairs_is_an_error():
    with pytest.raises(DataError, match="short: no episode has two frames 2 s apart"):
        MixtureDataset([WeightedSource(make_source("short", [4]), 1.0, 3.0, 2.0)])


def test_a_source_that_does_not_decode_is_an_error_before_training(v30):
    from cyclemimic.data import LeRobotSource

    source = LeRobotSource(v30)
    for video in v30.rglob("*.mp4"):
        video.write_bytes(video.read_bytes()[:200])
    with pytest.raises(DataError, match="does not decode"):
        MixtureDataset([WeightedSource(source, 1.0, 0.5, 0.2)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, 0.5), "`weight` of a must be above 0, got 0.0"),
        ((1.0, 0.2, 0.5), "`min_interval_s` must be above 0 and at most"),
        ((1.0, (1.0, 0.8), 0.5), "`interval_s` of a must ascend, got 1.0 to 0.8"),
        ((1.0, 1.0, 0.0), "`min_interval_s` must be above 0"),
    ],
)
def test_weights_and_times_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        WeightedSource(make_source("a", [30]), *arguments)


@pytest.mark.parametrize("name", ["batch_size", "num_streams"])
def test_numbers_are_checked(name):
    with pytest.raises(ValueError, match="must be at least 1"):
        make_mixture(**{name: 0})


def test_every_pair_of_a_segment_has_an_interval_of_its_own():
    mixture = MixtureDataset([WeightedSource(make_source("b", [40]), 1.0, (0.3, 1.0), 0.2)])
    gaps = {future - frame for _, _, frame, future in keys(mixture, range(20)) if frame < 30}
    assert len(gaps) > 3


def test_data_sets_of_one_size_have_orders_of_their_own():
    mixture = MixtureDataset([WeightedSource(make_source(name, [40]), 1.0, 0.5, 0.2) for name in "ab"])
    drawn = keys(mixture)
    first, second = ([frame for source, _, frame, _ in drawn if source == name] for name in "ab")
    assert first[:20] != second[:20]
