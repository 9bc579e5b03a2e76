# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import weakref

import numpy as np
import pytest

from cyclemimic.data import (
    DataError,
    Episode,
    InMemorySource,
    LeRobotSource,
    compute_action_statistics,
    compute_state_statistics,
    feature_statistics,
)
from cyclemimic.models.cyclemimic.normalization_cyclemimic import bounds_of, denormalize, normalize

from .conftest import make_frames


def make_source(actions, name="a"):
    return InMemorySource([Episode.from_arrays(make_frames(len(actions)), 10, actions=actions, source=name)])


class RecordingSource:
    """Makes its episodes as they are asked for, and knows how many of those before were alive still."""

    name, embodiment = "memory", "unknown"

    def __init__(self, parts):
        self.parts = parts
        self.alive = []

    def __iter__(self):
        made = []
        for index, actions in enumerate(self.parts):
            self.alive.append(sum(reference() is not None for reference in made))
            episode = Episode.from_arrays(make_frames(len(actions)), 10, actions=actions, index=index)
            made.append(weakref.ref(episode))
            yield episode
            del episode


def test_statistics_are_those_of_all_frames_and_fit_json():
    rng = np.random.default_rng(0)
    parts = [rng.normal(3 * index, 1 + index, (20 + index, 2)).astype(np.float32) for index in range(2)]
    statistics = compute_action_statistics([make_source(parts[0]), make_source(parts[1], "b")])
    actions = np.concatenate(parts).astype(np.float64)
    for name, expected in {
        "q01": np.quantile(actions, 0.01, axis=0),
        "q99": np.quantile(actions, 0.99, axis=0),
        "mean": actions.mean(0),
        "std": actions.std(0),
        "min": actions.min(0),
        "max": actions.max(0),
    }.items():
        np.testing.assert_allclose(statistics[name], expected, rtol=1e-12, atol=1e-14)
    assert statistics["mask"] == [True, True]
    assert json.loads(json.dumps(statistics)) == statistics


def test_episodes_pass_once_and_are_released():
    parts = np.random.default_rng(0).normal(size=(30, 4, 2)).astype(np.float32)
    source = RecordingSource(parts)
    statistics = compute_action_statistics([source])
    # The one just read, until the next is there.
    assert len(source.alive) == 30 and max(source.alive) == 1
    np.testing.assert_allclose(statistics["mean"], parts.reshape(-1, 2).astype(np.float64).mean(0), rtol=1e-12)


def test_quantiles_of_many_frames_are_those_of_a_systematic_sample(monkeypatch):
    monkeypatch.setattr(feature_statistics, "_MAX_ROWS", 100)
    parts = np.random.default_rng(0).normal(size=(30, 11, 2)).astype(np.float32)
    statistics = compute_action_statistics([RecordingSource(parts)])
    rows = parts.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(statistics["q01"], np.quantile(rows[::4], 0.01, axis=0), rtol=1e-12)
    np.testing.assert_allclose(statistics["std"], rows.std(0), rtol=1e-12)
    assert statistics["max"] == rows.max(0).tolist()


def test_binary_dimensions_are_left_alone():
    steps = np.arange(12)
    actions = np.stack([steps, steps % 2 * 2 - 1, steps % 2, steps % 3], axis=1)
    assert compute_action_statistics([make_source(actions)])["mask"] == [True, False, False, True]
    # Three values in all, though no data set has them all.
    parts = [make_source(actions[steps % 3 < 2], "a"), make_source(actions[steps % 3 == 2], "b")]
    assert compute_action_statistics(parts)["mask"] == [True, False, False, True]


def test_values_far_from_the_others_are_brought_there():
    # Joints that rest at 90 degrees and at 0, a gripper of 0 and 100, one of 0 and 4 cm.
    is_open = np.arange(12) % 2
    actions = np.stack([np.full(12, 90.0), np.zeros(12), is_open * 100.0, is_open * np.float32(0.04)], axis=1)
    statistics = compute_action_statistics([make_source(actions)])
    assert statistics["mask"] == [True] * 4
    bounds = bounds_of("action_statistics", {"a": statistics}, None, actions.shape)
    normalized = normalize(actions, bounds)
    np.testing.assert_array_equal(
        normalized, np.stack([np.zeros(12), np.zeros(12), is_open * 2 - 1, is_open * 2 - 1], axis=1)
    )
    np.testing.assert_array_equal(denormalize(normalized, bounds), actions)
    # What is all but exact comes back exact where nothing else was ever seen.
    np.testing.assert_array_equal(denormalize(normalized + 0.05, bounds)[:, :2], actions[:, :2])


@pytest.mark.parametrize("compute", [compute_action_statistics, compute_state_statistics])
def test_a_dimension_that_rests_in_nearly_all_frames_still_moves(compute):
    values = np.zeros((1000, 1))
    values[[3, 500, 800], 0] = [1, -1, 0.5]
    source = InMemorySource([Episode.from_arrays(make_frames(1000), 10, actions=values, states=values, source="a")])
    statistics = compute([source])
    assert (statistics["q01"], statistics["q99"], statistics["mask"]) == ([-1.0], [1.0], [True])
    bounds = bounds_of("action_statistics", {"a": statistics}, None, values.shape)
    np.testing.assert_array_equal(denormalize(normalize(values, bounds), bounds), values)


def test_gripper_of_a_real_arm_is_left_alone(shared_data):
    source = LeRobotSource(shared_data("cr5_banana_lerobot_v30"))
    assert compute_action_statistics([source])["mask"] == [True] * 6 + [False]


def test_actions_that_do_not_fit_are_named():
    with pytest.raises(DataError, match="a has no actions"):
        compute_action_statistics([InMemorySource([Episode.from_arrays(make_frames(2), 10, source="a")])])
    with pytest.raises(DataError, match="b: episode 0 has actions of size 3, the ones before of size 2"):
        compute_action_statistics([make_source(np.zeros((4, 2))), make_source(np.zeros((4, 3)), "b")])
    with pytest.raises(DataError, match="not finite"):
        compute_action_statistics([make_source(np.full((4, 2), np.nan))])
    with pytest.raises(ValueError, match="`sources`"):
        compute_action_statistics([])


def test_states_are_normalised_in_every_dimension():
    steps = np.arange(100)
    states = np.stack([steps, steps % 2, np.full(100, 7)], axis=1)
    source = InMemorySource([Episode.from_arrays(make_frames(100), 10, states=states)])
    statistics = compute_state_statistics([source])
    np.testing.assert_allclose(statistics["q01"], [0.99, 0, 7])
    np.testing.assert_allclose(statistics["q99"], [98.01, 1, 7])
    assert statistics["mask"] == [True] * 3
    with pytest.raises(DataError, match="a has no states; give data sets with states"):
        compute_state_statistics([make_source(np.zeros((4, 2)))])


@pytest.mark.parametrize("noise", [1e-7, 1e-6])
def test_a_dimension_that_trembles_by_rounding_still_moves(noise):
    values = noise * np.random.default_rng(0).normal(size=(1000, 1))
    values[[3, 500, 800], 0] = [1, -1, 0.5]
    statistics = compute_action_statistics([make_source(values)])
    assert (statistics["q01"], statistics["q99"]) == ([-1.0], [1.0])


def test_an_outlier_does_not_decide_where_there_is_motion():
    values = np.random.default_rng(0).normal(size=(1000, 1))
    values[500] = 1000
    assert compute_action_statistics([make_source(values)])["q99"][0] < 3
