# SPDX-License-Identifier: Apache-2.0
"""Closed-loop rollouts: simulators in worker processes, one batched policy call for all that need an action."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from tqdm import tqdm

from cyclemimic.evaluation.environments.environment import Environment
from cyclemimic.evaluation.environments.pool import EnvironmentPool
from cyclemimic.evaluation.environments.worker import TIMEOUT_S, Act, EnvironmentWorker, Outcome, Reset
from cyclemimic.evaluation.policy import RolloutPolicy
from cyclemimic.models.cyclemimic.execution_cyclemimic import ActionChunkQueue


@dataclass(frozen=True)
class Trial:
    """One rollout to make: a task, the variation of its scene, and whether it is filmed."""

    task: str
    initial_state: int
    filmed: bool = False


@dataclass(eq=False)
class TrialResult:
    """What became of a trial; `frames`, each uint8 `(height, width, 3)`, where it was filmed."""

    trial: Trial
    success: bool = False
    num_steps: int = 0
    frames: list[np.ndarray] = field(default_factory=list)


def run_rollouts(
    policy: RolloutPolicy,
    trials: Sequence[Trial],
    make_environment: Callable[[str], Environment],
    max_steps: int,
    num_action_steps: int,
    num_workers: int = 2,
    film_every: int = 2,
    num_environments: int = 8,
    use_robot_state: bool = False,
    on_result: Callable[[TrialResult], None] | None = None,
    temporal_ensemble_coeff: float | None = None,
    timeout_s: float = TIMEOUT_S,
) -> list[TrialResult]:
    """
    Runs the trials, `num_environments` at a time, in two halves: while one half carries out its actions, the policy is
    called once for the other. A trial that ends makes room for the next; the trials of a worker that dies begin again in a
    new one. A scene is rendered only when the policy looks, every `num_action_steps` steps, and in filmed trials. The policy
    sees camera image and instruction, and nothing else unless it is a policy that reads the robot's state.

    Args:
        policy ([`RolloutPolicy`]): What acts.
        trials (`Sequence[Trial]`): What to run. A scene is built anew where an environment changes its task: each keeps its
            task while there are trials of it, then takes the task with the most trials left.
        make_environment (`Callable`): Task → [`Environment`]; must be importable in a new process.
        max_steps (`int`): Steps after which a trial has failed.
        num_action_steps (`int`): Actions of a chunk that are executed before the policy looks again.
        num_workers (`int`, *optional*, defaults to 2): Processes; results do not depend on it.
        film_every (`int`, *optional*, defaults to 2): Steps between two frames of a film.
        num_environments (`int`, *optional*, defaults to 8): Trials under way at once; half of them are the policy's
            largest batch.
        use_robot_state (`bool`, *optional*, defaults to `False`): Whether the policy takes the robot's states.
        on_result (`Callable`, *optional*): Called with every result as its trial ends.
        temporal_ensemble_coeff (`float`, *optional*): Instead, what all chunks of a trial say of a step is averaged
            ([`ActionChunkQueue`]); the policy then looks before every action, and `num_action_steps` must be 1.
        timeout_s (`float`, *optional*, defaults to 120): Silence after which a worker is given up.

    Returns:
        `list[TrialResult]`: In the order of `trials`.

    Raises:
        ValueError: a number below 1, or not 1 where chunks are averaged.
        SimulatorError: the simulator cannot run here.
        RuntimeError: workers died over one trial again and again, or its environment failed.
    """
    numbers = {"max_steps": max_steps, "num_action_steps": num_action_steps, "num_workers": num_workers}
    for name, number in {**numbers, "film_every": film_every, "num_environments": num_environments}.items():
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")
    if temporal_ensemble_coeff is not None and num_action_steps != 1:
        raise ValueError(f"`num_action_steps` must be 1 with `temporal_ensemble_coeff`, got {num_action_steps}.")
    results = [TrialResult(trial) for trial in trials]
    num_environments = min(num_environments, len(trials))
    make_worker = partial(EnvironmentWorker, make_environment, film_every, timeout_s, use_robot_state)
    with (
        EnvironmentPool(make_worker, min(num_workers, num_environments)) as pool,
        tqdm(total=len(trials), desc="rollout", unit="trial") as progress,
    ):
        execution = _Execution(num_action_steps, temporal_ensemble_coeff)
        rollouts = _Rollouts(policy, pool, _Pending(results), execution, max_steps, on_result)
        half = (num_environments + 1) // 2
        halves = [range(half), range(half, num_environments)]
        for slots in halves:
            rollouts.begin(slots)
        while rollouts.active:
            for slots in halves:
                progress.update(len(rollouts.turn(slots)))
    return results


class _Rollouts:
    """The trials under way: what the environments did with them, and what the policy does next."""

    def __init__(
        self,
        policy: RolloutPolicy,
        pool: EnvironmentPool,
        pending: _Pending,
        execution: _Execution,
        max_steps: int,
        on_result: Callable[[TrialResult], None] | None,
    ) -> None:
        self._policy, self._pool, self._pending, self._execution = policy, pool, pending, execution
        self._max_steps, self._on_result = max_steps, on_result
        self.active: dict[int, TrialResult] = {}
        """By slot."""

    def begin(self, slots: Iterable[int]) -> None:
        """Gives free slots their next trials."""
        requests = []
        for slot in slots:
            result = self._pending.take(slot)
            if result is not None:
                self.active[slot] = result
                requests.append(Reset(slot, result.trial.task, result.trial.initial_state, result.trial.filmed))
        self._pool.submit(requests)

    def turn(self, slots: Iterable[int]) -> list[TrialResult]:
        """Books what has become of the trials there, begins others where some have ended, and acts; returns the ended."""
        views = self._pool.collect([slot for slot in slots if slot in self.active])
        for slot, view in views.items():
            self._record(slot, view)
        finished = [slot for slot, view in views.items() if view.image is None]
        ended = [self.active.pop(slot) for slot in finished]
        if self._on_result is not None:
            for result in ended:
                self._on_result(result)
        self.begin(finished)
        self._act({slot: view for slot, view in views.items() if view.image is not None})
        return ended

    def _record(self, slot: int, view: Outcome) -> None:
        result = self.active[slot]
        if view.repeated:
            result.num_steps = 0
            result.frames.clear()
        if view.repeated or view.image is None:
            self._execution.forget(slot)
        result.success = view.success
        result.num_steps += view.num_steps
        result.frames.extend(view.frames)

    def _act(self, views: dict[int, Outcome]) -> None:
        """What the policy does where it is its turn."""
        if not views:
            return
        images = [view.image for view in views.values() if view.image is not None]
        states = [view.robot_state for view in views.values() if view.robot_state is not None]
        chunks = self._policy.predict(images, [view.instruction for view in views.values()], states or None)
        requests = []
        for slot, chunk in zip(views, chunks, strict=True):
            actions, steps_left = self._execution.choose(slot, chunk), self._max_steps - self.active[slot].num_steps
            requests.append(Act(slot, actions[:steps_left], last=steps_left <= len(actions)))
        self._pool.submit(requests)


class _Pending:
    """The trials to come, by task, and which task every slot played last."""

    def __init__(self, results: Sequence[TrialResult]) -> None:
        self._by_task: dict[str, deque[TrialResult]] = {}
        for result in results:
            self._by_task.setdefault(result.trial.task, deque()).append(result)
        self._last_task: dict[int, str] = {}

    def take(self, slot: int) -> TrialResult | None:
        """The slot's next trial: of the task it has the scene of, else of the one with most left, the earlier of equals."""
        task = self._last_task.get(slot)
        if task not in self._by_task:
            task = max(self._by_task, key=lambda task: len(self._by_task[task]), default=None)
        if task is None:
            return None
        self._last_task[slot] = task
        result = self._by_task[task].popleft()
        if not self._by_task[task]:
            del self._by_task[task]
        return result


class _Execution:
    """Which of the predicted actions each trial carries out before the policy looks again."""

    def __init__(self, num_action_steps: int, temporal_ensemble_coeff: float | None) -> None:
        self.num_action_steps, self.temporal_ensemble_coeff = num_action_steps, temporal_ensemble_coeff
        # The chunks of the trials under way, by slot.
        self._queues: dict[int, ActionChunkQueue] = {}

    def choose(self, slot: int, chunk: np.ndarray) -> np.ndarray:
        """Of a chunk `(T, A)` that the policy has just predicted, the actions `(n, A)` to carry out."""
        if self.temporal_ensemble_coeff is None:
            return chunk[: self.num_action_steps]
        queue = self._queues.setdefault(slot, ActionChunkQueue(1, self.temporal_ensemble_coeff))
        queue.push(torch.from_numpy(chunk)[None])
        return queue.pop(1).numpy()

    def forget(self, slot: int) -> None:
        """Another trial begins there, or the same once more."""
        self._queues.pop(slot, None)
