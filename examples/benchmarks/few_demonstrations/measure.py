# SPDX-License-Identifier: Apache-2.0
"""
What latent pretraining is worth when demonstrations are few: success in closed loop on ten tasks of Metaworld.

    python measure.py --output few --rows none-5 genie-5 ac3-5 --seeds 0 1 2

Every row starts from the same untrained policy, sees the same demonstrations for as many steps, and acts in the same scenes,
which no training saw. Rows differ in what the policy was pretrained on, in how many demonstrations of a task it gets, and in
how actions are read from it. A stage that is done is not done again, and rollouts go on where they were stopped. Writes
`table.md`, and `results.json` with the success of every task.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from success import Outcomes, mean_success, paired_difference, rate, read_outcomes, task_success

from cyclemimic.demo.recording import Shot, record_shots
from cyclemimic.demo.settings import DemoSettings
from cyclemimic.demo.stage_records import keep_run
from cyclemimic.evaluation.environments.metaworld import TASKS as INSTRUCTIONS

TASKS = (
    "button-press-topdown-v3",
    "button-press-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "door-open-v3",
    "window-open-v3",
    "window-close-v3",
    "faucet-open-v3",
    "faucet-close-v3",
    "plate-slide-v3",
)
# Numbers of variations of a scene; the evaluation's begin at 500,000. Failed experts are filmed again in between.
FIRST_DEMONSTRATION, FIRST_VIDEO = 1_000, 100_000
IMAGE_SIZE = 128
OTHER_BODIES = "other-bodies"
NO_VIDEOS = "no-videos"
# Seconds between the frames of a pair, and the least of it at an episode's end. The arms move more slowly.
INTERVALS = {"metaworld": ("0.15", "0.05"), OTHER_BODIES: ("0.8", "0.8")}
CYCLE_OFF = {"cycle_weight": 0, "adversarial_weight": 0}
# Arguments by which the rows of one folder may differ, and those that only rows of other bodies have.
FREE, OF_ARMS = {"output", "rows", "seeds", "evaluation_seed"}, {"arms", "arms_tokenizer"}


@dataclass(frozen=True)
class Row:
    """
    What a policy is pretrained on (`none`, `genie`, `ac3`, `other-bodies`; of `no-videos`, not even its labels come from
    videos), demonstrations a task, what actions are read from, and how many times as long it is fine-tuned.
    """

    pretraining: str
    demonstrations: int
    action_decoding: str = "act"
    times_as_long: int = 1

    @property
    def setting(self) -> str:
        """What rows that are compared have in common, as the end of their names."""
        decoding = "" if self.action_decoding == "act" else f"-{self.action_decoding}"
        return f"{self.demonstrations}{decoding}"

    @property
    def name(self) -> str:
        return f"{self.pretraining}-{self.setting}"

    def finetuning_steps(self, steps: int) -> int:
        """Of this row, where the others take `steps`."""
        return self.times_as_long * steps


ROWS = {
    row.name: row
    for row in (
        *(
            Row(pretraining, number)
            for number in (5, 1, 20)
            for pretraining in (NO_VIDEOS, "none", "genie", "ac3", OTHER_BODIES)
        ),
        *(Row(pretraining, 5, "latent") for pretraining in ("none", "genie", "ac3", OTHER_BODIES)),
        Row("ac3", 5, "discrete"),
        # In as many steps as the others it would see each of its frames about once.
        Row("none", 100, times_as_long=10),
    )
}

# The first row is compared with the second.
COMPARED = (("ac3", NO_VIDEOS), ("ac3", "none"), ("ac3", "genie"), (OTHER_BODIES, "none"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="data, a folder a seed, the table")
    parser.add_argument("--rows", nargs="+", default=["none-5", "genie-5", "ac3-5"], choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument(
        "--arms",
        nargs="+",
        type=Path,
        metavar="DIR",
        help=f"for {OTHER_BODIES}: what cross_embodiment/record.py filmed",
    )
    parser.add_argument(
        "--arms_tokenizer",
        type=Path,
        metavar="DIR",
        help=f"for {OTHER_BODIES}: what reads their motion, such as one that cross_embodiment/compare.py trained",
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(INSTRUCTIONS), metavar="TASK")
    parser.add_argument("--videos", type=int, default=100, help="of a task (default: %(default)s)")
    parser.add_argument(
        "--demonstrations",
        type=int,
        default=100,
        help="of a task to record; rows take the first (default: %(default)s)",
    )
    parser.add_argument("--rollouts", type=int, default=20, help="of a task (default: %(default)s)")
    parser.add_argument(
        "--evaluation_seed",
        type=int,
        default=0,
        help="which scenes to act in; settings are to be chosen on another one (default: %(default)s)",
    )
    parser.add_argument("--tokenizer_steps", type=int, default=1500)
    parser.add_argument("--pretraining_steps", type=int, default=2000)
    parser.add_argument("--finetuning_steps", type=int, default=800, help="more with 100 demonstrations of a task")
    parser.add_argument("--act_tokens", type=int, help="query tokens that actions are read from (default: one)")
    parser.add_argument(
        "--corrupted_share",
        type=float,
        default=0.0,
        help="of the latent tokens read in fine-tuning, as a policy that acts reads its own (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if any(ROWS[row].pretraining == OTHER_BODIES for row in arguments.rows):
        for name in ("arms", "arms_tokenizer"):
            if getattr(arguments, name) is None:
                parser.error(f"--{name} must be given for the rows of {OTHER_BODIES}")
    if arguments.demonstrations < max(ROWS[row].demonstrations for row in arguments.rows):
        parser.error("--demonstrations must be as many as the rows ask for")
    try:
        keep_settings(arguments)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def keep_settings(arguments: argparse.Namespace) -> None:
    """Refuses a folder of rows that came about otherwise, which would stand in the table under today's settings."""
    values, output = vars(arguments), arguments.output
    keep_run(output / "settings.json", {name: values[name] for name in values.keys() - FREE - OF_ARMS}, output)
    if any(ROWS[row].pretraining == OTHER_BODIES for row in arguments.rows):
        keep_run(output / "settings_of_arms.json", {name: values[name] for name in OF_ARMS}, output)


