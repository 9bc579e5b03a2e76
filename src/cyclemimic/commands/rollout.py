# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic rollout`: a policy in closed loop in a simulator, and how often it succeeds."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemimic.commands.flags import add_action_steps_flag, add_policy_flags
from cyclemimic.verb_parser import VerbParser

if TYPE_CHECKING:
    import torch

    from cyclemimic import CycleMimicConfig, CycleMimicProcessor
    from cyclemimic.evaluation.environments.environment import Environment
    from cyclemimic.evaluation.environments.simulator import Simulator
    from cyclemimic.evaluation.even_batches import EvenBatchPolicy

logger = logging.getLogger(__name__)

_FILM_EVERY = 2
_DAY_S = 86_400
# Of these the result of an episode is independent.
_WITHOUT_EFFECT = ("output", "num_workers", "num_environments", "episodes", "clips", "timeout_s")
# How far a gripper may go beyond open and closed.
_GRIPPER_SLACK = 0.1
# How many scenes a seed has before those of the next begin; the demo's data is of scenes before the first.
_STATES_A_SEED = 500_000


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    from cyclemimic.evaluation.environments.simulator import FORMS

    parser = VerbParser(
        prog=prog,
        description="Runs a fine-tuned policy in a simulator, from camera images and instruction, and the robot's "
        "state where it was fine-tuned with it; writes OUTPUT/results.json, report.html, and a file an episode. A run "
        "that was stopped goes on with the same command, and one that has ended is extended by more --episodes or --clips.",
    )
    add_policy_flags(parser)
    parser.add_argument(
        "--env",
        required=True,
        metavar="NAME[:TASKS]",
        help=f"simulator: {', '.join(FORMS.values())} (a wrong name behind metaworld: lists all)",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make, or to go on with")
    parser.add_argument("--episodes", type=int, default=20, help="trials of each task (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="which scenes: the same seed gives the same episodes and results, whatever the number of workers and "
        "environments; LIBERO has its own fifty for every seed (default: %(default)s)",
    )
    parser.add_argument("--clips", type=int, default=2, help="trials of each task to film (default: %(default)s)")
    parser.add_argument("--instruction", help="what to tell the policy, where the environment has no words of its own")
    parser.add_argument(
        "--terminated_is",
        choices=("success", "failure"),
        help="gym only: what `terminated` means where the infos have no is_success or success",
    )
    add_action_steps_flag(parser)
    parser.add_argument(
        "--action_repeat",
        type=int,
        help="control steps an action lasts (default: 1; of Metaworld, as in the demonstrations, where the policy knows "
        "their frame rate)",
    )
    parser.add_argument(
        "--max_steps", type=int, help="actions after which a trial has failed (default: the simulator's)"
    )
    parser.add_argument("--image_size", type=int, help="pixels of the camera (default: the simulator's)")
    parser.add_argument("--num_workers", type=int, default=2, help="simulator processes (default: %(default)s)")
    parser.add_argument(
        "--num_environments",
        type=int,
        default=8,
        help="trials under way at once, half of them in the simulators while the policy looks at the others (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        default=4,
        help="rows of every call of the policy, padded where fewer trials are running: it alone changes the last digits "
        "of actions (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout_s",
        type=float,
        default=120.0,
        help="seconds of silence after which a simulator's process is started anew (default: %(default)s)",
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Runs the trials, writes what became of them, and returns a table of success rates."""
    from cyclemimic.commands.inputs import check_at_least_one, choose_action_steps
    from cyclemimic.commands.rollout_report import write_rollout_report
    from cyclemimic.evaluation.environments.simulator import open_simulator
    from cyclemimic.evaluation.intervals import success_rates
    from cyclemimic.evaluation.rollout import TrialResult, run_rollouts
    from cyclemimic.evaluation.rollout_folder import RolloutFolder

    names = (
        "episodes",
        "action_repeat",
        "image_size",
        "num_workers",
        "num_environments",
        "batch_size",
        "max_steps",
        "num_action_steps",
    )
    check_at_least_one(**{name: value for name in names if (value := getattr(arguments, name)) is not None})
    if min(arguments.seed, arguments.clips) < 0:
        raise ValueError(f"`seed` and `clips` must be at least 0, got {arguments.seed}, {arguments.clips}.")
    if not 0 < arguments.timeout_s <= _DAY_S:
        raise ValueError(f"`timeout_s` must be in (0, {_DAY_S}], got {arguments.timeout_s:g}.")
    simulator = open_simulator(arguments.env, arguments.image_size, arguments.instruction, arguments.terminated_is)
    trials = _make_trials(arguments, simulator)
    policy = _read_policy(arguments, simulator)
    action_repeat = arguments.action_repeat or _recorded_action_repeat(policy, simulator)
    _warn_of_rate(policy, simulator, action_repeat)
    acting: dict[str, Any] = {
        "max_steps": arguments.max_steps or _max_steps(simulator, action_repeat),
        "num_action_steps": choose_action_steps(arguments.num_action_steps, policy.config),
        "temporal_ensemble_coeff": policy.config.temporal_ensemble_coeff,
    }
    make_environment = _environment_maker(simulator, action_repeat, policy)
    fps = simulator.control_rate_hz / action_repeat / _FILM_EVERY
    settings = (
        _settings(arguments, str(policy.device)) | acting | {"action_repeat": action_repeat, "dataset": policy.dataset}
    )
    # An episode that asks what it is to terminate ends the run: none of those that are there did.
    folder = RolloutFolder(arguments.output, settings, fps, open_settings=("terminated_is",))
    finished = folder.finished(trials)
    pending = [trial for trial in trials if trial not in finished]
    if finished:
        logger.info(
            "%d of %d episodes are in %s from before, and are not played again; another `output` plays all",
            *(len(finished), len(trials), arguments.output),
        )
    if pending:
        make_environment(simulator.tasks[0]).close()  # says now what would fail in every trial
        acting_policy = _load_policy(arguments, policy)
        folder.start()
        run_rollouts(
            acting_policy,
            pending,
            make_environment,
            num_workers=arguments.num_environments if simulator.one_a_process else arguments.num_workers,
            num_environments=arguments.num_environments,
            film_every=_FILM_EVERY,
            use_robot_state=policy.config.state_dim is not None,
            on_result=folder.save,
            timeout_s=arguments.timeout_s,
            **acting,
        )
    finished = folder.finished(trials)
    rates = success_rates([TrialResult(trial, finished[trial]["success"]) for trial in trials])
    results = {"success": rates, "trials": [finished[trial] for trial in trials], "seconds": folder.seconds}
    numbers = {"episodes": arguments.episodes, "clips": arguments.clips}
    folder.write_results(results | {"arguments": settings | numbers})
    write_rollout_report(folder, results)
    return f"{format_table(rates)}\nSaved: {arguments.output}"


def _make_trials(arguments: argparse.Namespace, simulator: Simulator) -> list[Any]:
    from cyclemimic.evaluation.rollout import Trial

    most = simulator.num_states or _STATES_A_SEED
    if arguments.episodes > most:
        raise ValueError(f"`episodes` must be at most {most}, got {arguments.episodes}.")
    first_state = 0 if simulator.num_states else (arguments.seed + 1) * _STATES_A_SEED
    return [
        Trial(task, first_state + index, filmed=index < arguments.clips)
        for task in simulator.tasks
        for index in range(arguments.episodes)
    ]


@dataclass(frozen=True, eq=False)
class _Policy:
    """What is known of a policy before its weights are loaded."""

    config: CycleMimicConfig
    processor: CycleMimicProcessor
    dataset: str
    device: torch.device

    @property
    def statistics(self) -> dict[str, Any]:
        """Of the actions that it learned."""
        return self.processor.action_statistics[self.dataset]


def _read_policy(arguments: argparse.Namespace, simulator: Simulator) -> _Policy:
    """Raises `ValueError` unless the policy can act in the simulator."""
    from cyclemimic.checkpoints import choose_device, load_processor, read_finetuned_config

    device = choose_device(arguments.device)
    config = read_finetuned_config("policy", arguments.policy)
    if config.action_dim != simulator.action_dim:
        raise ValueError(
            f"`policy` must have actions of size {simulator.action_dim} for {arguments.env}, got {config.action_dim}."
        )
    if config.num_cameras > 1:
        raise ValueError(f"`policy` must see with one camera, as the simulators do, got one of {config.camera_names}.")
    if config.state_dim not in (None, simulator.state_dim):
        size = "" if simulator.state_dim is None else f" or one of size {simulator.state_dim}"
        raise ValueError(f"`policy` must read no robot state{size} for {arguments.env}, got {config.state_dim}.")
    processor = load_processor(arguments.policy)
    return _Policy(config, processor, processor.resolve_dataset(arguments.dataset), device)


def _load_policy(arguments: argparse.Namespace, policy: _Policy) -> EvenBatchPolicy:
    from cyclemimic.checkpoints import load_finetuned
    from cyclemimic.evaluation.even_batches import EvenBatchPolicy

    model = load_finetuned(arguments.policy, policy.device, arguments.dtype)
    return EvenBatchPolicy(model, policy.processor, policy.dataset, arguments.batch_size)


def _recorded_action_repeat(policy: _Policy, simulator: Simulator) -> int:
    """Control steps that an action of the demonstrations lasted; 1 where the policy does not know their frame rate."""
    if not simulator.repeats_actions:
        return 1
    fps = policy.statistics.get("fps", simulator.control_rate_hz)
    return max(1, round(simulator.control_rate_hz / fps))


def _warn_of_rate(policy: _Policy, simulator: Simulator, action_repeat: int) -> None:
    """Says where an action lasts another time than it did in the demonstrations: no success may come of that."""
    from cyclemimic.commands.inputs import is_same_rate

    fps = policy.statistics.get("fps")
    rate_hz = simulator.control_rate_hz / action_repeat
    if fps is not None and simulator.tells_rate and not is_same_rate(fps, rate_hz):
        logger.warning(
            "an action lasts %.3g s here, and lasted %.3g s in the demonstrations of %s; `action_repeat` is the control steps "
            "it lasts",
            *(1 / rate_hz, 1 / fps, policy.dataset),
        )


def _max_steps(simulator: Simulator, action_repeat: int) -> int:
    if simulator.max_steps is None:
        raise ValueError("`max_steps` must be given, as the environment names no end of an episode.")
    return max(1, simulator.max_steps // action_repeat)


def _environment_maker(simulator: Simulator, action_repeat: int, policy: _Policy) -> Callable[[str], Environment]:
    settings: dict[str, Any] = {"action_repeat": action_repeat}
    if simulator.accepts_gripper:
        settings["gripper_opens_at_one"] = _gripper_opens_at_one(policy)
    return partial(simulator.make_environment, **settings)


def _gripper_opens_at_one(policy: _Policy) -> bool:
    """
    Whether the demonstrations' gripper is 1 for open and 0 for closed, by OpenVLA's conventions, or -1 and 1, by LIBERO's: their
    range tells.

    Raises:
        ValueError: it is neither, and would be played closed, or the wrong way.
    """
    lowest, highest = (policy.statistics[name][-1] for name in ("q01", "q99"))
    opens_at_one = lowest > -_GRIPPER_SLACK
    width = 1 if opens_at_one else 2
    # One that hardly moves may be at either end. Near 0, it may also be one in metres.
    stays = highest == lowest or any(max(abs(lowest - end), abs(highest - end)) < _GRIPPER_SLACK for end in (-1, 1))
    too_little = not stays and highest - lowest < width / 2
    if lowest < -1 - _GRIPPER_SLACK or highest > 1 + _GRIPPER_SLACK or too_little:
        raise ValueError(
            "`policy` must have a gripper of 0, closed, to 1, open, or of -1, open, to 1, closed, got one of "
            f"{lowest:g} to {highest:g} in {policy.dataset}."
        )
    log, doubt = (logger.warning, ", which its range hardly tells") if stays else (logger.info, "")
    log(
        "the gripper of %s, from %g to %g, is taken to be open at %d%s",
        *(policy.dataset, lowest, highest, 1 if opens_at_one else -1, doubt),
    )
    return opens_at_one


def _settings(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """What decides the results: flags, and what the policy's files held, or of the Hub which commit."""
    from cyclemimic.hub.integrity import hash_files
    from cyclemimic.hub.names import public_name

    settings = {name: value for name, value in vars(arguments).items() if name not in _WITHOUT_EFFECT}
    commit = None if Path(arguments.policy).exists() else _hub_commit(arguments.policy)
    identity = {"policy_files": hash_files(Path(arguments.policy)), "policy_commit": commit}
    return settings | {"policy": public_name(arguments.policy), "device": device} | identity


def _hub_commit(policy: str) -> str | None:
    from transformers.utils.hub import cached_file, extract_commit_hash

    from cyclemimic.hub.names import load_pinned

    # A cached file lies in a folder of its commit's name.
    return extract_commit_hash(load_pinned(cached_file, policy, filename="config.json"), None)


def format_table(rates: dict[str, dict[str, float]]) -> str:
    """Success rates as text, a row a task, with Wilson's 95 % intervals."""
    from cyclemimic.evaluation.formatting import format_columns

    rows = [
        (task, f"{rate['successes']}/{rate['trials']}", f"{rate['rate']:.2f}", f"{rate['low']:.2f}-{rate['high']:.2f}")
        for task, rate in rates.items()
    ]
    return format_columns([("task", "successes", "rate", "95 % interval"), *rows])
