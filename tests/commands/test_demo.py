# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
from pathlib import Path

from cyclemimic.commands import demo


def test_flags(tmp_path):
    arguments = demo.parse(["--data", str(tmp_path), "--camera", "top", "--quick"], "cyclemimic demo")
    assert arguments == argparse.Namespace(output=Path("demo_output"), data=tmp_path, camera="top", quick=True, seed=0)
