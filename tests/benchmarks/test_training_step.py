# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the tokenizer's training step, on a tiny tokenizer."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "training_step"


def test_the_plain_step_has_the_same_loss(capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        measure = importlib.import_module("measure")
        patch.setattr(sys, "argv", ["measure.py", "--size", "tiny", "--rounds", "1", "--peak", "0.1"])
        measure.main()
    for name in ("measure", "plain"):
        sys.modules.pop(name, None)
    output = capsys.readouterr().out
    assert float(re.search(r"differs by (\S+)", output)[1]) < 1e-5
    # Shares of the peak; memory is not counted on a processor.
    assert len(re.findall(r"\(\d+%\) \| – \|", output)) == 3
    assert "| AC3 |" in output and "times as fast as the plain one" in output
