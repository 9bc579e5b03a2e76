# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic plan`: a model and GPUs → the memory a training takes, and the hours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cyclemimic.verb_parser import VerbParser


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Computes the memory that a training takes on each GPU, by strategy. Nothing of the model is loaded.",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        required=True,
        help="tokenizer (the paper's size), policy-0.5b, policy-2b, policy-7b (Prismatic's vision models before a language "
        "model of that size), or a checkpoint's folder or Hub id",
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 16], help="how many (default: 1 8 16)")
    parser.add_argument("--batch_size", type=int, default=32, help="samples a GPU (default: %(default)s, the paper's)")
    parser.add_argument("--lora_rank", type=int, help="train a policy through adapters of this rank")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="compute activations again")
    parser.add_argument("--step_time", type=float, help="seconds that you measured for a step of a GPU's samples")
    parser.add_argument("--output", type=Path, help="Markdown file to write, too")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Computes the tables; returns them."""
    from cyclemimic.commands.inputs import check_at_least_one

    check_at_least_one(batch_size=arguments.batch_size, gpus=min(arguments.gpus))
    if arguments.lora_rank is not None:
        check_at_least_one(lora_rank=arguments.lora_rank)
    if arguments.step_time is not None and not arguments.step_time > 0:
        raise ValueError(f"`step_time` must be above 0 seconds, got {arguments.step_time}.")
    if arguments.output is not None and arguments.output.is_dir():
        raise ValueError(f"`output` must be a file, got the folder {arguments.output}.")
    from cyclemimic.planning.shapes import shape_of
    from cyclemimic.planning.table import write_plan

    shapes = [shape_of(model, arguments.lora_rank) for model in arguments.model]
    report = "\n".join(
        write_plan(shape, arguments.gpus, arguments.batch_size, arguments.gradient_checkpointing, arguments.step_time)
        for shape in shapes
    )
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(report, encoding="utf-8")
    return report.rstrip()
