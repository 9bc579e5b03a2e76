# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.evaluation.tokenizer_quality.cycle import draw_other_pairs


@pytest.mark.parametrize(
    ("body", "episode", "allowed"),
    [
        ([0, 0, 1, 1], [0, 1, 2, 3], [{2, 3}, {2, 3}, {0, 1}, {0, 1}]),
        ([0, 0, 0, 0], [0, 0, 1, 1], [{2, 3}, {2, 3}, {0, 1}, {0, 1}]),
        ([0, 0, 0], [0, 0, 0], [{0, 1, 2}] * 3),
    ],
)
def test_actions_come_from_elsewhere(make_sample, body, episode, allowed):
    sample, rows = make_sample(body, episode, []), np.arange(len(body))
    drawn = np.stack([draw_other_pairs(sample, rows, rows, np.random.default_rng(seed)) for seed in range(40)])
    assert [set(column.tolist()) for column in drawn.T] == allowed


def test_only_given_pairs_are_drawn(make_sample):
    sample = make_sample([0, 1, 1, 1], [0, 1, 2, 3], [])
    drawn = [draw_other_pairs(sample, np.array([0]), np.array([0, 2]), np.random.default_rng(s))[0] for s in range(9)]
    assert set(drawn) == {2}


def test_of_a_single_held_out_episode_the_actions_are_of_the_others(make_sample):
    sample, rows = make_sample([0] * 4, [0, 0, 1, 1], held_out=[1]), np.array([2, 3])
    drawn = np.concatenate([draw_other_pairs(sample, rows, rows, np.random.default_rng(seed)) for seed in range(20)])
    assert set(drawn) == {0, 1}


def test_chance_is_that_of_the_commonest(one_body, faithful):
    for measurement in (one_body, faithful):
        cycle = measurement.metrics["cycle"]
        assert 0.2 < cycle["token_chance"] < 0.4
        assert 0.04 < cycle["action_chance"] < 0.2
        assert cycle["action_accuracy"]["value"] == 1.0
