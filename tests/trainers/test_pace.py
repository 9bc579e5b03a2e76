# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic.trainers import pace as pace_module
from cyclemimic.trainers.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    """Seconds, which a test moves on."""
    now = [100.0]
    monkeypatch.setattr(pace_module.time, "perf_counter", lambda: now[0])
    return now


def test_figures_are_those_since_the_last_time(clock):
    pace = Pace()
    for waited in (1.0, 2.0):
        with pace.waiting():
            clock[0] += waited
        clock[0] += 3.5
        pace.add(4)
    figures = pace.pop(world_size=2)
    assert figures.pop("memory_gb") > 0.01
    # 10 seconds, 3 of them waiting, 8 samples in each of two processes.
    assert figures == {"samples_per_second": 1.6, "data_wait": 0.3}
    clock[0] += 2.0
    pace.add(4)
    assert pace.pop(world_size=1) | {"memory_gb": 0} == {"samples_per_second": 2.0, "data_wait": 0.0, "memory_gb": 0}
