# SPDX-License-Identifier: Apache-2.0
"""Settings that must be in place before torch or a simulator is imported, and fixtures of general use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

# The models of the tests are so small that threads cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test that would reach for the network fails at once instead.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a Python program, or with `module=` a module, in a process of its own; returns it with its output."""

    def run(*arguments: str, module: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments] if module else [sys.executable, "-c", *arguments]
        process = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
        if check and process.returncode:
            pytest.fail(f"exit code {process.returncode}:\n{process.stdout}{process.stderr}")
        return process

    return run
