# SPDX-License-Identifier: Apache-2.0
"""Settings that must be in place before torch or a simulator is imported, and fixtures of general use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Also beside a GPU: tests compare to the last digits, and with tensors that they make on the processor.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
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


@pytest.fixture(scope="session")
def square_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A LeRobot data set of four episodes of 12 frames at 10 fps: a bright square goes right or down, as the instruction
    says. Actions are of size 4, as Metaworld's: the way it goes, then noise and a gripper of two values.
    """
    import numpy as np

    from cyclemimic.data import LeRobotWriter

    root = tmp_path_factory.mktemp("data") / "squares"
    random = np.random.default_rng(0)
    names = ["x", "y", "z", "gripper"]
    with LeRobotWriter(root, 10, "square", names) as writer:
        for index in range(4):
            right, down = (2, 0) if index % 2 == 0 else (0, 2)
            frames = np.full((12, 32, 32, 3), 40, dtype=np.uint8)
            actions = random.normal(0, 0.1, (12, 4)) + [right, down, 0, 0]
            actions[:, 3] = np.arange(12) > 6
            for step, frame in enumerate(frames):
                top, left = 2 + index + down * step // 2, 2 + index + right * step // 2
                frame[top : top + 8, left : left + 8] = 220
            writer.add_episode(frames, actions, "go right" if right else "go down")
    return root
