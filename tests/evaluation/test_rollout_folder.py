# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import weakref

import numpy as np
import pytest

from cyclemimic.data import DataError
from cyclemimic.evaluation.report import DemoReport, Provenance, write_report
from cyclemimic.evaluation.rollout import Trial, TrialResult
from cyclemimic.evaluation.rollout_folder import Films, RolloutFolder


def test_films_of_odd_frames_lose_the_odd_row_and_column(tmp_path):
    folder = RolloutFolder(tmp_path / "rollouts", {"episodes": 1}, fps=10)
    folder.start()
    trial = Trial("go", 3, filmed=True)
    result = TrialResult(trial)
    result.frames.extend(np.full((3, 17, 33, 3), 200, np.uint8))
    folder.save(result)
    described = folder.finished([trial])[trial]
    clip = folder.load_clip(described)
    assert clip.frames.shape == (3, 16, 32, 3) and abs(int(clip.frames.mean()) - 200) < 5
    assert [path.name for path in (tmp_path / "rollouts/clips").iterdir()] == ["go_3.mp4"]


@pytest.fixture
def filmed(tmp_path):
    """A folder with one episode, which was filmed."""
    folder = RolloutFolder(tmp_path / "rollouts", {"episodes": 1}, fps=10)
    folder.start()
    result = TrialResult(Trial("go", 3, filmed=True))
    result.frames.extend(np.full((3, 16, 32, 3), 200, np.uint8))
    folder.save(result)
    return folder, result.trial


@pytest.mark.parametrize(("content", "fault"), [(None, "is missing"), (b"no film", "does not decode")])
def test_a_film_that_is_lost_or_broken_is_named_with_the_way_to_a_new_one(filmed, content, fault):
    folder, trial = filmed
    (described,) = folder.finished([trial]).values()
    film = folder.root / "clips" / "go_3.mp4"
    film.unlink() if content is None else film.write_bytes(content)
    with pytest.raises(DataError) as caught:
        folder.load_clip(described)
    episode = folder.root / "episodes" / "go_3.json"
    assert str(caught.value).startswith(f"{film} {fault}; delete {episode}, and the same command")
    assert "skip_broken" not in str(caught.value)
    episode.unlink()
    assert folder.finished([trial]) == {}  # it is pending again


def test_a_report_holds_one_film_at_a_time(filmed, tmp_path, monkeypatch):
    folder, trial = filmed
    (described,) = folder.finished([trial]).values()
    alive, load = weakref.WeakSet(), RolloutFolder.load_clip

    def count(folder, described):
        clip = load(folder, described)
        alive.add(clip)
        assert len(alive) <= 2  # the one before goes when this one takes its place
        return clip

    monkeypatch.setattr(RolloutFolder, "load_clip", count)
    films = Films(folder, [described | {"task": task} for task in ("go", "go", "go", "stop", "stop")])
    provenance = Provenance("30 November 2026", 0, "machine", 1.0)
    page = write_report(tmp_path / "report.html", DemoReport("Rollouts", provenance, clips=films)).read_text()
    assert page.count("<video") == 5 and page.count('<h3 class="task">') == 2


@pytest.mark.parametrize("content", ["", "[]", '{"task": "go"}'])
def test_a_damaged_episode_is_named(filmed, content):
    folder, trial = filmed
    path = folder.root / "episodes" / "go_3.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"episodes/go_3.json (cannot be read|is no record).*; delete it, and"):
        folder.finished([trial])


def test_a_film_without_its_length_is_no_record(filmed):
    folder, trial = filmed
    path = folder.root / "episodes" / "go_3.json"
    described = json.loads(path.read_text())
    del described["num_frames"]
    path.write_text(json.dumps(described))
    with pytest.raises(DataError, match="is no record of a rollout"):
        folder.finished([trial])


@pytest.mark.parametrize("content", ["", "[]"])
def test_damaged_settings_are_named(filmed, content):
    folder, _ = filmed
    (folder.root / "settings.json").write_text(content)
    with pytest.raises(DataError, match=r"settings.json (cannot be read|is no record).*; give another folder"):
        RolloutFolder(folder.root, {"episodes": 1}, fps=10)


def test_a_trial_that_is_to_be_filmed_now_is_pending(tmp_path):
    folder = RolloutFolder(tmp_path / "rollouts", {}, fps=10)
    folder.start()
    folder.save(TrialResult(Trial("go", 3)))
    assert folder.finished([Trial("go", 3, filmed=True)]) == {}
    assert len(folder.finished([Trial("go", 3)])) == 1


def test_the_time_of_all_runs_counts(tmp_path, monkeypatch):
    clock = iter([0.0, 4.0, 100.0, 103.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    for trial in (Trial("go", 3), Trial("go", 4)):
        folder = RolloutFolder(tmp_path / "rollouts", {}, fps=10)
        folder.start()
        folder.save(TrialResult(trial))
    assert folder.seconds == 7.0
    (folder.root / "seconds.json").write_text("{}")
    with pytest.raises(DataError, match="seconds.json is no record of a rollout; delete it"):
        _ = folder.seconds


def test_a_film_is_counted_in_steps_not_in_frames(tmp_path):
    folder = RolloutFolder(tmp_path / "rollouts", {}, fps=10)
    folder.start()
    result = TrialResult(Trial("go", 3, filmed=True), num_steps=9)
    result.frames.extend(np.full((6, 16, 32, 3), 200, np.uint8))  # every second, and the last
    folder.save(result)
    clip = folder.load_clip(*folder.finished([result.trial]).values())
    assert [clip.step_of(index) for index in (0, 5)] == [0, 9] and clip.num_steps == 9


def test_what_was_left_open_may_be_decided_once(tmp_path):
    RolloutFolder(tmp_path / "r", {"seed": 0, "terminated_is": None}, 10, ["terminated_is"]).start()
    RolloutFolder(tmp_path / "r", {"seed": 0, "terminated_is": "failure"}, 10, ["terminated_is"]).start()
    for other in ({"seed": 0, "terminated_is": "success"}, {"seed": 1, "terminated_is": "failure"}):
        with pytest.raises(ValueError, match="must be a folder of rollouts with the same settings"):
            RolloutFolder(tmp_path / "r", other, 10, ["terminated_is"])
