# SPDX-License-Identifier: Apache-2.0
"""
Episodes a minute of closed-loop rollouts: eight environments in two processes, one half of them moving while the policy looks
at the other, against one environment in one process.

    python measure.py --policy demo_output/policy --env metaworld:drawer-open-v3

One by one is played in two ways: with batches of one, the fastest, and with the batches that eight at once have, which is what
`cyclemimic rollout --num_environments 1` does. The latter must come to the same results, which is checked. All take turns, and
the medians of the rounds are printed, with the processor's seconds an episode of the policy and of the simulators, which other
work on the machine hardly changes, and how many times as fast these seconds allow eight at once to be.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
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
    arguments = parse()
    # Of eight environments, one half is the policy's batch.
    ways = [
        Way("one by one, batches of one", 1, 1, 1),
        Way("one by one, batches of four", 1, 1, 4),
        Way("eight at once, two processes", 8, 2, 4),
    ]
    try:
        play = make_player(arguments)
    except ValueError as error:
        raise SystemExit(f"measure.py: {error}") from error
    for _ in range(arguments.rounds):
        for way in ways:
            play(way)
    print(report(*ways, cores=len(os.sched_getaffinity(0))))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="demo_output/policy")
    parser.add_argument("--env", default="metaworld:drawer-open-v3")
    parser.add_argument(
        "--episodes", type=int, default=160, help="in all, shared out among the tasks (default: %(default)s)"
    )
    parser.add_argument("--action_repeat", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def make_player(arguments: argparse.Namespace) -> Callable[[Way], None]:
    """
    What plays all episodes in one way, and notes what that took.

    Raises:
        ValueError: there is no such policy or simulator, or the policy cannot act.
    """
    # Here, because the simulator's processes import this file again, and need none of it.
    from cyclemimic.checkpoints import choose_device, load_finetuned, load_processor, read_finetuned_config
    from cyclemimic.evaluation.environments.simulator import open_simulator
    from cyclemimic.evaluation.even_batches import EvenBatchPolicy
    from cyclemimic.evaluation.rollout import Trial, run_rollouts

    read_finetuned_config("policy", arguments.policy)
    processor, model = load_processor(arguments.policy), load_finetuned(arguments.policy, choose_device("cpu"))
    simulator = open_simulator(arguments.env)
    num_tasks = len(simulator.tasks)
    trials = [Trial(simulator.tasks[index % num_tasks], 500_000 + index) for index in range(arguments.episodes)]
    roll = partial(
        run_rollouts,
        trials=sorted(trials, key=lambda trial: simulator.tasks.index(trial.task)),
        make_environment=partial(simulator.make_environment, action_repeat=arguments.action_repeat),
        max_steps=max(1, simulator.max_steps // arguments.action_repeat),
        num_action_steps=max(1, processor.chunk_size // 2),
        use_robot_state=model.config.state_dim is not None,
    )

    def play(way: Way) -> None:
        policy = TimedPolicy(EvenBatchPolicy(model, processor, processor.resolve_dataset(), way.batch_size))
        before, start = simulators_seconds(), time.perf_counter()
        results = roll(policy, num_workers=way.num_workers, num_environments=way.num_environments)
        way.seconds.append(time.perf_counter() - start)
        way.policy_seconds.append(policy.seconds)
        way.simulator_seconds.append(simulators_seconds() - before)
        way.results = [(result.trial, result.success, result.num_steps) for result in results]

    return play


def simulators_seconds() -> float:
    """Processor's seconds of the processes that have ended, their start included."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(single: Way, even: Way, at_once: Way, cores: int) -> str:
    """A table of the ways, and how much faster than either way one by one eight at once are, and could be."""
    if even.results != at_once.results:
        raise SystemExit("the results differ")
    num_trials = len(at_once.results)
    same = sum(one == other for one, other in zip(single.results, at_once.results, strict=True))
    lines = [
        f"same results: {sum(success for _, success, _ in at_once.results)} of {num_trials} succeed",
        f"with batches of one, {same} of {num_trials} episodes come to the same",
        "",
        "| | episodes a minute | processor's s an episode: policy | simulators |",
        "|---|---|---|---|",
        *(row(way, num_trials) for way in (single, even, at_once)),
        "",
        f"| eight at once, against | times as fast | lowest to highest | at most, on {cores} cores |",
        "|---|---|---|---|",
        *(comparison(at_once, plain, cores) for plain in (single, even)),
    ]
    return "\n".join(lines)


def row(way: Way, num_trials: int) -> str:
    policy, simulators = processor_seconds(way)
    per_minute = 60 * num_trials / statistics.median(way.seconds)
    return f"| {way.name} | {per_minute:.0f} | {policy / num_trials:.2f} | {simulators / num_trials:.2f} |"


def comparison(at_once: Way, plain: Way, cores: int) -> str:
    ratios = [before / seconds for before, seconds in zip(plain.seconds, at_once.seconds, strict=True)]
    return (
        f"| {plain.name} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
        f"| {bound(at_once, plain, cores):.2f} |"
    )


def bound(at_once: Way, plain: Way, cores: int) -> float:
    """
    How many times as fast as one by one, where policy and simulator wait for each other, the same work can be: neither the
    policy, which is one thread, nor the simulators' processes, nor the cores can be busier than all the time.
    """
    policy, simulators = processor_seconds(at_once)
    shortest = max(policy, simulators / at_once.num_workers, (policy + simulators) / cores)
    return sum(processor_seconds(plain)) / shortest


def processor_seconds(way: Way) -> tuple[float, float]:
    """Of the policy and of the simulators, in a round."""
    return statistics.median(way.policy_seconds), statistics.median(way.simulator_seconds)


if __name__ == "__main__":
    main()
