# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic evaluate-tokenizer`: tokenizer, data with states or actions → how good its codes are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclemimic.commands.flags import add_tokenizer_flags
from cyclemimic.verb_parser import VerbParser


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Measures what a tokenizer's codes say of the true motion, and whether they say the same on every "
        "robot body. Writes OUTPUT/quality.json, quality.html and tokens.npz.",
    )
    add_tokenizer_flags(
        parser,
        data_help="data sets with states or actions in the same units, or one mixture; those of one robot type are one body",
    )
    parser.add_argument(
        "--motion",
        choices=("state", "action"),
        help="what the true motion is read from: how much the state changes, or the sum of the actions, which must be "
        "changes themselves, not positions (default: states where every data set has them, else actions)",
    )
    parser.add_argument(
        "--motion_dims", metavar="I[,I...]", help="dimensions of the motion, from 0 (default: the first three)"
    )
    parser.add_argument("--max_pairs", type=int, default=4000, help="frame pairs of each body (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default: %(default)s)")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Measures the tokenizer, writes what was found, and returns the main figures as a table."""
    from cyclemimic.commands.inputs import fill_intervals, open_tokenizer_and_data
    from cyclemimic.data.atomic import AtomicFolder
    from cyclemimic.evaluation.tokenizer_quality import QualitySettings, measure_tokenizer, write_quality
    from cyclemimic.hub.integrity import hash_files
    from cyclemimic.hub.names import public_name

    fill_intervals(arguments)
    settings = QualitySettings(
        interval_s=arguments.interval_s,
        min_interval_s=arguments.min_interval_s,
        motion=arguments.motion,
        motion_dims=parse_dims(arguments.motion_dims),
        max_pairs=arguments.max_pairs,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )
    tokenizer, image_processor, opened = open_tokenizer_and_data(arguments)
    sources = [entry.source for entry in opened.sources]
    folder = AtomicFolder(arguments.output)
    with folder.writing() as partial:
        measurement = measure_tokenizer(tokenizer, image_processor, sources, settings)
        with folder.one_line_errors():
            files = hash_files(Path(arguments.tokenizer))
            write_quality(partial, measurement, name=public_name(arguments.tokenizer), files=files)
    return f"{format_summary(measurement.metrics['summary'])}\nSaved: {arguments.output}"


def parse_dims(text: str | None) -> tuple[int, ...] | None:
    """`"0,1,2"` → `(0, 1, 2)`.

    Raises:
        ValueError: it is no list of numbers.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"`motion_dims` must be numbers with commas between, such as 0,1,2, got {text!r}.") from error


def format_summary(summary: dict[str, Any]) -> str:
    """The main figures as text, a row a figure, with the intervals that are known; without those not measured."""
    from cyclemimic.evaluation.formatting import format_columns

    rows = [("figure", "value", "95 % interval")]
    for name, figure in summary.items():
        value, low, high = (
            (figure["value"], figure["low"], figure["high"]) if isinstance(figure, dict) else (figure, None, None)
        )
        if value is not None:
            rows.append((name, f"{value:.4g}", "" if low is None else f"{low:.3f} to {high:.3f}"))
    return format_columns(rows)
