# SPDX-License-Identifier: Apache-2.0
"""What a run ran on: every figure stands beside it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("cyclemimic", "torch", "transformers", "accelerate", "numpy", "av", "metaworld", "mujoco")
"""What the figures of rollouts depend on."""


def hardware() -> str:
    """The machine in words: its GPUs, where there are some, cores and processor."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    named = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    return ", ".join([*named, f"{os.cpu_count()} cores", _processor()])


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Version of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
