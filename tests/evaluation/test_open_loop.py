# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import DemonstrationDataset, Episode, InMemorySource
from cyclemimic.evaluation.open_loop import action_errors, errors_by_statistics


class ConstantPolicy:
    """Always the same action, three steps ahead; counts its calls."""

    def __init__(self, action: list[float]) -> None:
        self.action, self.batch_sizes = action, []

    def predict(self, images, instructions, robot_states=None):
        assert len(images) == len(instructions) and set(instructions) == {"push"}
        self.batch_sizes.append(len(images))
        return np.tile(np.float32(self.action), (len(images), 3, 1))


@pytest.fixture
def frames() -> DemonstrationDataset:
    """Five frames; action t is (t, 10 t, 7)."""
    actions = np.arange(5.0)[:, None] * [1.0, 10.0, 0.0] + [0.0, 0.0, 7.0]
    episode = Episode.from_arrays(np.zeros((5, 8, 8, 3), np.uint8), 10.0, "push", actions)
    return DemonstrationDataset([InMemorySource([episode])], chunk_size=3)


def test_errors_by_hand(frames):
    # Frames 0 to 4 hold the actions 012, 123, 234, 34, 4: 12 of them, of sum 3 + 6 + 9 + 7 + 4 = 29.
    policy = ConstantPolicy([0.0, 0.0, 99.0])
    errors = action_errors(policy, frames, mean_action=[4.0, 40.0, 0.0], scale=[1.0, 10.0, 0.0])
    # The two scaled dimensions agree; the third has no range and does not count.
    assert errors["policy"] == pytest.approx(29 / 12)
    assert errors["mean_action"] == pytest.approx((12 * 4 - 29) / 12)
    # Before frames 1 to 4 stood the actions 0 to 3: off by 1, 2, 3 for each, as far as the episode goes; before frame 0, 4.
    assert errors["last_action"] == pytest.approx(((4 + 3 + 2) + 2 * (1 + 2 + 3) + (1 + 2) + 1) / 12)
    assert errors["per_dimension"]["policy"] == pytest.approx([29 / 12, 29 / 12])


def test_each_dimension_counts_by_its_scale(frames):
    policy = ConstantPolicy([0.0, 0.0, 7.0])
    errors = action_errors(policy, frames, mean_action=[0.0, 0.0, 8.0], scale=[2.0, 5.0, 0.5])
    assert errors["policy"] == pytest.approx((29 / 12) * (1 / 2 + 10 / 5 + 0) / 3)
    assert errors["mean_action"] == pytest.approx(((29 / 12) * (1 / 2 + 10 / 5) + 1 / 0.5) / 3)


def test_statistics_without_a_mean(frames):
    """A policy needs none; it is then that of the frames: (2, 20, 7)."""
    statistics = {"q01": [0.0, 0.0, 7.0], "q99": [2.0, 20.0, 7.0]}
    with_mean = statistics | {"mean": [2.0, 20.0, 7.0]}
    policy = ConstantPolicy([0.0, 0.0, 7.0])
    assert errors_by_statistics(policy, frames, statistics) == errors_by_statistics(policy, frames, with_mean)


def test_batches_do_not_change_the_errors(frames):
    results = []
    for batch_size, expected in ((2, [2, 2, 1]), (5, [5]), (32, [5])):
        policy = ConstantPolicy([1.0, 2.0, 3.0])
        results.append(action_errors(policy, frames, [0.0] * 3, [1.0] * 3, batch_size))
        assert policy.batch_sizes == expected
    assert results[1] == results[2]
    for name in ("policy", "mean_action", "last_action"):
        assert results[0][name] == pytest.approx(results[1][name])


def test_no_dimension_to_compare(frames):
    with pytest.raises(ValueError, match=r"`scale` must be above 0 in at least one dimension, got \[0.0, 0.0, 0.0\]"):
        action_errors(ConstantPolicy([0.0] * 3), frames, [0.0] * 3, [0.0] * 3)


def test_the_policy_gets_the_states_that_items_hold():
    class StatePolicy(ConstantPolicy):
        def predict(self, images, instructions, robot_states):
            return np.stack([np.tile(np.float32(state), (3, 1)) for state in robot_states])

    values = np.arange(5.0)[:, None]
    episode = Episode.from_arrays(np.zeros((5, 8, 8, 3), np.uint8), 10.0, "push", values, values)
    frames = DemonstrationDataset([InMemorySource([episode])], chunk_size=3, use_robot_state=True)
    # As if nothing moved: off by 1 for the second action of a chunk, by 2 for the third.
    errors = action_errors(StatePolicy([]), frames, [0.0], [1.0], batch_size=2)
    assert errors["policy"] == pytest.approx((4 * 1 + 3 * 2) / 12)
