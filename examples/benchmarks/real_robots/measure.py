# SPDX-License-Identifier: Apache-2.0
"""
What latent pretraining is worth on recorded robots: errors of the actions on episodes that nothing has learned from.

    python measure.py --data DIR --output real --demonstrations 2
    python measure.py --data DIR --fps 5 --output real --demonstrations 4

The episodes are held out in turn, a fold of them at a time; of the others all are video, and a few are demonstrations. The
demo's models and stages. A stage that is done is not done again.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from cyclemimic.data import EpisodeSource, open_source
from cyclemimic.data.instructions import instructions_of
from cyclemimic.demo import learning, moving
from cyclemimic.demo.settings import DemoConfig, settings_for
from cyclemimic.demo.stage_records import StageRecords, describe

POLICIES = {"latent pretraining, then demonstrations": "policy", "the same fine-tuning alone": "policy_alone"}
GUESSES = {"always their mean action": "mean_action", "the last action again": "last_action"}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a data set with actions")
    parser.add_argument("--fps", type=float, help="its frame rate, where it does not say")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--demonstrations", type=int, required=True, help="episodes with actions")
    parser.add_argument("--folds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer_steps", type=int, default=1500)
    parser.add_argument("--pretraining_steps", type=int, default=1000)
    parser.add_argument("--finetuning_steps", type=int, default=300)
    return parser.parse_args()


def measure_fold(arguments: argparse.Namespace, fold: int) -> dict[str, Any]:
    """Trains on all but every `folds`-th episode; returns the errors of both policies on those."""
    steps = ("tokenizer_steps", "pretraining_steps", "finetuning_steps")
    settings = replace(
        settings_for(DemoConfig(arguments.output, arguments.data)),
        **{name: getattr(arguments, name) for name in steps},
    )
    folder = arguments.output / arguments.data.name / f"fold-{fold}"
    records = StageRecords(
        folder, {**describe(settings), **{name: str(value) for name, value in vars(arguments).items()}}
    )
    indices = [episode.index for episode in open_data(arguments)]
    held_out = indices[fold :: arguments.folds]
    videos = [index for index in indices if index not in held_out]
    demonstrations = open_data(arguments, videos[: arguments.demonstrations])
    films, unseen, seed = open_data(arguments, videos), open_data(arguments, held_out), arguments.seed
    tokenizer, labels, pretrained = folder / "tokenizer", folder / "labels", folder / "pretrained"
    records.run("tokenizer", lambda: learning.train_tokenizer([films], settings, seed, tokenizer))
    records.run("label", lambda: learning.label([films], settings, tokenizer, labels))
    instructions = instructions_of([films], may_be_silent=True)
    processor = learning.make_policy_processor(demonstrations, instructions, settings)
    records.run("pretrain", lambda: learning.pretrain([films], labels, processor, settings, seed, pretrained))
    errors = {}
    for name in POLICIES.values():
        start, policy = (pretrained if name == "policy" else None), folder / name
        finetuning = (demonstrations, labels, processor, settings, seed, policy, start)
        records.run(f"finetune_{name}", lambda values=finetuning: learning.finetune(*values))
        acting = moving.load_policy(policy, processor, demonstrations.name, seed)
        measuring = (acting, processor, demonstrations, unseen)
        record = records.run(f"errors_{name}", lambda values=measuring: moving.evaluate_open_loop(*values))
        errors[name] = record["results"]["errors"]
    return errors


def open_data(arguments: argparse.Namespace, episodes: list[int] | None = None) -> EpisodeSource:
    return open_source(arguments.data, fps=arguments.fps, episodes=episodes)


def rows(errors: list[dict[str, Any]]) -> dict[str, list[tuple[float, list[float]]]]:
    """What to compare → of each fold, its mean error and that of each dimension."""
    found = {
        label: [(fold[name]["policy"], fold[name]["per_dimension"]["policy"]) for fold in errors]
        for label, name in POLICIES.items()
    }
    guesses = [fold["policy"] for fold in errors]
    return found | {
        label: [(fold[name], fold["per_dimension"][name]) for fold in guesses] for label, name in GUESSES.items()
    }


def table(errors: list[dict[str, Any]]) -> str:
    lines = ["| actions | error, a fold each | mean | a dimension each |", "|---|---|---|---|"]
    for label, folds in rows(errors).items():
        means = [mean for mean, _ in folds]
        dimensions = [statistics.mean(values) for values in zip(*(each for _, each in folds))]
        cells = [", ".join(f"{value:.2f}" for value in values) for values in (means, dimensions)]
        lines.append(f"| {label} | {cells[0]} | {statistics.mean(means):.3f} | {cells[1]} |")
    return "\n".join(lines)


def main() -> None:
    arguments = parse()
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(table([measure_fold(arguments, fold) for fold in range(arguments.folds)]))


if __name__ == "__main__":
    main()
