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
from cyclemimic.evaluation.environments.worker import Act, EnvironmentWorker, Outcome, Reset
from cyclemimic.evaluation.intervals import wilson_interval
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
    """What became of a trial; `frames`, uint8 `(n, height, width, 3)`, where it was filmed."""

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
    description: str = "rollout",
    num_environments: int = 8,
    use_robot_state: bool = False,
    on_result: Callable[[TrialResult], None] | None = None,
    temporal_ensemble_coeff: float | None = None,
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
        description (`str`, *optional*): Label of the progress bar.
        num_environments (`int`, *optional*, defaults to 8): Trials under way at once; half of them are the policy's
            largest batch.
        use_robot_state (`bool`, *optional*, defaults to `False`): Whether the policy takes the robot's states.
        on_result (`Callable`, *optional*): Called with every result as its trial ends.
        temporal_ensemble_coeff (`float`, *optional*): Instead, what all chunks of a trial say of a step is averaged
            ([`ActionChunkQueue`]); the policy then looks before every action, and `num_action_steps` must be 1.

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
    execution = _Execution(num_action_steps, temporal_ensemble_coeff)
    results = [TrialResult(trial) for trial in trials]
    pending = _Pending(results)
    num_environments = min(num_environments, len(trials))
    make_worker = partial(EnvironmentWorker, make_environment, film_every, use_robot_state=use_robot_state)
    with (
        EnvironmentPool(make_worker, min(num_workers, num_environments)) as pool,
        tqdm(total=len(trials), desc=description, unit="trial") as progress,
    ):
        active: dict[int, TrialResult] = {}
        half = (num_environments + 1) // 2
        halves = [range(half), range(half, num_environments)]
        for slots in halves:
            pool.submit(_assign(slots, active, pending))
        while active:
            for slots in halves:
                views = pool.collect([slot for slot in slots if slot in active])
                finished = _record(views, active)
                execution.forget([*finished, *(slot for slot, view in views.items() if view.repeated)])
                for slot in finished:
                    if on_result is not None:
                        on_result(active[slot])
                    del active[slot]
                progress.update(len(finished))
                pool.submit(_assign(finished, active, pending))
                looking = {slot: view for slot, view in views.items() if view.image is not None}
                if looking:
                    pool.submit(_act(policy, looking, active, max_steps, execution, use_robot_state))
    return results


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

    def forget(self, slots: Iterable[int]) -> None:
        """Other trials begin there, or the same once more."""
        for slot in slots:
            self._queues.pop(slot, None)


def _assign(free: Iterable[int], active: dict[int, TrialResult], pending: _Pending) -> list[Reset | Act]:
    """Gives free slots their next trials."""
    requests: list[Reset | Act] = []
    for slot in free:
        result = pending.take(slot)
        if result is not None:
            active[slot] = result
            requests.append(Reset(slot, result.trial.task, result.trial.initial_state, result.trial.filmed))
    return requests


def _act(
    policy: RolloutPolicy,
    views: dict[int, Outcome],
    active: dict[int, TrialResult],
    max_steps: int,
    execution: _Execution,
    use_robot_state: bool,
) -> list[Act]:
    """What the policy does where it is its turn."""
    seen = list(views.values())
    predicted = policy.predict(
        [view.image for view in seen if view.image is not None],
        [view.instruction for view in seen],
        [view.robot_state for view in seen if view.robot_state is not None] if use_robot_state else None,
    )
    chunks = [execution.choose(slot, chunk) for slot, chunk in zip(views, predicted, strict=True)]
    steps_left = [max_steps - active[slot].num_steps for slot in views]
    return [
        Act(slot, chunk[:steps], last=steps <= len(chunk))
        for slot, chunk, steps in zip(views, chunks, steps_left, strict=True)
    ]


def _record(outcomes: dict[int, Outcome], active: dict[int, TrialResult]) -> list[int]:
    """Books what the environments did; returns the slots whose trial has ended."""
    finished = []
    for slot, outcome in sorted(outcomes.items()):
        result = active[slot]
        if outcome.repeated:
            result.num_steps = 0
            result.frames.clear()
        result.success = outcome.success
        result.num_steps += outcome.num_steps
        result.frames.extend(outcome.frames)
        if outcome.image is None:
            finished.append(slot)
    return finished


def success_rates(results: Sequence[TrialResult]) -> dict[str, dict[str, float]]:
    """
    Success a task, and over all trials as `"mean"`.

    Returns:
        `dict`: task → `{"successes", "trials", "rate", "low", "high"}`, the last two Wilson's 95 % interval. Every task
        should have as many trials, then the rate over all trials is the mean of the tasks' rates.
    """
    by_task: dict[str, list[bool]] = {}
    for result in results:
        by_task.setdefault(result.trial.task, []).append(result.success)
    by_task["mean"] = [result.success for result in results]
    rates = {}
    for task, outcomes in by_task.items():
        successes, trials = sum(outcomes), len(outcomes)
        low, high = wilson_interval(successes, trials)
        rates[task] = {
            "successes": successes,
            "trials": trials,
            "rate": successes / trials,
            "low": low,
            "high": high,
        }
    return rates
