# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "few_demonstrations" / "measure.py"


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("few_demonstrations", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def arguments(measure, monkeypatch, tmp_path):
    def parse(*flags: str):
        monkeypatch.setattr(sys, "argv", ["measure.py", "--output", str(tmp_path), *flags])
        return measure.parse()

    return parse


def test_ten_tasks_and_a_row_for_every_claim(measure):
    assert len(set(measure.TASKS)) == 10 and set(measure.TASKS) <= set(measure.INSTRUCTIONS)
    for number in (1, 5, 20):
        assert {f"{start}-{number}" for start in ("none", "genie", "ac3", "other-bodies")} <= set(measure.ROWS)
    assert {"ac3-5-latent", "ac3-5-discrete", "none-100"} <= set(measure.ROWS)


def test_the_table_counts_what_the_rollouts_wrote(measure, arguments, tmp_path):
    parsed = arguments("--rows", "none-5", "ac3-5", "genie-5", "--seeds", "0", "1")
    for row, seed, successes in (("none-5", 0, 2), ("ac3-5", 0, 5), ("ac3-5", 1, 7)):
        folder = tmp_path / f"seed-{seed}" / row / "rollout"
        folder.mkdir(parents=True)
        mean = {"successes": successes, "trials": 10}
        (folder / "results.json").write_text(json.dumps({"success": {"mean": mean}}))
    _, _, *rows = measure.table(parsed).splitlines()
    assert rows == [
        "| none | 5 | act | 0.20 | 0.20 | 0.06 to 0.51 |",
        "| ac3 | 5 | act | 0.50, 0.70 | 0.60 | 0.39 to 0.78 |",
    ]


def test_a_stage_is_made_once_and_whole(measure, tmp_path, capsys):
    def fail(folder):
        folder.mkdir()
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        measure.once(tmp_path / "stage", fail)
    assert not (tmp_path / "stage").exists()
    assert measure.once(tmp_path / "stage", lambda folder: folder.mkdir()) == tmp_path / "stage"
    measure.once(tmp_path / "stage", fail)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "other-bodies-5"], "--arms must be given"),
        (["--rows", "none-100", "--demonstrations", "20"], "--demonstrations must be as many"),
    ],
)
def test_bad_input(arguments, capsys, flags, message):
    with pytest.raises(SystemExit):
        arguments(*flags)
    assert message in capsys.readouterr().err
