# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic rollout`: a policy in closed loop in a simulator, and how often it succeeds."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclemimic.evaluation.rollout import ChunkPolicy, TrialResult

_FILM_EVERY = 2


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Runs a fine-tuned policy in a simulator, from camera images and instruction, and the robot's "
        "state where it was fine-tuned with it; writes OUTPUT/results.json and films.",
    )
    parser.add_argument("--policy", required=True, metavar="PATH", help="checkpoint of a fine-tuned policy")
    parser.add_argument(
        "--env",
        required=True,
        metavar="NAME:TASK[,TASK...]",
        help="simulator and tasks, e.g. metaworld:drawer-open-v3",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--episodes", type=int, default=20, help="trials of each task (default: %(default)s)")
    parser.add_argument(
        "--first_state",
        type=int,
        default=500_000,
        metavar="S",
        help="trials start in variations S, S+1, ... of the scene; the demo's data is of others (default: %(default)s)",
    )
    parser.add_argument("--clips", type=int, default=2, help="trials of each task to film (default: %(default)s)")
    parser.add_argument("--dataset", help="by whose action statistics to act, where the policy has several")
    parser.add_argument(
        "--num_action_steps",
        type=int,
        help="actions carried out before the policy looks again (default: half a chunk)",
    )
    parser.add_argument(
        "--action_repeat",
        type=int,
        help="control steps an action lasts (default: as in the demonstrations, where the policy knows their frame rate)",
    )
    parser.add_argument(
        "--max_steps", type=int, help="actions after which a trial has failed (default: 2.5 s of them)"
    )
    parser.add_argument("--image_size", type=int, default=128, help="pixels of the camera (default: %(default)s)")
    parser.add_argument("--num_workers", type=int, default=2, help="simulator processes (default: %(default)s)")
    parser.add_argument("--device", help="torch device, by default the GPU where there is one")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Runs the trials, writes what became of them, and returns a table of success rates."""
    from cyclemimic.commands.inputs import check_at_least_one
    from cyclemimic.data.atomic_folder import AtomicFolder
    from cyclemimic.evaluation.environments.metaworld import MAX_STEPS, MetaworldEnvironment
    from cyclemimic.evaluation.rollout import Trial, run_rollouts, success_rates

    tasks = parse_tasks(arguments.env)
    names = ("episodes", "action_repeat", "image_size", "num_workers", "max_steps", "num_action_steps")
    check_at_least_one(**{name: value for name in names if (value := getattr(arguments, name)) is not None})
    if min(arguments.first_state, arguments.clips) < 0:
        raise ValueError(
            f"`first_state` and `clips` must be at least 0, got {arguments.first_state}, {arguments.clips}."
        )
    policy = _load_policy(arguments)
    action_repeat = arguments.action_repeat or _recorded_action_repeat(policy)
    make_environment = partial(MetaworldEnvironment, image_size=arguments.image_size, action_repeat=action_repeat)
    for task in tasks:
        make_environment(task).close()  # says now what would fail in every trial
    trials = [
        Trial(task, arguments.first_state + index, filmed=index < arguments.clips)
        for task in tasks
        for index in range(arguments.episodes)
    ]
    folder = AtomicFolder(arguments.output)
    folder.start()
    try:
        start = time.perf_counter()
        results = run_rollouts(
            policy,
            trials,
            make_environment,
            max_steps=arguments.max_steps or max(1, MAX_STEPS // action_repeat),
            num_action_steps=arguments.num_action_steps or max(1, policy.processor.chunk_size // 2),
            num_workers=arguments.num_workers,
            film_every=_FILM_EVERY,
            use_robot_state=policy.model.config.state_dim is not None,
        )
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
        settings |= {"action_repeat": action_repeat, "dataset": policy.dataset}
        rates = success_rates(results)
        report = {
            "success": rates,
            "trials": [_describe(result, folder.partial, action_repeat) for result in results],
            "seconds": time.perf_counter() - start,
            "arguments": settings,
        }
        (folder.partial / "results.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
        folder.commit()
    finally:
        folder.discard()
    return f"{format_table(rates)}\nSaved: {arguments.output}"


def parse_tasks(env: str) -> list[str]:
    """`"metaworld:drawer-open-v3,reach-v3"` → its tasks.

    Raises:
        ValueError: another simulator, no task, or one that it does not have.
    """
    from cyclemimic.evaluation.environments.metaworld import TASKS

    simulator, _, names = env.partition(":")
    if simulator != "metaworld":
        raise ValueError(f"`env` must be metaworld:TASK[,TASK...], got {env!r}.")
    tasks = list(dict.fromkeys(names.split(",")))
    unknown = [task for task in tasks if task not in TASKS]
    if unknown:
        raise ValueError(f"`env` must name tasks out of {sorted(TASKS)}, got {unknown[0]!r}.")
    return tasks


def _load_policy(arguments: argparse.Namespace) -> ChunkPolicy:
    from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
    from cyclemimic.commands.inputs import choose_device, read_config
    from cyclemimic.evaluation.rollout import ChunkPolicy

    device = choose_device(arguments.device)
    config = read_config("policy", arguments.policy, "cyclemimic")
    # The action decoder of a pretraining checkpoint would be random.
    if CycleMimicForActionPrediction.__name__ not in (config.architectures or []):
        raise ValueError(f"`policy` must be fine-tuned, got {arguments.policy} of {config.architectures}.")
    if config.action_dim != 4:
        raise ValueError(f"`policy` must have actions of size 4 for Metaworld, got {config.action_dim}.")
    if config.num_cameras > 1:
        raise ValueError(f"`policy` must see with one camera, as Metaworld has, got one of {config.camera_names}.")
    if config.state_dim not in (None, 4):
        raise ValueError(
            f"`policy` must read no robot state or one of size 4 (hand and gripper) for Metaworld, got {config.state_dim}."
        )
    processor = CycleMimicProcessor.from_pretrained(arguments.policy)
    dataset = processor.resolve_dataset(arguments.dataset)
    model = CycleMimicForActionPrediction.from_pretrained(arguments.policy).to(device)
    return ChunkPolicy(model, processor, dataset)


def _recorded_action_repeat(policy: ChunkPolicy) -> int:
    """Control steps that an action of the demonstrations lasted; 1 where the policy does not know their frame rate."""
    from cyclemimic.evaluation.environments.metaworld import CONTROL_RATE_HZ

    fps = policy.processor.action_statistics[policy.dataset].get("fps", CONTROL_RATE_HZ)
    return max(1, round(CONTROL_RATE_HZ / fps))


def _describe(result: TrialResult, folder: Path, action_repeat: int) -> dict[str, Any]:
    """A trial for `results.json`; its film, where there is one, is written."""
    from cyclemimic.data import encode_video
    from cyclemimic.evaluation.environments.metaworld import CONTROL_RATE_HZ

    trial = result.trial
    described = {
        "task": trial.task,
        "initial_state": trial.initial_state,
        "success": result.success,
        "num_steps": result.num_steps,
    }
    if not result.frames:
        return described
    film = Path("clips") / f"{trial.task}_{trial.initial_state}.mp4"
    (folder / film).parent.mkdir(exist_ok=True)
    encode_video(folder / film, result.frames, fps=CONTROL_RATE_HZ / action_repeat / _FILM_EVERY)
    return {**described, "film": str(film)}


def format_table(rates: dict[str, dict[str, float]]) -> str:
    """Success rates as text, a row a task, with Wilson's 95 % intervals."""
    rows = [
        (task, f"{rate['successes']}/{rate['trials']}", f"{rate['rate']:.2f}", f"{rate['low']:.2f}-{rate['high']:.2f}")
        for task, rate in rates.items()
    ]
    table = [("task", "successes", "rate", "95 % interval"), *rows]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table)
