# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import pytest

from cyclemimic.data import DataError, Episode, InMemorySource
from cyclemimic.data.episode import list_episodes, stack_frames

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


def test_frames_come_in_the_order_asked_for():
    episode = Episode.from_arrays(FRAMES, fps=10)
    np.testing.assert_array_equal(episode.read_frames(), FRAMES)
    np.testing.assert_array_equal(episode.read_frames([4, 1, 4]), FRAMES[[4, 1, 4]])
    np.testing.assert_array_equal(list(episode.iter_frames([0, 3])), FRAMES[[0, 3]])


@pytest.mark.parametrize("indices", [[6], [-1], []])
def test_indices_that_do_not_exist_are_refused(indices):
    with pytest.raises(ValueError, match="`indices`"):
        Episode.from_arrays(FRAMES, fps=10).read_frames(indices)


def test_iterating_needs_ascending_indices():
    with pytest.raises(ValueError, match="ascend"):
        Episode.from_arrays(FRAMES, fps=10).iter_frames([2, 2])


def test_rows_must_match_frames():
    episode = Episode.from_arrays(FRAMES, fps=10, actions=np.zeros((5, 2)))
    with pytest.raises(DataError, match="6 frames but 5 rows of actions"):
        _ = episode.actions


@pytest.mark.parametrize("num_read", [0, 2, 4])
def test_a_reader_that_ends_early_or_late_is_refused(num_read):
    with pytest.raises(DataError, match=f"frames must be 3, as many as were asked for, got {num_read}"):
        stack_frames(iter(FRAMES[:num_read]), 3)


def test_data_error_is_one_line():
    assert str(DataError("first\nsecond")) == "first second"


def test_episode_survives_pickling_and_knows_its_values():
    episode = Episode.from_arrays(FRAMES, 10, "lift", np.ones((6, 2)), np.zeros((6, 1)), attributes={"success": True})
    copy = pickle.loads(pickle.dumps(episode))
    assert (copy.instruction, copy.num_frames, copy.attributes) == ("lift", 6, {"success": True})
    assert copy.actions.dtype == copy.states.dtype == np.float32
    assert copy.actions.shape == (6, 2) and copy.states.shape == (6, 1)


def test_in_memory_source_is_of_one_kind():
    episodes = [Episode.from_arrays(FRAMES, fps=fps, index=index) for index, fps in enumerate((10, 20))]
    source = InMemorySource(episodes[:1])
    assert (len(source), source.fps, source[0].index) == (1, 10.0, 0)
    with pytest.raises(ValueError, match="fps"):
        InMemorySource(episodes)
    with pytest.raises(ValueError, match="at least one"):
        InMemorySource([])


def test_two_episodes_of_one_name_are_refused():
    source = InMemorySource([Episode.from_arrays(FRAMES, fps=10, source="twice")])
    with pytest.raises(DataError, match="'twice', episode 0"):
        list_episodes([source, source])


class GrowingReader:
    def iter_frames(self, indices):
        return (np.zeros((8, 8 + index // 2, 3), np.uint8) for index in indices)


def test_frames_of_different_sizes_are_refused():
    episode = Episode("set", "arm", 4, 6, 10.0, "top", GrowingReader())
    assert episode.read_frames([0, 1]).shape == (2, 8, 8, 3)
    for read in (episode.read_frames, lambda chosen: list(episode.iter_frames(chosen))):
        with pytest.raises(DataError, match="set: frame 5 of episode 4 is 10 x 8 pixels, frames before it 9 x 8"):
            read([3, 5])
