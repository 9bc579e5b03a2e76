# SPDX-License-Identifier: Apache-2.0
"""
AC3 against the Genie objective on bodies whose true motion is known, with the paper's ablations in small.

    python compare.py --train arms/train/* --test arms/test/* --output comparison

Trains each variant with each seed on the same pairs for the same number of steps, measures it with
`evaluate-tokenizer`'s own function on test episodes, and writes `table.md`. A run that is done is not done again. `--train` may
also be one mixture, a YAML file with weights and intervals.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from step_cost import step_operations
from transformers import set_seed

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerTrainer,
    LatentActionTokenizerTrainingArguments,
)
from cyclemimic.checkpoints import choose_device, load_tokenizer
from cyclemimic.commands.training import stream_pairs
from cyclemimic.data import (
    EpisodeSource,
    FramePairDataset,
    MixtureDataset,
    open_mixture,
    open_source,
    read_mixture,
)
from cyclemimic.data.mixture import is_mixture
from cyclemimic.demo.stage_records import keep_run
from cyclemimic.evaluation.tokenizer_quality import QualitySettings, measure_tokenizer

SIZES = {
    "vision_config": None,
    "patch_size": 8,
    "hidden_size": 64,
    "num_attention_heads": 2,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "num_discriminator_layers": 2,
    "codebook_dim": 8,
    "motion_weight": 3.0,
    # Arms move by up to ten pixels where a crop shows them large.
    "num_motions": 3,
    "motion_reach": 0.3,
    "cycle_start_copy_ratio": 0.4,
    "cycle_weight": 0.05,
    "adversarial_weight": 0.01,
}
GENIE = {"cycle_weight": 0, "adversarial_weight": 0}
VARIANTS: dict[str, dict[str, Any]] = {
    "genie": GENIE,
    "ac3": {},
    "ac3-buffer-1": {"buffer_batches": 1},
    "ac3-buffer-16": {"buffer_batches": 16},
    "ac3-no-discriminator": {"adversarial_weight": 0},
    "ac3-local-discriminator": {"discriminator_heads": "local"},
}
EQUAL_COMPUTE = "genie-equal-compute"
"""The Genie objective for as many operations as the `ac3` run of the same seed took."""

# Arguments by which the runs of one folder, and of one table, may differ.
FREE = {"output", "variants", "seeds", "workers"}

# Column, key of the summary in `quality.json`, decimals.
COLUMNS = (
    ("linear R² within", "linear_r2_within", 2),
    ("MLP R² within", "mlp_r2_within", 2),
    ("linear R² across", "linear_r2_across", 2),
    ("MLP R² across", "mlp_r2_across", 2),
    ("transfer R² within", "transfer_r2_within", 2),
    ("transfer R² across", "transfer_r2_across", 2),
    ("body from codes", "embodiment_accuracy", 2),
    ("MI, nats", "mutual_information", 2),
    ("MI by labels", "mutual_information_discrete", 2),
    ("cycle accuracy", "cycle_token_accuracy", 2),
    ("perplexity", "perplexity", 1),
    ("actions", "distinct_actions", 0),
    ("copy ratio", "copy_ratio", 2),
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--train", nargs="+", required=True, metavar="DIR", help="data sets to train on, or one mixture"
    )
    parser.add_argument("--test", nargs="+", required=True, metavar="DIR", help="data sets to measure on")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder a run, and the table")
    parser.add_argument(
        "--start",
        metavar="DIR",
        help="tokenizer that every variant goes on from, with AC3 from the first step; {seed} in it stands for the seed",
    )
    parser.add_argument("--variants", nargs="+", default=["genie", "ac3"], choices=[*VARIANTS, EQUAL_COMPUTE])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=12000, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=64, help="pairs a step (default: %(default)s)")
    parser.add_argument("--learning_rate", type=float, default=2e-3, help="peak (default: %(default)s)")
    parser.add_argument("--image_size", type=int, default=32, help="pixels (default: %(default)s)")
    parser.add_argument("--interval_s", type=float, default=0.8, help="time between the frames of a pair")
    parser.add_argument("--reversed_share", type=float, default=0.5, help="share of pairs shown backwards")
    parser.add_argument("--min_crop", type=float, default=0.6, help="smallest crop of a pair (default: %(default)s)")
    parser.add_argument("--color_jitter", type=float, default=0.0, help="change of a pair's colours")
    parser.add_argument("--workers", type=int, default=0, help="of the data loader (default: %(default)s)")
    parser.add_argument("--max_pairs", type=int, default=1500, help="test pairs of a body (default: %(default)s)")
    parser.add_argument(
        "--motion_dims", nargs="+", type=int, default=[1, 2], help="dimensions of the state: y and z, the image plane"
    )
    parser.add_argument(
        "--config", type=json.loads, default={}, metavar="JSON", help="fields of the tokenizer's configuration"
    )
    arguments = parser.parse_args()
    variants = arguments.variants
    if EQUAL_COMPUTE in variants and "ac3" not in variants[: variants.index(EQUAL_COMPUTE)]:
        parser.error(
            f"`--variants` must have ac3 before {EQUAL_COMPUTE}, which takes its steps from it, got {variants}."
        )
    run = {name: value for name, value in vars(arguments).items() if name not in FREE}
    try:
        run["mixture"] = describe_mixture(arguments.train)
        keep_run(arguments.output / "settings.json", run, arguments.output)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def describe_mixture(paths: Sequence[str]) -> list[dict[str, Any]]:
    """What is in the mixture that `--train` names; nothing of plain data sets.

    Raises:
        ValueError: a mixture that is not alone, or cannot be read.
    """
    if not any(map(is_mixture, paths)):
        return []
    if len(paths) > 1:
        raise ValueError(f"`--train` must be one mixture, or data sets without one, got {list(paths)}.")
    return [asdict(entry) for entry in read_mixture(paths[0])]


def start_of(arguments: argparse.Namespace, seed: int) -> str:
    return arguments.start.replace("{seed}", str(seed))


def make_config(arguments: argparse.Namespace, variant: str, seed: int) -> LatentActionTokenizerConfig:
    """The variant's own settings win over `--config`, and that over the sizes above."""
    fields = arguments.config | VARIANTS["genie" if variant == EQUAL_COMPUTE else variant]
    if arguments.start:
        weights = {name: SIZES[name] for name in GENIE}
        at_once = {"cycle_start_copy_ratio": 1.0}
        return LatentActionTokenizerConfig.from_pretrained(start_of(arguments, seed), **(at_once | weights | fields))
    return LatentActionTokenizerConfig(image_size=arguments.image_size, **(SIZES | fields))


