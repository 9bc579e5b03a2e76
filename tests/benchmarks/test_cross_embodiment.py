# SPDX-License-Identifier: Apache-2.0
"""The recorder of the cross-embodiment benchmark; a worker without a simulator stands in for the one that films."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cyclemimic.data import open_source

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "cross_embodiment"
FAKE_WORKER = """
import argparse, json, pathlib, sys
import numpy as np

parser = argparse.ArgumentParser()
for name in ("body", "split", "output"):
    parser.add_argument("--" + name)
for name in ("episodes", "frames", "image_size", "seed"):
    parser.add_argument("--" + name, type=int)
parser.add_argument("--sector", type=float, nargs=3)
parser.add_argument("--goal", action="store_true")
flags = parser.parse_args()
print("a warning of the simulator", file=sys.stderr)
for index in range(flags.episodes):
    frames = np.full((flags.frames, flags.image_size, flags.image_size, 3), 10 * index + 100 * flags.goal, np.uint8)
    steps = np.tile(np.float32([index, *flags.sector[:2]]), (flags.frames, 1))
    name = f"{index}.npz"
    np.savez(pathlib.Path(flags.output, name), frames=frames, actions=steps, states=steps / 2)
    print(json.dumps({"file": name}), flush=True)
"""


# Prints where it is red: of a frame without a ball, and of balls to the left, to the right and high up.
DRAW_BALLS = """
import json, mujoco, numpy as np
from stage import Camera

