# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import DataError, LeRobotSource
from cyclemimic.demo import filming
from cyclemimic.demo.filming import STEPS_AFTER_SUCCESS, Shot, film
from cyclemimic.demo.recording import record_shots
from cyclemimic.evaluation.environments.metaworld import TASKS, MetaworldEnvironment, SimulatorError

SIZE = 32


@pytest.fixture(autouse=True)
def needs_simulator():
    try:
        MetaworldEnvironment("reach-v3", SIZE).close()
    except SimulatorError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("action_repeat", [1, 2])
def test_a_film_is_what_its_actions_do(action_repeat):
    shot = Shot("reach-v3", 4, push_rate=4.0, noise=0.3)
    episode = film(shot, SIZE, action_repeat)
    assert episode.frames.dtype == np.uint8 and episode.actions.dtype == episode.states.dtype == np.float32
    environment = MetaworldEnvironment("reach-v3", SIZE, action_repeat)
    environment.reset(episode.initial_state)
    successes = []
    for frame, action, state in zip(episode.frames, episode.actions, episode.states, strict=True):
        np.testing.assert_array_equal(environment.render(), frame)
        np.testing.assert_array_equal(environment.state, state)
        successes.append(environment.step(action))
    environment.close()
    assert successes.index(True) == len(successes) - 1 - STEPS_AFTER_SUCCESS
    assert np.abs(episode.actions).max() == 1.0


def test_noise_and_pushes_change_the_film_and_are_reproducible():
    shots = [Shot("reach-v3", 1), Shot("reach-v3", 1, noise=0.3), Shot("reach-v3", 1, push_rate=20.0)]
    films = [film(shot, SIZE).actions for shot in shots]
    assert len({actions.tobytes() for actions in films}) == 3
    np.testing.assert_array_equal(film(shots[2], SIZE).actions, films[2])


def test_a_failed_attempt_is_made_again_elsewhere(monkeypatch):
    attempts = []
    real = filming._attempt

    def fail_first(environment, shot, initial_state):
        attempts.append(initial_state)
        return None if len(attempts) < 3 else real(environment, shot, initial_state)

    monkeypatch.setattr(filming, "_attempt", fail_first)
    assert film(Shot("reach-v3", 2), SIZE).initial_state == attempts[-1]
    assert len(set(attempts)) == 3 and attempts[0] == 2
    monkeypatch.setattr(filming, "_attempt", lambda environment, shot, state: attempts.append(state))
    with pytest.raises(RuntimeError, match="expert of reach-v3 failed 20 times from state 100999"):
        film(Shot("reach-v3", 100_999), SIZE)
    # Where evaluation begins.
    assert len(set(attempts)) == 23 and max(attempts) < 500_000


def test_recorded_data_set_is_that_of_the_shots_for_any_number_of_processes(tmp_path):
    shots = [
        Shot(task, state, noise=0.1, labelled=state == 1)
        for task in ("reach-v3", "window-close-v3")
        for state in (1, 2)
    ]
    for workers in (1, 2):
        record_shots(tmp_path / str(workers), shots, SIZE, num_workers=workers, action_repeat=2)
    source = LeRobotSource(tmp_path / "2")
    assert source.fps == 40 and len(source) == 4
    for shot, episode in zip(shots, source, strict=True):
        expected = film(shot, SIZE, action_repeat=2)
        assert episode.instruction == TASKS[shot.task]
        assert episode.attributes == {"labelled": shot.labelled, "initial_state": shot.initial_state}
        np.testing.assert_array_equal(episode.actions, expected.actions)
        np.testing.assert_array_equal(episode.states, expected.states)
        assert np.abs(episode.read_frames().astype(int) - expected.frames).mean() < 6
    # Everything but the video is the same to the last bit; the tables have histograms of all frames. x264 is given the
    # same frames, and still, for ones as small as these, now and then encodes one differently.
    tables = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("1", "2")
    ]
    videos = {path for path in tables[0] if path.suffix == ".mp4"}
    assert len(videos) == 1 and tables[0].keys() == tables[1].keys()
    assert all(tables[0][path] == tables[1][path] for path in tables[0].keys() - videos)


def test_nothing_is_left_of_a_recording_that_failed(tmp_path):
    with pytest.raises(ValueError, match="`task` must be one of"):
        record_shots(tmp_path / "data", [Shot("reach-v3", 0), Shot("juggle", 0)], SIZE, num_workers=1)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named_before_any_work(tmp_path):
    with pytest.raises(ValueError, match=r"`len\(shots\)` must be at least 1, got 0"):
        record_shots(tmp_path / "data", [], SIZE)
    with pytest.raises(ValueError, match="`num_workers` must be at least 1, got 0"):
        record_shots(tmp_path / "data", [Shot("reach-v3", 0)], SIZE, num_workers=0)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").touch()
    with pytest.raises(DataError):
        record_shots(tmp_path / "data", [Shot("reach-v3", 0)], SIZE)
