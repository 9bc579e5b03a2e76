# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import time

import pytest

from cyclemimic.demo.peak_memory import PeakMemory

MIB = 1 << 20


def wait_for(memory: PeakMemory, num_bytes: int) -> None:
    deadline = time.monotonic() + 30
    while memory.peak_bytes < num_bytes and time.monotonic() < deadline:
        time.sleep(0.01)


GIVEN_BACK = """
import time
import numpy as np
from cyclemimic.demo.peak_memory import PeakMemory

with PeakMemory(interval_s=0.01) as memory:
    before, deadline = memory.peak_bytes, time.monotonic() + 30
    held = np.ones(64 << 20, dtype=np.uint8)
    while memory.peak_bytes < before + (60 << 20) and time.monotonic() < deadline:
        time.sleep(0.01)
    del held
print(before, memory.peak_bytes)
"""


def test_sees_memory_that_is_given_back():
    # In a process of its own: what earlier tests have left running counts here, and may end meanwhile.
    process = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True, check=True)
    before, peak = map(int, process.stdout.split())
    assert before + 60 * MIB < peak < before + 256 * MIB


def test_counts_child_processes():
    program = "import sys; held = b'x' * (96 << 20); print('ready', flush=True); sys.stdin.read()"
    with PeakMemory(interval_s=0.01) as memory:
        alone = memory.peak_bytes
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", program], **pipes) as child:
            assert child.stdout.readline() == b"ready\n"
            wait_for(memory, alone + 96 * MIB)
            child.stdin.close()
    assert memory.peak_bytes >= alone + 96 * MIB


def test_stops_and_passes_errors_on():
    with pytest.raises(KeyError), PeakMemory(interval_s=0.01) as memory:
        raise KeyError
    assert memory.peak_bytes > 0 and not memory._thread.is_alive()