# As robosuite's front camera, it looks along -x at what is before the arm.
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="1 0 3"/><camera name="frontview" pos="1.6 0 1.1"/></worldbody></mujoco>'
)
data = mujoco.MjData(model)
camera = Camera(model, 64)
mujoco.mj_forward(model, data)
balls = [None, *np.array([[0, -0.2, 1], [0, 0.2, 1], [0, 0.2, 1.15]])]
frames = [camera.render(data, ball).astype(int) for ball in balls]
print(json.dumps([np.argwhere(frame[..., 0] > frame[..., 1] + 50).tolist() for frame in frames]))
camera.close()
"""


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    """The modules that need no robosuite, as their own folder sees them."""
    names = ["motion", "record"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield {name: importlib.import_module(name) for name in names}
    for name in [*names, "stage"]:
        sys.modules.pop(name, None)


@pytest.fixture
def motion(scripts) -> ModuleType:
    return scripts["motion"]


@pytest.fixture
def run_record(scripts, tmp_path, monkeypatch) -> Callable[..., Path]:
    """Runs `record.py` with the worker of the given source, in this process; returns the folder it writes to."""

    def run(*flags: str, worker: str = FAKE_WORKER) -> Path:
        (tmp_path / "worker.py").write_text(worker)
        monkeypatch.setattr(scripts["record"], "WORKER", tmp_path / "worker.py")
        output = tmp_path / "arms"
        fixed = ["--output", str(output), "--simulator_python", sys.executable, "--image_size", "32", "--frames", "10"]
        counts = ["--train_episodes", "3", "--test_episodes", "2"]
        monkeypatch.setattr(sys, "argv", ["record.py", *fixed, *counts, *flags])
        scripts["record"].main()
        return output

    return run


def paths(motion: ModuleType, sector: object, number: int = 200) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.stack([motion.sample_path(random, 30, sector) for _ in range(number)])


def angles(positions: np.ndarray) -> np.ndarray:
    """Directions in the image plane, in degrees from -180 to 180."""
    steps = np.diff(positions, axis=1)
    return np.rad2deg(np.arctan2(steps[..., 2], steps[..., 1]))


def test_motion_is_smooth_and_stays_in_the_workspace(motion):
    positions = paths(motion, motion.Sector())
    assert (positions >= motion.WORKSPACE[:, 0] - 1e-9).all() and (positions <= motion.WORKSPACE[:, 1] + 1e-9).all()
    velocities = np.diff(positions, axis=1) * motion.FPS
    speeds = np.linalg.norm(velocities, axis=-1)
    assert motion.SPEEDS[0] - 1e-9 <= speeds.min() and speeds.max() <= motion.SPEEDS[1] + 1e-9
    assert np.linalg.norm(np.diff(velocities, axis=1), axis=-1).max() < 0.06
    half_second = np.linalg.norm(positions[:, 5:] - positions[:, :-5], axis=-1)
    assert 0.045 < half_second.min() and half_second.max() < 0.1


def test_position_does_not_tell_the_direction(motion):
    for sector in (motion.Sector(depth_share=0.7), motion.own_sector(1, 5, depth_share=0.7)):
        positions = paths(motion, sector, 500)
        both = np.concatenate([positions[:, :-1], np.diff(positions, axis=1)], axis=-1).reshape(-1, 6)
        assert np.abs(np.corrcoef(both.T)[:3, 3:]).max() < 0.15


def test_directions(motion):
    everywhere = np.histogram(angles(paths(motion, motion.Sector())), 8, (-180, 180))[0]
    assert everywhere.min() > 0.5 * everywhere.mean()
    for index in range(5):
        own = angles(paths(motion, motion.own_sector(index, 5))) - 72 * index
        own = (own + 180) % 360 - 180
        assert np.abs(own).max() <= 60 + 1e-6 and np.ptp(own) > 110 and abs(own.mean()) < 10


def test_motion_leaves_the_image_plane_as_far_as_asked(motion):
    assert np.ptp(paths(motion, motion.Sector()), axis=1)[:, 0].max() < 1e-12
    steps = np.diff(paths(motion, motion.Sector(depth_share=0.7)), axis=1)
    share = np.abs(steps[..., 0]) / np.linalg.norm(steps, axis=-1)
    assert 0.65 < share.max() <= 0.7 + 1e-9 and share.mean() > 0.25


def test_motion_is_seeded(motion):
    np.testing.assert_array_equal(paths(motion, motion.Sector(), 3), paths(motion, motion.Sector(), 3))


def test_motion_refuses_what_does_not_fit(motion):
    with pytest.raises(ValueError, match="half_width"):
        motion.Sector(0, 0)
    with pytest.raises(ValueError, match="depth_share"):
        motion.Sector(depth_share=1.0)
    with pytest.raises(ValueError, match="index"):
        motion.own_sector(5, 5)
    with pytest.raises(ValueError, match="fewer frames"):
        motion.sample_path(np.random.default_rng(0), 300, motion.own_sector(1, 5))


def test_data_sets(run_record, capsys):
    output = run_record("--bodies", "UR5e", "Panda")
    assert "4 data sets in " in capsys.readouterr().out
    for split, episodes in {"train": 3, "test": 2}.items():
        for index, body in enumerate(["UR5e", "Panda"]):
            source = open_source(output / split / body)
            assert (len(source), source.embodiment, source.fps, source.camera) == (
                episodes,
                body,
                10,
                "observation.images.frontview",
            )
            sector = [180 * index, 60] if split == "train" else [0, 180]
            last = source[episodes - 1]
            np.testing.assert_allclose(last.actions, np.tile([episodes - 1, *sector], (10, 1)))
            np.testing.assert_allclose(last.states, last.actions / 2)
            assert abs(int(last.read_frames([4]).mean()) - 10 * (episodes - 1)) < 3


def test_all_directions_for_all(run_record):
    source = open_source(run_record("--bodies", "UR5e", "Panda", "--direction_range", "all") / "train" / "Panda")
    np.testing.assert_array_equal(source[0].actions[0], [0, 0, 180])


def test_goal(run_record):
    output = run_record("--bodies", "Panda", "--goal")
    assert abs(int(open_source(output / "train" / "Panda")[0].read_frames([0]).mean()) - 100) < 3
    with pytest.raises(SystemExit, match="whose `goal` is True instead of False"):
        run_record("--bodies", "Panda")


def test_settings_of_before_there_were_goals_are_of_none(run_record):
    path = run_record("--bodies", "Panda") / "settings.json"
    settings = json.loads(path.read_text())
    assert settings.pop("goal") is False
    path.write_text(json.dumps(settings))
    run_record("--bodies", "Panda")


def test_ball_is_shown_where_it_is():
    pytest.importorskip("mujoco", reason="MuJoCo is of the extra [sim]")
    # In a process of its own, which renders without a screen.
    environment = {**os.environ, "MUJOCO_GL": "egl", "PYTHONPATH": str(FOLDER)}
    finished = subprocess.run([sys.executable, "-c", DRAW_BALLS], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    empty, left, right, high = json.loads(finished.stdout)
    assert empty == []
    for shown in (left, right, high):
        assert 4 < len(shown) < 100
    (row, column), (_, left_column), (high_row, _) = (np.mean(shown, axis=0) for shown in (right, left, high))
    assert left_column < 32 < column and high_row < row - 5


def test_goes_on_where_it_was(run_record, tmp_path):
    output = run_record("--bodies", "Panda", "--workers", "2")
    (output / "test" / "Panda").rename(tmp_path / "elsewhere")
    kept = (output / "train" / "Panda" / "meta" / "info.json").stat().st_mtime_ns
    run_record("--bodies", "Panda")
    assert (output / "test" / "Panda").is_dir()
    assert (output / "train" / "Panda" / "meta" / "info.json").stat().st_mtime_ns == kept
    with pytest.raises(SystemExit, match="whose `seed` is 0 instead of 1"):
        run_record("--bodies", "Panda", "--seed", "1")


@pytest.mark.parametrize(
    ("worker", "message"),
    [
        ("raise SystemExit('no renderer here')", "Panda failed: no renderer here"),
        (FAKE_WORKER.replace("range(flags.episodes)", "range(1)"), "gave 1 episodes instead of 3"),
        # It would sleep for long, so that it must be stopped.
        (
            FAKE_WORKER.replace('"file": name}', '"file": "other.npz"}') + "    import time; time.sleep(600)",
            "other.npz",
        ),
    ],
)
def test_a_worker_that_fails_leaves_nothing(run_record, tmp_path, worker, message):
    with pytest.raises((SystemExit, FileNotFoundError), match=message):
        run_record("--bodies", "Panda", worker=worker)
    assert sorted(path.name for path in (tmp_path / "arms").rglob("*")) == ["settings.json", "train"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--bodies", "Panda", "Panda"], "must differ"),
        (["--bodies", "Baxter"], "invalid choice"),
        (["--depth_share", "1"], "--depth_share must be at least 0 and below 1, got 1.0"),
        (["--frames", "5"], "--frames must be at least 10"),
        (["--image_size", "33"], "must be even"),
        (["--simulator_python", "nowhere"], "must be an interpreter"),
    ],
)
def test_arguments(run_record, capsys, flags, message):
    with pytest.raises(SystemExit):
        run_record(*flags)
    assert message in capsys.readouterr().err


def test_frames_are_checked(scripts):
    pytest.importorskip("mujoco", reason="MuJoCo is of the extra [sim]")
    stage, random = importlib.import_module("stage"), np.random.default_rng(0)
    positions = np.linspace(0, [0, 0.3, 0], 20)
    background = np.tile(np.linspace(40, 200, 32)[:, None, None], (20, 1, 32, 3)).astype(np.uint8)
    moving = background.copy()
    for step, frame in enumerate(moving):
        frame[10:16, step : step + 6] = 255
    stage.check_frames(moving, positions)
    stage.check_frames(background, np.zeros((20, 3)))
    with pytest.raises(stage.FrameError, match="stand still"):
        stage.check_frames(background, positions)
    for broken in (random.integers(0, 256, moving.shape, dtype=np.uint8), np.zeros_like(moving)):
        with pytest.raises(stage.FrameError, match="noise or empty"):
            stage.check_frames(broken, positions)


def test_real_arm(run_record, monkeypatch):
    interpreter = os.environ.get("ROBOSUITE_PYTHON")
    if not interpreter:
        pytest.skip("ROBOSUITE_PYTHON names no interpreter that has robosuite")
    output = run_record(
        *["--bodies", "UR5e", "--simulator_python", interpreter, "--image_size", "64", "--goal"],
        worker=f"import runpy, sys; sys.path.insert(0, {str(FOLDER)!r})\n"
        f"runpy.run_path({str(FOLDER / 'film_arms.py')!r}, run_name='__main__')",
    )
    source = open_source(output / "train" / "UR5e")
    for episode in source:
        moved = np.diff(episode.states, axis=0)
        np.testing.assert_allclose(moved, episode.actions[:-1], atol=0.006)
        assert np.abs(np.diff(episode.read_frames([0, 5]).astype(int), axis=0)).max() > 50
    assert json.loads((output / "settings.json").read_text())["bodies"] == ["UR5e"]
