# SPDX-License-Identifier: Apache-2.0
"""
Episodes a minute of closed-loop rollouts: eight environments in two processes, one half of them moving while the policy looks
at the other, against one environment in one process.

    python measure.py --policy demo_output/policy --env metaworld:drawer-open-v3

They take turns, and the medians of the rounds are printed, with the processor's seconds an episode of the policy and of the
simulators, which other work on the machine does not change. Batches of one size must come to the same results, which is
checked.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass
class Way:
    """A way to run the rollouts, and what its rounds took."""

    name: str
    num_environments: int
    num_workers: int
    batch_size: int
    seconds: list[float] = field(default_factory=list)
    policy_seconds: list[float] = field(default_factory=list)
    simulator_seconds: list[float] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)


class TimedPolicy:
    """A policy that counts the processor's seconds it takes."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.seconds = policy, 0.0

    def predict(self, *seen: Any) -> Any:
        start = time.process_time()
        actions = self.policy.predict(*seen)
        self.seconds += time.process_time() - start
        return actions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="demo_output/policy")
    parser.add_argument("--env", default="metaworld:drawer-open-v3")
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--action_repeat", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    # Here, because the simulator's processes import this file again, and need none of it.
    from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
    from cyclemimic.evaluation.environments.simulator import open_simulator
    from cyclemimic.evaluation.even_batches import EvenBatchPolicy
    from cyclemimic.evaluation.rollout import Trial, run_rollouts

    processor = CycleMimicProcessor.from_pretrained(arguments.policy)
    model = CycleMimicForActionPrediction.from_pretrained(arguments.policy)
    simulator = open_simulator(arguments.env)
    trials = [Trial(task, 500_000 + index) for index in range(arguments.episodes) for task in simulator.tasks[:1]]
    ways = [
        Way("one by one, batches of one", 1, 1, 1),
        Way("one by one, batches of four", 1, 1, 4),
        Way("eight at once, two processes", 8, 2, 4),
    ]
    for _ in range(arguments.rounds):
        for way in ways:
            policy = TimedPolicy(EvenBatchPolicy(model, processor, processor.resolve_dataset(), way.batch_size))
            before, start = simulators_seconds(), time.perf_counter()
            results = run_rollouts(
                policy,
                trials,
                partial(simulator.make_environment, action_repeat=arguments.action_repeat),
                max_steps=simulator.max_steps // arguments.action_repeat,
                num_action_steps=max(1, processor.chunk_size // 2),
                num_workers=way.num_workers,
                num_environments=way.num_environments,
                use_robot_state=model.config.state_dim is not None,
            )
            way.seconds.append(time.perf_counter() - start)
            way.policy_seconds.append(policy.seconds)
            way.simulator_seconds.append(simulators_seconds() - before)
            way.results = [(result.trial, result.success, result.num_steps) for result in results]
    if ways[1].results != ways[2].results:
        raise SystemExit("the results differ")
    print(f"same results: {sum(success for _, success, _ in ways[2].results)} of {len(trials)} succeed")
    same = sum(one == other for one, other in zip(ways[0].results, ways[2].results))
    print(f"with batches of one, {same} of {len(trials)} episodes come to the same")
    for way in ways:
        print_row(way, ways[0], len(trials))


def simulators_seconds() -> float:
    """Processor's seconds of the processes that have ended, their start included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def print_row(way: Way, plain: Way, num_trials: int) -> None:
    ratios = [before / seconds for before, seconds in zip(plain.seconds, way.seconds, strict=True)]
    per_minute = 60 * num_trials / statistics.median(way.seconds)
    policy, simulators = (statistics.median(each) / num_trials for each in (way.policy_seconds, way.simulator_seconds))
    print(
        f"{way.name:<30} {per_minute:6.1f} episodes a minute, {statistics.median(ratios):.2f} times as fast "
        f"({min(ratios):.2f} to {max(ratios):.2f}); an episode {policy:.2f} s of policy, {simulators:.2f} s of simulator"
    )


if __name__ == "__main__":
    main()
