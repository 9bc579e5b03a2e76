# SPDX-License-Identifier: Apache-2.0
"""Worker processes with environments in numbered slots; one that dies is started again, and its trials with it."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from cyclemimic.evaluation.environments.worker import LEAVE_S, Act, EnvironmentWorker, Outcome, Reset, WorkerDied

logger = logging.getLogger(__name__)

_Request = TypeVar("_Request", bound=Reset | Act)

MAX_REPEATS = 3
"""How often a trial is begun again because its worker died, before the rollouts are given up."""


class EnvironmentPool:
    """
    Slots `0, 1, …` shared among workers. A context manager: the processes end with the block.

    Args:
        make_worker (`Callable`): Starts an [`EnvironmentWorker`].
        num_workers (`int`): How many of them.
    """

    def __init__(self, make_worker: Callable[[], EnvironmentWorker], num_workers: int) -> None:
        self._make_worker = make_worker
        self._workers = [make_worker() for _ in range(num_workers)]
        self._playing: dict[int, Reset] = {}
        self._outcomes: dict[int, Outcome] = {}

    def __enter__(self) -> EnvironmentPool:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.leave()
        deadline = time.monotonic() + LEAVE_S
        for worker in self._workers:
            worker.end(deadline - time.monotonic())

    def submit(self, requests: Sequence[Reset | Act]) -> None:
        """Sends the requests, and waits for nothing. All slots that play must have one before the next `collect`."""
        self._playing |= {request.slot: request for request in requests if isinstance(request, Reset)}
        for number, worker in enumerate(self._workers):
            if batch := self._of_worker(number, requests):
                worker.send(batch)

    def collect(self, slots: Iterable[int]) -> dict[int, Outcome]:
        """
        Waits for what became of the last requests in `slots`.

        Returns:
            `dict[int, Outcome]`: By slot. Those of a worker that died since are `repeated`.

        Raises:
            WorkerDied: over one trial, more than `MAX_REPEATS` times.
            RuntimeError: an environment failed.
        """
        slots = list(slots)
        # None is taken before all are there: what came of a slot is void if its worker dies while others are waited for.
        while missing := [slot for slot in slots if slot not in self._outcomes]:
            self._receive(missing[0] % len(self._workers))
        return {slot: self._outcomes.pop(slot) for slot in slots}

    def _receive(self, number: int) -> None:
        try:
            outcomes = self._workers[number].receive()
        except WorkerDied as death:
            self._restart(number, death)
            return
        for outcome in outcomes:
            self._outcomes[outcome.slot] = outcome
            if outcome.image is None:
                del self._playing[outcome.slot]

    def _of_worker(self, number: int, requests: Sequence[_Request]) -> list[_Request]:
        return [request for request in requests if request.slot % len(self._workers) == number]

    def _restart(self, number: int, death: WorkerDied) -> None:
        """A new process in the place of a dead one, in which its trials begin again."""
        lost = self._of_worker(number, list(self._playing.values()))
        repeats = 1 + max(request.repeats for request in lost)
        if repeats > MAX_REPEATS:
            raise death
        logger.warning("%s; %d trials begin again in a new one", death, len(lost))
        self._workers[number].kill()
        self._workers[number] = self._make_worker()
        for request in lost:
            self._outcomes.pop(request.slot, None)
        self.submit([dataclasses.replace(request, repeats=request.repeats + 1) for request in lost])
