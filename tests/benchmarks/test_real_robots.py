# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "real_robots" / "measure.py"


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("real_robots", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_episode_is_held_out_once_from_all_that_is_trained(measure, square_data, tmp_path, monkeypatch, capsys):
    opened = []
    open_data = measure.open_data

    def note(arguments, episodes=None):
        opened.append(episodes)
        return open_data(arguments, episodes)

    monkeypatch.setattr(measure, "open_data", note)
    flags = ["--data", square_data, "--output", tmp_path, "--demonstrations", 2, "--folds", 2]
    steps = [part for stage in ("tokenizer", "pretraining", "finetuning") for part in (f"--{stage}_steps", 1)]
    monkeypatch.setattr(sys, "argv", ["measure.py", *map(str, flags + steps)])
    measure.main()
    # Of each fold: all, to count them; the demonstrations; the films; what is held out.
    assert opened == [None, [1, 3], [1, 3], [0, 2], None, [0, 2], [0, 2], [1, 3]]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split(" | ")[0][2:] for line in lines[2:]] == [*measure.POLICIES, *measure.GUESSES]


def test_table_has_the_mean_of_the_folds(measure):
    def errors(policy, mean, last):
        found = {"policy": policy, "mean_action": mean, "last_action": last}
        return found | {"per_dimension": {name: [value, 3 * value] for name, value in found.items()}}

    folds = [
        {"policy": errors(0.1, 0.5, 0.3), "policy_alone": errors(0.2, 0.5, 0.3)},
        {"policy": errors(0.3, 0.7, 0.4), "policy_alone": errors(0.6, 0.7, 0.4)},
    ]
    assert measure.table(folds).splitlines()[2:] == [
        "| latent pretraining, then demonstrations | 0.10, 0.30 | 0.200 | 0.20, 0.60 |",
        "| the same fine-tuning alone | 0.20, 0.60 | 0.400 | 0.40, 1.20 |",
        "| always their mean action | 0.50, 0.70 | 0.600 | 0.60, 1.80 |",
        "| the last action again | 0.30, 0.40 | 0.350 | 0.35, 1.05 |",
    ]
