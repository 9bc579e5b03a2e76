# SPDX-License-Identifier: Apache-2.0
"""Two data sets of two bodies, in memory, and arguments for a few steps on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cyclemimic.data import Episode, InMemorySource


@pytest.fixture
def sources() -> list[InMemorySource]:
    random = np.random.default_rng(0)
    return [
        InMemorySource(
            [
                Episode.from_arrays(
                    random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8),
                    fps=10.0,
                    instruction=f"task {index}",
                    actions=random.uniform(-1, 1, (8, 2)),
                    source=body,
                    embodiment=body,
                    index=index,
                )
                for index in range(2)
            ]
        )
        for body in ("arm", "hand")
    ]


@pytest.fixture
def small_run() -> Callable[..., dict[str, Any]]:
    """Keyword arguments of a `TrainingArguments`."""

    def make(output_dir: Any, **changes: Any) -> dict[str, Any]:
        return {
            "output_dir": str(output_dir),
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "logging_steps": 2,
            "save_steps": 2,
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "seed": 3,
        } | changes

    return make
