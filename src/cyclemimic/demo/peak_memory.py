# SPDX-License-Identifier: Apache-2.0
"""Peak memory of this process and all that it starts."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil


class PeakMemory:
    """
    Samples the resident memory of the process tree while its block runs. Pages that several processes share count once
    for each of them, so the figure is never too small.

    Args:
        interval_s (`float`, *optional*, defaults to 0.5): Seconds between two samples.
    """

    def __init__(self, interval_s: float = 0.5) -> None:
        self.interval_s = interval_s
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._stop.wait(self.interval_s):
            self._sample()

    def _sample(self) -> None:
        process = psutil.Process()
        total = sum(_memory_of(member) for member in [process, *process.children(recursive=True)])
        self.peak_bytes = max(self.peak_bytes, total)


def _memory_of(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:  # it has just ended
        return 0
