# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.evaluation.shared_actions import motion_magnitude, select_groups


def test_motion_magnitude_of_black_to_white_is_one():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert motion_magnitude(black, white) == motion_magnitude(white, black) == 1
    assert motion_magnitude(black, black) == 0


def test_most_shared_action_comes_first_and_one_task_actions_never():
    codes = np.array([[1, 1]] * 20 + [[2, 2]] * 8 + [[3, 3]] * 6)
    # (1, 1) is the most used but belongs to one task; (3, 3) is evenly shared; (2, 2) is used once in the second.
    tasks = np.array(["a"] * 20 + ["a"] * 7 + ["b"] + ["a", "b"] * 3)
    chosen = select_groups(codes, tasks, np.ones(len(codes)), num_groups=5)
    assert [shared.codes for shared in chosen] == [(3, 3), (2, 2)]
    assert [(shared.num_pairs, shared.is_partial) for shared in chosen] == [(6, False), (8, False)]
    for shared in chosen:
        assert len(set(tasks[list(shared.indices)])) == 2
        assert {tuple(codes[i].tolist()) for i in shared.indices} == {shared.codes}


def test_visible_motion_is_preferred():
    codes = np.array([[0]] * 40 + [[1]] * 10)
    tasks = np.array([0, 1] * 25)
    motion = np.array([0.0] * 35 + [1.0] * 15)
    chosen = select_groups(codes, tasks, motion, num_groups=1, per_group=4)
    # Code 0 is four times as frequent, but mostly where nothing moves.
    assert chosen[0].codes == (1,)
    second = select_groups(codes, tasks, motion, num_groups=2, per_group=4)[1]
    assert all(motion[i] == 1.0 for i in second.indices)
    # All that carry it are counted, not those alone that were looked at.
    assert (second.codes, second.num_pairs) == ((0,), 40)


def test_members_alternate_between_tasks_and_episodes_and_never_overlap():
    count = 60
    episodes = np.repeat(np.arange(6), 10)
    starts = np.tile(np.arange(10) * 2, 6)
    spans = np.stack([starts, starts + 5], axis=1)
    shared = select_groups(
        np.zeros((count, 2), int), episodes % 3, np.ones(count), 1, 12, episode_ids=episodes, spans=spans
    )[0]
    chosen = list(shared.indices)
    assert sorted(episodes[chosen[:6]]) == [0, 1, 2, 3, 4, 5]
    assert sorted((episodes % 3)[chosen[:3]]) == [0, 1, 2]
    for position, first in enumerate(chosen):
        for second in chosen[position + 1 :]:
            apart = spans[first, 1] < spans[second, 0] or spans[second, 1] < spans[first, 0]
            assert episodes[first] != episodes[second] or apart


def test_another_task_is_before_another_episode():
    # Of the second task there is a single episode, of the first there are more than are asked for.
    tasks, episodes = np.array([0] * 6 + [1] * 3), np.array([*range(6), 6, 6, 6])
    spans = np.stack([np.arange(9) * 10, np.arange(9) * 10 + 5], axis=1)
    (shared,) = select_groups(np.zeros((9, 1), int), tasks, np.ones(9), 1, 6, episode_ids=episodes, spans=spans)
    assert sorted(tasks[list(shared.indices)]) == [0, 0, 0, 1, 1, 1]


def test_pairs_that_meet_in_a_frame_are_not_shown_together():
    tasks = episodes = np.array([0, 0, 1])
    spans = np.array([[0, 5], [5, 10], [0, 5]])
    (shared,) = select_groups(np.zeros((3, 1), int), tasks, np.ones(3), 1, 3, episode_ids=episodes, spans=spans)
    assert sorted(tasks[list(shared.indices)]) == [0, 1]


def test_without_spans_an_episode_appears_once():
    episodes = np.array([0, 0, 0, 1, 1, 1])
    chosen = select_groups(np.zeros((6, 1), int), episodes, np.ones(6), 1, 6, episode_ids=episodes)
    assert sorted(episodes[list(chosen[0].indices)]) == [0, 1]


def test_partial_sharing_is_a_fallback_and_says_so():
    codes = np.array([[5, 0], [5, 1], [5, 2], [5, 3]])
    tasks = np.array([0, 1, 0, 1])
    (shared,) = select_groups(codes, tasks, np.ones(4))
    assert shared.codes == (5,) and shared.is_partial and shared.num_pairs == 4


def test_selection_is_reproducible_and_depends_on_the_seed():
    rng = np.random.default_rng(0)
    codes, tasks, motion = rng.integers(0, 3, (400, 2)), rng.integers(0, 3, 400), rng.random(400)
    first, again = (select_groups(codes, tasks, motion, seed=1) for _ in range(2))
    assert first == again
    assert first != select_groups(codes, tasks, motion, seed=2)


def test_no_pairs_give_no_groups():
    assert select_groups(np.zeros((0, 4), int), np.zeros(0), np.zeros(0)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.zeros(4, int)}, "codes must be of shape"),
        ({"group_ids": np.zeros(3)}, "group_ids must be of shape"),
        ({"motion": np.zeros(5)}, "motion must be of shape"),
        ({"spans": np.zeros((4, 3))}, "spans must be of shape"),
        ({"per_group": 1}, "per_group 2 or more"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {"codes": np.zeros((4, 2), int), "group_ids": np.zeros(4), "motion": np.zeros(4)} | changes
    with pytest.raises(ValueError, match=message):
        select_groups(**arguments)
