# SPDX-License-Identifier: Apache-2.0
"""How fast a training goes, what it waits for, and the memory it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

FIGURES = ("samples_per_second", "data_wait", "memory_gb")


class Pace:
    """
    Counted between two log lines, on the host's clock, so that nothing waits for the device. What is done in between counts
    as time, too: evaluations, checkpoints, sample pictures.
    """

    def __init__(self) -> None:
        self._restart()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time inside is spent waiting for data."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - start

    def add(self, num_samples: int) -> None:
        """Count in the samples of a step."""
        self._num_samples += num_samples

    def pop(self, world_size: int) -> dict[str, float]:
        """
        Since the last time: `samples_per_second` of all processes, `data_wait`, the share of this process's time in
        which it waited for batches, and `memory_gb`, the most that torch has had of this process's GPU since the process
        began, or the main memory of the process where there is none.
        """
        seconds = time.perf_counter() - self._start
        figures = (self._num_samples * world_size / seconds, self._waited / seconds, _memory_in_use() / 1e9)
        self._restart()
        return {name: round(figure, 4) for name, figure in zip(FIGURES, figures, strict=True)}

    def _restart(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._num_samples = 0


def _memory_in_use() -> int:
    """Bytes."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return psutil.Process().memory_info().rss
