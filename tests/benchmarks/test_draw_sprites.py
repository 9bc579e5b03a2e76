# SPDX-License-Identifier: Apache-2.0
"""The drawn bodies of the cross-embodiment benchmark."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cyclemimic.data import open_source

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "cross_embodiment"


@pytest.fixture(scope="module")
def sprites() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("draw_sprites")
    sys.modules.pop("draw_sprites", None)


def draw(sprites: ModuleType, name: str, centre: tuple[float, float]) -> np.ndarray:
    """Which pixels the body covers, white on black."""
    (body,) = (body for body in sprites.BODIES if body.name == name)
    return sprites.draw_frame(body, np.array(centre), np.ones(3), np.zeros((32, 32, 3)))[..., 0] / 255


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("square", 6.0 * 6.0),
        ("disc", np.pi * 4.0**2),
        ("cross", 2 * 10.0 * 3.5 - 3.5**2),
        # Between its lower side and a tip: a base of 3.7 half widths.
        ("triangle", 0.5 * 5.76 * (2 * 3.31)),
    ],
)
def test_bodies_have_their_areas(sprites, name, area):
    assert draw(sprites, name, (16.0, 16.0)).sum() == pytest.approx(area, rel=0.12)


@pytest.mark.parametrize("name", ["square", "disc", "cross", "triangle"])
def test_bodies_are_where_they_are_said_to_be(sprites, name):
    """Two pixels to the right and three down is the same picture, elsewhere."""
    frame, moved = draw(sprites, name, (12.0, 12.0)), draw(sprites, name, (14.0, 15.0))
    np.testing.assert_allclose(moved[3:, 2:], frame[:-3, :-2])


def test_training_has_the_bodys_own_directions_either_way(sprites):
    random = np.random.default_rng(0)
    for axis in (0.0, 90.0):
        steps = np.diff(sprites.sample_path(500, axis, random), axis=0)
        off = np.rad2deg(np.arctan2(steps[:, 1], steps[:, 0])) - axis
        off = (off + 90) % 180 - 90
        assert np.abs(off).max() <= sprites.HALF_WIDTH + 1e-6 and np.ptp(off) > 100
        along = steps @ [np.cos(np.deg2rad(axis)), np.sin(np.deg2rad(axis))]
        assert 0.3 < (along > 0).mean() < 0.7


def test_test_episodes_have_all_directions(sprites):
    path = sprites.sample_path(1000, None, np.random.default_rng(0))
    steps = np.diff(path, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    assert sprites.STEPS[0] <= lengths.min() and lengths.max() <= sprites.STEPS[1]
    assert (path >= sprites.MARGIN).all() and (path <= sprites.SIZE - sprites.MARGIN).all()
    counts = np.histogram(np.arctan2(steps[:, 1], steps[:, 0]), 8)[0]
    assert counts.min() > 0.5 * counts.mean()


def test_data_sets(sprites, tmp_path, monkeypatch):
    def record(name: str) -> Path:
        flags = ["--train_episodes", "2", "--test_episodes", "1", "--frames", "4"]
        monkeypatch.setattr(sys, "argv", ["draw_sprites.py", "--output", str(tmp_path / name), *flags])
        sprites.main()
        return tmp_path / name

    output, again = record("sprites"), record("again")
    assert sorted(path.name for path in output.glob("*/*")) == 2 * ["cross"] + 2 * ["disc"] + 2 * ["square"] + 2 * [
        "triangle"
    ]
    for path in output.glob("*/*"):
        source, copy = open_source(path), open_source(again / path.relative_to(output))
        assert len(source) == (2 if path.parent.name == "train" else 1) and source.embodiment == path.name
        assert source[0].num_frames == 4
        np.testing.assert_array_equal(source[0].states, copy[0].states)
        moved = np.diff(source[0].states, axis=0)
        np.testing.assert_allclose(source[0].actions[:3], moved, atol=1e-5)
    first, second = (open_source(output / "train" / "disc")[index].read_frames([0])[0] for index in (0, 1))
    assert np.abs(np.asarray(first).astype(int) - np.asarray(second)).mean() > 3


@pytest.mark.parametrize(("flag", "value"), [("--train_episodes", "0"), ("--frames", "1"), ("--seed", "-1")])
def test_bad_flags(sprites, flag, value, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["draw_sprites.py", "--output", str(tmp_path / "sprites"), flag, value])
    with pytest.raises(SystemExit, match="2"):
        sprites.main()
    assert f"{flag} must be at least" in capsys.readouterr().err and not (tmp_path / "sprites").exists()