def once(target: Path, make: Callable[[Path], None], goes_on: bool = False) -> Path:
    """`target`, made where it is not there yet; it takes its name when it is whole. What `goes_on` finds what it left."""
    if not target.exists():
        partial_target = target.with_name(f"{target.name}.partial")
        if not goes_on:
            shutil.rmtree(partial_target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        print(target, flush=True)
        make(partial_target)
        os.replace(partial_target, target)
    return target


def cyclemimic(verb: str, *flags: object) -> None:
    """Runs one verb of the command line in a process of its own."""
    subprocess.run([sys.executable, "-m", "cyclemimic.cli", verb, *map(str, flags)], check=True)


def training_flags(steps: int, learning_rate: float, seed: int) -> list[object]:
    """The demo's, by the Trainer's names."""
    settings = {
        "max_steps": steps,
        "learning_rate": learning_rate,
        "seed": seed,
        "per_device_train_batch_size": 64,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 50,
        "adam_beta2": 0.95,
        "save_strategy": "no",
        "report_to": "none",
    }
    return [flag for name, value in settings.items() for flag in (f"--{name}", value)]


def record(arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Videos, of experts that are pushed about, and demonstrations, task by task in turn, so that any first `n` are fair."""
    videos = [
        Shot(task, FIRST_VIDEO + index, push_rate=1.0, noise=0.1)
        for index in range(arguments.videos)
        for task in arguments.tasks
    ]
    demonstrations = [
        Shot(task, FIRST_DEMONSTRATION + index, noise=0.15, labelled=True)
        for index in range(arguments.demonstrations)
        for task in arguments.tasks
    ]
    folders = {"videos": videos, "demonstrations": demonstrations}
    return tuple(
        once(arguments.output / name, partial(record_shots, shots=shots, image_size=IMAGE_SIZE, action_repeat=2))
        for name, shots in folders.items()
    )


def make_tokenizer(
    arguments: argparse.Namespace, pretraining: str, sources: list[Path], seed: int, folder: Path
) -> None:
    """The demo's tokenizer, with AC3 or without; that of arms, which takes another training, is taken as it is."""
    if pretraining == OTHER_BODIES:
        shutil.copytree(arguments.arms_tokenizer, folder)
        return
    interval_s, min_interval_s = INTERVALS["metaworld"]
    size = {"image_size": DemoSettings().tokenizer_image_size}
    config = DemoSettings().tokenizer | size | (CYCLE_OFF if pretraining == "genie" else {})
    cyclemimic(
        *("train-tokenizer", "--data", *sources, "--output_dir", folder, "--tokenizer_config", json.dumps(config)),
        *("--interval_s", interval_s, "--min_interval_s", min_interval_s, "--reversed_share", 0.5, "--min_crop", 0.7),
        *training_flags(arguments.tokenizer_steps, 2e-3, seed),
    )


def label(pretraining: str, tokenizer: Path, sources: list[Path], folder: Path) -> None:
    interval_s, min_interval_s = INTERVALS.get(pretraining, INTERVALS["metaworld"])
    flags = ("--interval_s", interval_s, "--min_interval_s", min_interval_s)
    cyclemimic("label", "--tokenizer", tokenizer, "--data", *sources, "--output", folder, *flags)


def label_alike(labels: Path, folder: Path) -> None:
    """The same rows as `labels`, all of the same words: of these, nothing is learnt."""
    from pyarrow import array, parquet

    folder.mkdir()
    for path in labels.glob("*.parquet"):
        table = parquet.read_table(path)
        index = table.column_names.index("codes")
        codes = [[0] * len(row) for row in table["codes"].to_pylist()]
        parquet.write_table(
            table.set_column(index, table.field(index), array(codes, table.field(index).type)), folder / path.name
        )


def make_start(arguments: argparse.Namespace, labels: Path, seed: int, folder: Path) -> None:
    """The untrained policy that every row of a seed starts from; it knows the words of all instructions."""
    # Not above: the processes that film import this file, and have no use for them.
    from transformers import set_seed

    from cyclemimic.data import LatentLabels
    from cyclemimic.policies import make_tiny_policy

    set_seed(seed)
    instructions = [*(INSTRUCTIONS[task] for task in arguments.tasks), "move the arm"]
    # One where it is not given, of which folders of before say nothing.
    model, processor = make_tiny_policy(
        instructions, LatentLabels.from_folder(labels), IMAGE_SIZE, 96, 2, None, arguments.act_tokens or 1
    )
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def pretrain(
    arguments: argparse.Namespace, start: Path, labels: Path, sources: list[Path], seed: int, to: Path
) -> None:
    cyclemimic(
        *("pretrain", "--policy", start, "--data", *sources, "--labels", labels, "--output_dir", to),
        *("--image_shift", 4, "--weight_decay", 0.05),
        *training_flags(arguments.pretraining_steps, 2e-3, seed),
    )


def finetune(arguments: argparse.Namespace, row: Row, policy: Path, labels: Path, seed: int, folder: Path) -> None:
    cyclemimic(
        *("finetune", "--policy", policy, "--labels", labels, "--data", arguments.output / "demonstrations"),
        *("--num_episodes", row.demonstrations * len(arguments.tasks), "--output_dir", folder),
        *("--action_decoding", row.action_decoding, "--action_decoder_context", "act"),
        *("--image_shift", 4, "--weight_decay", 0.05, "--corrupted_share", arguments.corrupted_share),
        *training_flags(row.finetuning_steps(arguments.finetuning_steps), 1e-3, seed),
    )


def rollout(arguments: argparse.Namespace, policy: Path, folder: Path) -> None:
    cyclemimic(
        *("rollout", "--policy", policy, "--env", f"metaworld:{','.join(arguments.tasks)}", "--output", folder),
        *("--episodes", arguments.rollouts, "--seed", arguments.evaluation_seed, "--clips", 0),
    )


def run(arguments: argparse.Namespace, row: Row, seed: int, videos: Path, demonstrations: Path) -> None:
    """All stages of a row that are not done yet."""
    root = arguments.output / f"seed-{seed}"
    # Without pretraining, the latent actions of the demonstrations are still a second thing to learn from them: AC3's.
    is_pretrained = row.pretraining not in ("none", NO_VIDEOS)
    pretraining = row.pretraining if is_pretrained else "ac3"
    sources = arguments.arms if pretraining == OTHER_BODIES else [videos]
    stage = root / pretraining
    tokenizer = once(stage / "tokenizer", partial(make_tokenizer, arguments, pretraining, sources, seed))
    labels = once(stage / "labels", partial(label, pretraining, tokenizer, sources))
    # The arms' pairs are of another length; Metaworld's own fits what it films.
    labels_here = once(stage / "labels_of_demonstrations", partial(label, "metaworld", tokenizer, [demonstrations]))
    start = once(root / "start", partial(make_start, arguments, labels, seed))
    if row.pretraining == NO_VIDEOS:
        labels_here = once(root / NO_VIDEOS / labels_here.name, partial(label_alike, labels_here))
    if is_pretrained:
        start = once(stage / "policy", lambda to: pretrain(arguments, start, labels, sources, seed, to))
    folder = row_folder(arguments, row, seed)
    policy = once(folder / "policy", lambda to: finetune(arguments, row, start, labels_here, seed, to))
    once(rollout_folder(arguments, row, seed), partial(rollout, arguments, policy), goes_on=True)


def row_folder(arguments: argparse.Namespace, row: Row, seed: int) -> Path:
    steps = "" if row.times_as_long == 1 else f"-{row.finetuning_steps(arguments.finetuning_steps)}-steps"
    return arguments.output / f"seed-{seed}" / f"{row.name}{steps}"


def rollout_folder(arguments: argparse.Namespace, row: Row, seed: int) -> Path:
    return row_folder(arguments, row, seed) / f"rollout{scenes(arguments)}"


def scenes(arguments: argparse.Namespace) -> str:
    """What tells names of other scenes' results from those of the first."""
    return "" if arguments.evaluation_seed == 0 else f"-on-seed-{arguments.evaluation_seed}"


def outcomes_of(arguments: argparse.Namespace, row: Row) -> dict[int, Outcomes]:
    """By seed, of those that are done."""
    paths = {seed: rollout_folder(arguments, row, seed) / "results.json" for seed in arguments.seeds}
    return {seed: read_outcomes(path) for seed, path in paths.items() if path.exists()}


def summarise(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `results.json` holds: each row's success, all and a task, and the differences between rows."""
    done = {name: outcomes for name in arguments.rows if (outcomes := outcomes_of(arguments, ROWS[name]))}
    rows = {
        name: {"seeds": {seed: rate(each) for seed, each in outcomes.items()}}
        | mean_success(outcomes)
        | {
            "finetuning_steps": ROWS[name].finetuning_steps(arguments.finetuning_steps),
            "tasks": task_success(outcomes),
        }
        for name, outcomes in done.items()
    }
    differences = {}
    for setting in dict.fromkeys(ROWS[name].setting for name in done):
        for one, other in (tuple(f"{start}-{setting}" for start in pair) for pair in COMPARED):
            if one in done and other in done and (found := paired_difference(done[one], done[other])):
                differences[f"{one} - {other}"] = asdict(found)
    return {"evaluation_seed": arguments.evaluation_seed, "rows": rows, "differences": differences}


def table(summary: dict[str, Any]) -> str:
    """A row a policy: each seed's success, and their mean with its interval; then the differences."""
    lines = [
        "| pretrained on | demonstrations a task | read from | fine-tuning steps | seeds | mean | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in summary["rows"].items():
        row, seeds = ROWS[name], ", ".join(f"{each:.2f}" for each in found["seeds"].values())
        lines.append(
            f"| {row.pretraining} | {row.demonstrations} | {row.action_decoding} | {found['finetuning_steps']} | {seeds} "
            f"| {found['mean']:.2f} | {found['low']:.2f} to {found['high']:.2f} |"
        )
    if summary["differences"]:
        lines += ["", "| difference | mean | 95 %, paired | seeds |", "|---|---|---|---|"]
    for name, each in summary["differences"].items():
        ends = f"{each['low']:+.2f} to {each['high']:+.2f}"
        lines.append(f"| {name} | {each['mean']:+.2f} | {ends} | {each['num_seeds']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = parse()
    arguments.output.mkdir(parents=True, exist_ok=True)
    videos, demonstrations = record(arguments)
    for seed in arguments.seeds:
        for row in arguments.rows:
            run(arguments, ROWS[row], seed, videos, demonstrations)
            summary = summarise(arguments)
            (arguments.output / f"results{scenes(arguments)}.json").write_text(json.dumps(summary, indent=2))
            (arguments.output / f"table{scenes(arguments)}.md").write_text(table(summary))
    print(table(summary))


if __name__ == "__main__":
    main()
