# SPDX-License-Identifier: Apache-2.0
"""The benchmark of what a training run costs beside its steps, for a few of them."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "training_run"


def test_figures_of_a_short_run(capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        measure = importlib.import_module("measure")
        flags = ["--steps", "3", "--rounds", "1", "--batch_size", "4", "--workers", "0"]
        patch.setattr(sys, "argv", ["measure.py", *flags])
        patch.setattr(measure, "NUM_EPISODES", 2)
        measure.main()
    sys.modules.pop("measure", None)
    output = capsys.readouterr().out
    assert all(float(figure) > 0 for figure in re.search(r"bare (\S+) ms, Trainer (\S+) ms", output).groups())
    assert "overhead: " in output
