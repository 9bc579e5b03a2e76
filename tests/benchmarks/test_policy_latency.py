# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the policy's latency, on a tiny policy."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "policy_latency"


def test_both_ways_give_the_same_actions(capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        measure = importlib.import_module("measure")
        patch.setattr(sys, "argv", ["measure.py", "--size", "tiny", "--rounds", "1", "--batch_size", "2"])
        measure.main()
    sys.modules.pop("measure", None)
    output = capsys.readouterr().out
    assert float(re.search(r"largest difference of an action (\S+)", output)[1]) < 1e-4
    assert "| predict_action_chunk |" in output and "times as fast" in output
