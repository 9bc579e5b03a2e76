# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic.planning.memory import ParameterCounts
from cyclemimic.planning.shapes import LayerStack, ModelShape
from cyclemimic.planning.table import gpu_hours, write_plan

# 3.2 GB of activations a sample: 2 bytes of 100,000 tokens in 2 layers, of 8 times the width.
SHAPE = ModelShape("toy", ParameterCounts(10**9, 10**9, 10**8), (LayerStack(2, 100_000, 1000, 0),))


def test_gigabytes_by_hand():
    lines = write_plan(SHAPE, [1, 4], batch_size=2, checkpointed=False).splitlines()
    assert "1,000.0 million parameters trained, 1,000.0 million frozen" in lines[0]
    assert "of which 6.4 are activations" in lines[2]
    rows = [line.split("|")[1:-1] for line in lines if line.startswith(("| 1 ", "| 4 "))]
    cells = [[float(cell) for cell in row] for row in rows]
    # ddp 16 + 4, zero1 4 + 2 + 16, zero2 2 + 2 + 18, zero3 0.4 + 20, offloaded 0.4, fsdp2 0.4 + 20; and 6.4 each.
    assert cells[0] == [1, 26.4, 28.4, 28.4, 26.8, 6.8, 26.8]
    assert cells[1] == [4, 26.4, 6.4 + 6 + 4, 6.4 + 4 + 4.5, 11.8, 6.8, 11.8]
    assert "main memory" in lines[-1] and "30.0 GB" in lines[-1]


def test_what_was_measured_stands_apart():
    assert "Measured" not in write_plan(SHAPE, [1], 2, False)
    text = write_plan(SHAPE, [1, 8], batch_size=32, checkpointed=True, step_time=0.9)
    assert "Measured by you: 0.9 s a step of 32 samples, 4,000 steps an hour" in text
    # 50,000 x 512 / 32 steps of 0.9 s are 200 GPU hours, 8.3 days on one.
    assert "| the paper's full mixture (50,000 x 512) | 200 | 8.3 | 1.0 |" in text
    assert gpu_hours(30_000, 256, 32, 0.9) == pytest.approx(60)