def make_model(arguments: argparse.Namespace, variant: str, seed: int) -> LatentActionTokenizerForPreTraining:
    """The tokenizer that a run starts with; of `--start` it has no buffer and no steps of AC3, and what it lacks is new."""
    config = make_config(arguments, variant, seed)
    if arguments.start:
        model = LatentActionTokenizerForPreTraining.from_pretrained(start_of(arguments, seed), config=config)
        model.restart_ac3()
        return model
    return LatentActionTokenizerForPreTraining(config)


def equal_compute_steps(arguments: argparse.Namespace, seed: int) -> int:
    """Steps of the Genie objective that cost what the `ac3` run of this seed did, AC3 joining where it joined."""
    record = json.loads((run_dir(arguments, "ac3", seed) / "run.json").read_text())
    genie, ac3 = make_config(arguments, "genie", seed), make_config(arguments, "ac3", seed)
    ratio = step_operations(ac3, ac3=True) / step_operations(genie, ac3=False)
    return round(record["steps"] - record["ac3_steps"] + ratio * record["ac3_steps"])


def run_dir(arguments: argparse.Namespace, variant: str, seed: int) -> Path:
    return arguments.output / variant / f"seed-{seed}"


def open_sources(paths: Sequence[str]) -> list[EpisodeSource]:
    """Data sets under names of their own: a body's tests are another data set than what it was trained on."""
    return [open_source(path, name=f"{index}-{Path(path).name}") for index, path in enumerate(paths)]


def make_pairs(
    arguments: argparse.Namespace,
    training: LatentActionTokenizerTrainingArguments,
    image_processor: LatentActionTokenizerImageProcessor,
) -> FramePairDataset | MixtureDataset:
    """The pairs of some data sets, in memory; or those of a mixture, by its weights and intervals, as they are needed."""
    times = arguments.interval_s, arguments.interval_s
    if is_mixture(arguments.train[0]):
        sources = open_mixture(read_mixture(arguments.train[0]), *times).sources
        return stream_pairs(sources, image_processor.resize_frames, training)
    return FramePairDataset(open_sources(arguments.train), *times, transform=image_processor.resize_frames)


