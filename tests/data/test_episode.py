# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from cyclemimic.data import DataError, Episode, InMemorySource
from cyclemimic.data.episode import stack_frames

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


@pytest.mark.parametrize(
    ("indices", "got"),
    [([0.5], "0.5"), ([True, False], "bool"), (np.ones(6, bool), "bool"), ([float("nan")], "nan"), (["1"], "str32")],
)
def test_indices_are_whole_numbers(indices, got):
    episode = Episode.from_arrays(FRAMES, fps=10)
    for read in (episode.read_frames, episode.iter_frames):
        with pytest.raises(ValueError, match=rf"`indices` must be whole numbers, got others \({got}\)"):
            read(indices)


def test_indices_may_be_of_any_kind_of_number():
    episode = Episode.from_arrays(FRAMES, fps=10)
    for indices in (np.array([1, 4], np.uint8), torch.tensor([1, 4]), np.array([1, 4], object), [1.0, 4.0], (1, 4)):
        np.testing.assert_array_equal(episode.read_frames(indices), FRAMES[[1, 4]])
        np.testing.assert_array_equal(list(episode.iter_frames(indices)), FRAMES[[1, 4]])


@pytest.mark.parametrize("num_frames", [0, -5, True, 2.5, float("nan"), "5", None])
def test_an_episode_has_a_whole_number_of_frames(num_frames):
    with pytest.raises(DataError, match="set: episode 3: `num_frames` must be a whole number of at least 1, got"):
        Episode("set", "arm", 3, num_frames, 10.0, "top", None)


@pytest.mark.parametrize("fps", [0, -10.0, float("nan"), float("inf"), "10", None])
def test_an_episode_has_a_frame_rate(fps):
    with pytest.raises(DataError, match="set: episode 3: `fps` must be positive and finite, got"):
        Episode("set", "arm", 3, 5, fps, "top", None)


class CarelessReader:
    """Yields as many frames as it likes."""

    def __init__(self, num_frames):
        self.num_frames = num_frames

    def iter_frames(self, indices):
        return iter(np.zeros((self.num_frames, 4, 4, 3), np.uint8))


@pytest.mark.parametrize(("num_frames", "got"), [(0, "0"), (1, "1"), (6, "more")])
def test_a_reader_of_another_number_of_frames_is_named(num_frames, got):
    episode = Episode("set", "arm", 4, 6, 10.0, "top", CarelessReader(num_frames))
    for read in (episode.read_frames, lambda chosen: list(episode.iter_frames(chosen))):
        with pytest.raises(DataError, match=f"set: of episode 4 the reader must yield 2 frames, .*, got {got}"):
            read([3, 5])


def test_iterating_needs_ascending_indices():
    with pytest.raises(ValueError, match="ascend"):
        Episode.from_arrays(FRAMES, fps=10).iter_frames([2, 2])


class ReaderOfFiveActions:
    def read_actions(self):
        return np.zeros((5, 2), np.float32)


def test_rows_must_match_frames():
    episode = Episode("set", "arm", 0, 6, 10.0, "top", ReaderOfFiveActions())
    with pytest.raises(DataError, match="6 frames but 5 rows of actions"):
        _ = episode.actions


def test_actions_and_states_are_not_written_to():
    given = np.zeros((6, 2), np.float32)
    episode = Episode.from_arrays(FRAMES, fps=10, actions=given, states=given)
    for column in (episode.actions, episode.states):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 9
    assert given.flags.writeable


@pytest.mark.parametrize("fps", [0, -10, float("nan"), float("inf"), "10"])
def test_a_frame_rate_is_above_0(fps):
    with pytest.raises(ValueError, match=f"`fps` must be positive and finite, got {fps!r}"):
        Episode.from_arrays(FRAMES, fps=fps)


@pytest.mark.parametrize("name", ["actions", "states"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(6), r"must have shape \(6, {one}_dim\), a row a frame, got \(6,\)"),
        (np.zeros((5, 2)), r"must have shape \(6, {one}_dim\), a row a frame, got \(5, 2\)"),
        (torch.zeros(6, 2, 1), r"must have shape \(6, {one}_dim\), a row a frame, got \(6, 2, 1\)"),
        ([[0.0, 1.0]] * 5 + [[0.0]], "must be numbers in rows of one shape"),
    ],
)
def test_vectors_are_checked_at_once(name, values, message):
    with pytest.raises(ValueError, match=f"`{name}` {message.format(one=name[:-1])}"):
        Episode.from_arrays(FRAMES, fps=10, **{name: values})


@pytest.mark.parametrize("make", [list, torch.from_numpy, lambda frames: list(map(torch.from_numpy, frames))])
def test_lists_and_tensors_are_arrays(make):
    vectors = np.arange(12.0).reshape(6, 2)
    episode = Episode.from_arrays(make(FRAMES), 10, actions=make(vectors), states=make(vectors))
    np.testing.assert_array_equal(episode.read_frames([4, 1]), FRAMES[[4, 1]])
    for column in (episode.actions, episode.states):
        assert column.dtype == np.float32
        np.testing.assert_array_equal(column, vectors)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([FRAMES[0], FRAMES[1, :2]], "must be numbers in rows of one shape"),
        (torch.zeros(6, 4, 4, 3), r"must be uint8 of shape .*, got float32 \(6, 4, 4, 3\)"),
        ([], r"must be uint8 of shape .*, got float64 \(0,\)"),
    ],
)
def test_other_frames_are_refused(frames, message):
    with pytest.raises(ValueError, match=f"`frames` {message}"):
        Episode.from_arrays(frames, fps=10)


class LazyFrames:
    """As `h5py` and `zarr` have them: an array that is read when it is indexed, and not otherwise."""

    dtype, ndim, shape = FRAMES.dtype, 4, FRAMES.shape

    def __len__(self):
        return len(FRAMES)

    def __getitem__(self, index):
        assert index == 3
        return FRAMES[index]


def test_frames_that_are_read_when_indexed_stay_so(tmp_path):
    np.testing.assert_array_equal(Episode.from_arrays(LazyFrames(), 10).read_frames([3]), FRAMES[[3]])
    np.save(tmp_path / "frames.npy", FRAMES)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    assert Episode.from_arrays(mapped, 10).reader.frames is mapped


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


class GrowingReader:
    def iter_frames(self, indices):
        return (np.zeros((8, 8 + index // 2, 3), np.uint8) for index in indices)


def test_frames_of_different_sizes_are_refused():
    episode = Episode("set", "arm", 4, 6, 10.0, "top", GrowingReader())
    assert episode.read_frames([0, 1]).shape == (2, 8, 8, 3)
    for read in (episode.read_frames, lambda chosen: list(episode.iter_frames(chosen))):
        with pytest.raises(DataError, match="set: frame 5 of episode 4 is 10 x 8 pixels, frames before it 9 x 8"):
            read([3, 5])
