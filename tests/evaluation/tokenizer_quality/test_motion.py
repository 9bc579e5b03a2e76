# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import DataError, Episode, InMemorySource
from cyclemimic.evaluation.tokenizer_quality.motion import TrueMotion, choose_motion, sources_with_motion


def make_episode(states: np.ndarray | None = None, actions: np.ndarray | None = None, body: str = "arm") -> Episode:
    frames = np.zeros((5, 8, 8, 3), np.uint8)
    return Episode.from_arrays(frames, 10.0, states=states, actions=actions, source=body, embodiment=body)


def source(states_width: int = 0, actions_width: int = 0, body: str = "arm") -> InMemorySource:
    columns = [np.ones((5, width)) if width else None for width in (states_width, actions_width)]
    return InMemorySource([make_episode(*columns, body)])


def test_states_differ_and_actions_add_up():
    numbers = np.array([[0.0, 1], [1, 1], [3, 1], [6, 1], [10, 1]])
    current, future = np.array([0, 2]), np.array([2, 4])
    episode = make_episode(numbers, numbers)
    np.testing.assert_array_equal(TrueMotion("state", (0, 1)).of_pairs(episode, current, future), [[3, 0], [7, 0]])
    # From the current frame to the one before the future frame.
    np.testing.assert_array_equal(TrueMotion("action", (1, 0)).of_pairs(episode, current, future), [[2, 1], [2, 9]])


def test_places_are_those_of_states():
    numbers = np.array([[0.0, 1], [1, 1], [3, 1], [6, 1], [10, 1]])
    episode = make_episode(numbers, numbers)
    np.testing.assert_array_equal(TrueMotion("state", (0,)).places(episode, np.array([0, 3])), [[0], [6]])
    assert TrueMotion("action", (0,)).places(episode, np.array([0, 3])) is None


def test_an_episode_of_fewer_dimensions_is_refused():
    episode = make_episode(np.ones((5, 2)), np.ones((5, 2)))
    with pytest.raises(DataError, match="arm: episode 0 has 2 states a frame, 3 are needed"):
        TrueMotion("state", (0, 2)).of_pairs(episode, np.array([0]), np.array([1]))


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ([(4, 7), (4, 7)], TrueMotion("state", (0, 1, 2))),
        ([(4, 7), (0, 7)], TrueMotion("action", (0, 1, 2))),
        ([(2, 0), (5, 0)], TrueMotion("state", (0, 1))),
    ],
)
def test_defaults(widths, expected, caplog):
    assert choose_motion([source(*width, body=str(index)) for index, width in enumerate(widths)]) == expected
    told = ["1: has no states; the true motion is the sum of the actions, which must be changes, not positions"]
    assert caplog.messages == (told if expected.kind == "action" else [])


def test_what_has_no_motion_is_left_out_where_others_have(caplog):
    arm, films, hand = source(4), source(body="films"), source(0, 7, "hand")
    assert sources_with_motion([arm, films, hand]) == [arm, hand]
    assert caplog.messages == [
        "['films']: left out, with neither states nor actions by which the true motion could be told"
    ]
    assert sources_with_motion([films]) == [films]  # of which `choose_motion` says what it lacks


def test_choices_are_kept():
    assert choose_motion([source(4, 7)], "action", [6, 0]) == TrueMotion("action", (6, 0))


@pytest.mark.parametrize(
    ("sources", "arguments", "error", "message"),
    [
        ([source(4, 7), source(body="hand")], (), DataError, "hand: has neither states nor actions"),
        ([source(4), source(0, 7, "hand")], (), DataError, "arm: has no actions"),
        ([source(0, 7)], ("state",), DataError, "arm: has no states, by which .* give another `motion`"),
        ([source(4), source(2, body="hand")], ("state", (0, 2)), ValueError, r"in \[0, 2\), the states that hand has"),
        ([source(4)], (None, (-1,)), ValueError, r"got \[-1\]"),
        ([], (), ValueError, "`sources` must name at least one data set"),
    ],
)
def test_bad_input(sources, arguments, error, message):
    with pytest.raises(error, match=message):
        choose_motion(sources, *arguments)


def test_faulty_episode_is_named():
    frames = np.array([0]), np.array([1])
    with pytest.raises(DataError, match="arm: episode 0 has no states"):
        TrueMotion("state", (0,)).of_pairs(make_episode(), *frames)
    with pytest.raises(DataError, match="arm: episode 0 has states that are not finite"):
        TrueMotion("state", (0,)).of_pairs(make_episode(np.full((5, 1), np.nan)), *frames)
