# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from cyclemimic.data import Episode, FrameStore

FRAME_BYTES = 4 * 4 * 3


class CountingReader:
    """Reader that notes what was decoded."""

    def __init__(self, frames):
        self.frames, self.decoded = frames, []

    def iter_frames(self, indices):
        for index in indices:
            self.decoded.append(index)
            yield self.frames[index]


def make_episodes(count=3, num_frames=50):
    rng = np.random.default_rng(0)
    readers = [CountingReader(rng.integers(0, 256, (num_frames, 4, 4, 3), dtype=np.uint8)) for _ in range(count)]
    episodes = [Episode("s", "e", index, num_frames, 10.0, "c", reader) for index, reader in enumerate(readers)]
    return episodes, readers


def test_episode_is_decoded_once():
    episodes, readers = make_episodes()
    store = FrameStore(episodes)
    for index in (3, 49, 0, 3):
        np.testing.assert_array_equal(store.frame(1, index), readers[1].frames[index])
    np.testing.assert_array_equal(store.frames(1, [7, 2]), readers[1].frames[[7, 2]])
    assert readers[1].decoded == list(range(50)) and not readers[0].decoded


def test_what_is_returned_may_be_changed():
    episodes, readers = make_episodes()
    store = FrameStore(episodes)
    store.frame(0, 1)[:] = 0
    np.testing.assert_array_equal(store.frame(0, 1), readers[0].frames[1])


def test_transform_sees_blocks_and_its_result_is_kept():
    episodes, readers = make_episodes()
    lengths = []

    def shrink(frames):
        lengths.append(len(frames))
        return frames[:, ::2, ::2]

    store = FrameStore(episodes, shrink)
    np.testing.assert_array_equal(store.frame(0, 40), readers[0].frames[40, ::2, ::2])
    np.testing.assert_array_equal(store.frame(0, 3), readers[0].frames[3, ::2, ::2])
    assert lengths == [32, 18]


@pytest.mark.parametrize("wrong", [lambda x: x.astype(float), lambda x: x[:1], lambda x: x[..., 0]])
def test_transform_of_another_kind_is_refused(wrong):
    with pytest.raises(ValueError, match="`transform` must return uint8"):
        FrameStore(make_episodes()[0], wrong).frame(0, 0)


def test_memory_is_bounded_and_the_least_recently_used_goes_first():
    episodes, readers = make_episodes()
    store = FrameStore(episodes, max_bytes=2 * 50 * FRAME_BYTES)
    for position in (0, 1, 0, 2, 2):
        store.frame(position, 0)
    assert len(readers[2].decoded) == 1 + 50
    store.frame(0, 5)
    assert len(readers[0].decoded) == 50
    store.frame(1, 5)
    assert len(readers[1].decoded) == 51


def test_random_access_beyond_the_bound_decodes_only_what_is_asked_for():
    episodes, readers = make_episodes()
    store = FrameStore(episodes, max_bytes=50 * FRAME_BYTES)
    store.frame(0, 0)
    for position, indices in [(1, [3, 9]), (2, [4, 8]), (1, [1, 2])]:
        np.testing.assert_array_equal(store.frames(position, indices), readers[position].frames[indices])
    assert readers[1].decoded == [3, 9, 1, 2] and readers[2].decoded == [4, 8]
    assert len(readers[0].decoded) == 50


def test_random_access_to_few_long_episodes_decodes_no_more_either():
    """Where the same episode is asked for twice in a row now and then, by chance."""
    episodes, readers = make_episodes(count=2, num_frames=2000)
    store = FrameStore(episodes, max_bytes=2000 * FRAME_BYTES)
    store.frame(0, 0)
    # Far from the last, or before it: no pass in order.
    asked = [5, 1200, 700, 690, 1999, 40]
    for index in asked:
        np.testing.assert_array_equal(store.frame(1, index), readers[1].frames[index])
    assert readers[1].decoded == asked and len(readers[0].decoded) == 2000


def test_pass_in_order_decodes_each_episode_once_and_one_frame():
    episodes, readers = make_episodes()
    store = FrameStore(episodes, max_bytes=50 * FRAME_BYTES)
    for position in range(3):
        for index in range(49):
            store.frames(position, [index, index + 1])
    assert [len(reader.decoded) for reader in readers] == [50, 52, 52]


def test_an_episode_that_alone_takes_too_much_is_never_kept():
    """A film of minutes at full size would fill the memory for one pair."""
    episodes, readers = make_episodes(count=2)
    store = FrameStore(episodes, max_bytes=49 * FRAME_BYTES)
    for indices in ([40, 41], [3], [3]):
        np.testing.assert_array_equal(store.frames(0, indices), readers[0].frames[indices])
    assert readers[0].decoded == [0, 40, 41, 3, 3], "the first frame tells the size"
    for index in (7, 8, 9):
        store.frames(1, [index])
    assert readers[1].decoded == [7, 0, 8, 9], "it may have smaller frames"


def test_workers_receive_the_store_without_frames():
    episodes, readers = make_episodes(1)
    store = FrameStore(episodes, max_bytes=12345)
    store.frame(0, 0)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.max_bytes == 12345 and copy.episodes[0].reader.decoded == list(range(50))
    np.testing.assert_array_equal(copy.frame(0, 7), readers[0].frames[7])
    assert copy.episodes[0].reader.decoded == 2 * list(range(50))
    with pytest.raises(ValueError, match="`max_bytes`"):
        FrameStore(episodes, max_bytes=0)


class Bounds(Dataset):
    """Items are the bound of the process that reads them."""

    def __init__(self, store):
        self.store = store

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.store.max_bytes


@pytest.fixture
def store_of(monkeypatch):
    """Makes a store where so many GiB are free, and so many ranks run."""

    def make(free, ranks=1, **settings):
        monkeypatch.setattr("cyclemimic.data.frame_store.free_memory", lambda: free << 30)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        return FrameStore(make_episodes(1)[0], **settings)

    return make


def test_processes_share_a_quarter_of_the_free_memory(store_of):
    def bounds(store, num_workers):
        return [bound / (1 << 30) for bound in DataLoader(Bounds(store), batch_size=None, num_workers=num_workers)]

    assert bounds(store_of(96), 0) == [24] * 4
    assert bounds(store_of(96), 2) == [12] * 4
    assert bounds(store_of(96, ranks=2), 2) == [6] * 4
    assert bounds(store_of(96, ranks=8), 2) == [2] * 4, "the least there is"
    assert bounds(store_of(96, ranks=2, num_stores=2), 2) == [3] * 4
    assert bounds(store_of(96, max_bytes=5 << 30, num_stores=2), 2) == [2.5] * 4, "what is given is not shared out"
