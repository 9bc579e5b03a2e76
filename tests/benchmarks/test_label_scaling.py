# SPDX-License-Identifier: Apache-2.0
"""The benchmark of labelling by two processes, on a few short films."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "label_scaling" / "measure.py"


def test_two_processes_are_compared_with_one():
    flags = ["--episodes", "4", "--rounds", "1"]
    output = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, check=True).stdout
    assert "1 process(es): " in output and "times as fast as one" in output
