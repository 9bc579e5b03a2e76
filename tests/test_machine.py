# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import platform

import numpy as np
import torch

from cyclemimic.machine import hardware, versions


def test_gpus_are_named_and_counted(monkeypatch):
    assert hardware().startswith(f"{os.cpu_count()} cores, ")
    gpus = ["Big", "Small", "Big"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_name", gpus.__getitem__)
    assert hardware().startswith(f"2 x Big, 1 x Small, {os.cpu_count()} cores, ")


def test_packages_that_are_absent_are_left_out():
    assert versions(["numpy", "no-such-package"]) == {
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