def train(arguments: argparse.Namespace, variant: str, seed: int, folder: Path) -> dict[str, Any]:
    """Trains one tokenizer into `folder`; returns what it took."""
    set_seed(seed)
    steps = equal_compute_steps(arguments, seed) if variant == EQUAL_COMPUTE else arguments.steps
    image_processor = LatentActionTokenizerImageProcessor(size=arguments.image_size)
    model = make_model(arguments, variant, seed)
    training = LatentActionTokenizerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=50,
        adam_beta2=0.95,
        logging_steps=max(1, steps // 30),
        save_strategy="no",
        report_to="none",
        seed=seed,
        interval_s=arguments.interval_s,
        min_interval_s=arguments.interval_s,
        reversed_share=arguments.reversed_share,
        min_crop=arguments.min_crop,
        color_jitter=arguments.color_jitter,
        dataloader_num_workers=arguments.workers,
        # An epoch of few scenes is short, and new workers would decode them all again.
        dataloader_persistent_workers=arguments.workers > 0,
    )
    trainer = LatentActionTokenizerTrainer(
        model=model,
        args=training,
        train_dataset=make_pairs(arguments, training, image_processor),
        processing_class=image_processor,
    )
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    trainer.save_model(str(folder / "tokenizer"))
    return {"steps": steps, "ac3_steps": int(model.ac3_steps), "seconds": seconds, "log": trainer.state.log_history}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The quality of a trained tokenizer on the test data."""
    settings = QualitySettings(
        interval_s=arguments.interval_s,
        min_interval_s=arguments.interval_s,
        motion_dims=tuple(arguments.motion_dims),
        max_pairs=arguments.max_pairs,
    )
    return measure_tokenizer(
        *load_tokenizer(folder / "tokenizer", choose_device(None)),
        open_sources(arguments.test),
        settings,
    ).metrics


def write_json(path: Path, value: Any) -> None:
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2))
    os.replace(partial, path)


def figure(summary: dict[str, Any], key: str) -> float | None:
    value = summary[key]
    return value["value"] if isinstance(value, dict) else value


def summaries(arguments: argparse.Namespace, variant: str) -> dict[int, dict[str, Any]]:
    """Of the seeds that are done."""
    paths = {seed: run_dir(arguments, variant, seed) / "quality.json" for seed in arguments.seeds}
    return {seed: json.loads(path.read_text())["summary"] for seed, path in paths.items() if path.exists()}


def table(arguments: argparse.Namespace) -> str:
    """Mean and standard deviation over the seeds that are done, a row a variant."""
    lines = ["| variant | seeds | " + " | ".join(name for name, *_ in COLUMNS) + " |"]
    lines.append("|---|---|" + "---|" * len(COLUMNS))
    for variant in arguments.variants:
        found = list(summaries(arguments, variant).values())
        cells = []
        for _, key, decimals in COLUMNS:
            values = [value for summary in found if (value := figure(summary, key)) is not None]
            spread = f" ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{decimals}f}{spread}" if values else "–")
        lines.append(f"| {variant} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def removed_errors(arguments: argparse.Namespace) -> str:
    """Of the error, 1 − R², that the Genie objective leaves with a seed, the share that AC3 removes; empty without both."""
    ac3 = summaries(arguments, "ac3")
    lines = []
    for variant in ("genie", EQUAL_COMPUTE):
        baseline = summaries(arguments, variant) if variant in arguments.variants else {}
        seeds = [seed for seed in ac3 if seed in baseline]
        for name, key, _ in COLUMNS:
            if not key.endswith("_r2_across"):
                continue
            pairs = [(figure(ac3[seed], key), figure(baseline[seed], key)) for seed in seeds]
            shares = [f"{(ours - theirs) / (1 - theirs):.0%}" for ours, theirs in pairs if None not in (ours, theirs)]
            if shares:
                lines.append(f"| {variant} | {name} | {', '.join(map(str, seeds))} | {', '.join(shares)} |")
    head = ["", "| error of | in | seeds | removed by ac3 |", "|---|---|---|---|"]
    return "\n".join([*head, *lines]) + "\n" if lines else ""


def main() -> None:
    arguments = parse()
    for seed in arguments.seeds:
        for variant in arguments.variants:
            folder = run_dir(arguments, variant, seed)
            if not (folder / "run.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_json(folder / "run.json", train(arguments, variant, seed, folder))
            if not (folder / "quality.json").exists():
                write_json(folder / "quality.json", measure(arguments, folder))
            report = table(arguments) + removed_errors(arguments)
            (arguments.output / "table.md").write_text(report)
    print(report)


if __name__ == "__main__":
    main()
