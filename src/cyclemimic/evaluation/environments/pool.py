# SPDX-License-Identifier: Apache-2.0
"""Worker processes with environments in numbered slots; one that dies is started again, and its trials with it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence

from cyclemimic.evaluation.environments.worker import Act, EnvironmentWorker, Outcome, Reset, WorkerDied

logger = logging.getLogger(__name__)

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

    def __enter__(self) -> EnvironmentPool:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.__exit__(*error)

    def exchange(self, requests: Sequence[Reset | Act]) -> dict[int, Outcome]:
        """
        Sends every request before it waits for the first answer, so that the workers run side by side.

        Returns:
            `dict[int, Outcome]`: By slot. Those of a worker that died have a `repeated` outcome each, asked for or not.

        Raises:
            WorkerDied: over one trial, more than `MAX_REPEATS` times.
            RuntimeError: an environment failed.
        """
        self._playing |= {request.slot: request for request in requests if isinstance(request, Reset)}
        asked = {number: self._of_worker(number, requests) for number in range(len(self._workers))}
        asked = {number: batch for number, batch in asked.items() if batch}
        outcomes: dict[int, Outcome] = {}
        while asked:
            for number, batch in asked.items():
                self._workers[number].send(batch)
            again: dict[int, list[Reset | Act]] = {}
            for number in asked:
                try:
                    outcomes |= {outcome.slot: outcome for outcome in self._workers[number].receive()}
                except WorkerDied as death:
                    again[number] = self._restart(number, death)
            asked = again
        for slot, outcome in outcomes.items():
            if outcome.image is None:
                del self._playing[slot]
        return outcomes

    def _of_worker(self, number: int, requests: Sequence[Reset | Act]) -> list[Reset | Act]:
        return [request for request in requests if request.slot % len(self._workers) == number]

    def _restart(self, number: int, death: WorkerDied) -> list[Reset | Act]:
        """A new process in the place of a dead one; what it must be asked to begin its trials again."""
        lost = self._of_worker(number, list(self._playing.values()))
        repeats = 1 + max(request.repeats for request in lost)
        if repeats > MAX_REPEATS:
            raise death
        logger.warning("%s; %d trials begin again in a new one", death, len(lost))
        self._workers[number].kill()
        self._workers[number] = self._make_worker()
        again = [dataclasses.replace(request, repeats=request.repeats + 1) for request in lost]
        self._playing |= {request.slot: request for request in again}
        return again
