# SPDX-License-Identifier: Apache-2.0
"""Requests of several clients in one call of the policy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from .benchmark_format import Observation

logger = logging.getLogger(__name__)

_STOPS = "the server stops"
_Request = tuple[Observation, "asyncio.Future[np.ndarray]"]


class ServedPolicy(Protocol):
    """Anything that maps camera images and instructions to action chunks, as [`~evaluation.policy.ChunkPolicy`] does."""

    def predict(
        self, images: list, instructions: list[str], robot_states: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """Images and instructions, and states where the policy reads them → actions `(len(images), T, A)`."""


class PolicyBatcher:
    """
    Calls the policy for all who wait, in a thread of its own, so that others are heard meanwhile.

    Args:
        policy ([`ServedPolicy`]): What acts.
        max_batch_size (`int`): Observations of a call.
        max_wait_s (`float`): How long the first of a batch waits for others, at most.
    """

    def __init__(self, policy: ServedPolicy, max_batch_size: int, max_wait_s: float) -> None:
        self.policy, self.max_batch_size, self.max_wait_s = policy, max_batch_size, max_wait_s
        self.num_calls = self.num_observations = 0
        self.num_clients = max_batch_size
        """How many may ask at once: a batch of them all waits for nobody. Who knows better sets it."""
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._is_over = False

    async def predict(self, observation: Observation) -> np.ndarray:
        """The policy's action chunk `(T, A)` for one observation.

        Raises:
            RuntimeError: the policy failed, or is not asked any more.
        """
        if self._is_over:
            raise RuntimeError(_STOPS)
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        await self._waiting.put((observation, answer))
        return await answer

    async def run(self) -> None:
        """Answers until it is cancelled; who then waits is refused."""
        self._is_over = False
        thread = _PolicyThread(self._predict)
        batch: list[_Request] = []
        try:
            while True:
                batch = []
                await self._gather(batch)
                _answer(batch, await thread.call([observation for observation, _ in batch]))
        finally:
            self._is_over = True
            thread.end()
            while not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            _answer(batch, [RuntimeError(_STOPS) for _ in batch])

    async def _gather(self, batch: list[_Request]) -> None:
        """Adds those who ask to `batch`, where they are found if this is cancelled."""
        batch.append(await self._waiting.get())
        deadline = asyncio.get_running_loop().time() + self.max_wait_s
        while len(batch) < min(self.max_batch_size, self.num_clients):
            try:
                async with asyncio.timeout_at(deadline):
                    batch.append(await self._waiting.get())
            except TimeoutError:
                break

    def _predict(self, observations: Sequence[Observation]) -> list[np.ndarray | RuntimeError]:
        """A chunk or an error an observation; those of a batch that fails are tried one by one, as one may be to blame."""
        try:
            return list(self._call_policy(observations))
        # Whatever it is, the server lives on, and those who wait must hear of it.
        except Exception as error:
            if len(observations) == 1:
                logger.exception("the policy failed")
                return [RuntimeError(f"the policy failed: {error}")]
        return [result for observation in observations for result in self._predict([observation])]

    def _call_policy(self, observations: Sequence[Observation]) -> np.ndarray:
        self.num_calls += 1
        images = [seen.images if len(seen.images) > 1 else seen.images[0] for seen in observations]
        instructions = [seen.instruction for seen in observations]
        states = [seen.robot_state for seen in observations if seen.robot_state is not None]
        chunks = self.policy.predict(images, instructions, states or None)
        if np.ndim(chunks) != 3 or len(chunks) != len(observations):
            raise ValueError(f"{len(observations)} observations became actions of shape {np.shape(chunks)}")
        self.num_observations += len(observations)
        return chunks


class _PolicyThread:
    """One thread for all calls of the policy, which ends with the process: nobody waits for a call that hangs."""

    def __init__(self, function: Callable[[Sequence[Observation]], list[np.ndarray | RuntimeError]]) -> None:
        self._function = function
        self._calls: SimpleQueue[tuple[Sequence[Observation], asyncio.Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._work, name="policy", daemon=True).start()

    async def call(self, observations: Sequence[Observation]) -> list[np.ndarray | RuntimeError]:
        """What the function, which raises nothing, makes of the observations."""
        result: asyncio.Future[list[np.ndarray | RuntimeError]] = asyncio.get_running_loop().create_future()
        self._calls.put((observations, result))
        return await result

    def end(self) -> None:
        """Lets the thread go, when it comes back from its call."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            observations, result = call
            value = self._function(observations)
            # The server may have ended meanwhile, and its loop with it.
            with contextlib.suppress(RuntimeError):
                result.get_loop().call_soon_threadsafe(_set_result, result, value)


def _set_result(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():  # as it is where nobody waits any more
        future.set_result(value)


def _answer(batch: Sequence[_Request], results: Sequence[np.ndarray | RuntimeError]) -> None:
    """A result each, but for those whose client has gone."""
    for (_, answer), result in zip(batch, results, strict=True):
        if answer.done():
            continue
        if isinstance(result, RuntimeError):
            answer.set_exception(result)
        else:
            answer.set_result(result)
