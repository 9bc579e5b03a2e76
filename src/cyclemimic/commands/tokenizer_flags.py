# SPDX-License-Identifier: Apache-2.0
"""Flags of the verbs that look at frame pairs with a trained tokenizer."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_tokenizer_flags(
    parser: argparse.ArgumentParser, data_help: str = "data sets, or one mixture", needs_output: bool = True
) -> None:
    """Adds tokenizer, data and output, the pairs' intervals, batch size and device."""
    parser.add_argument("--tokenizer", required=True, metavar="PATH", help="checkpoint of a latent action tokenizer")
    parser.add_argument("--data", required=True, nargs="+", metavar="DIR", help=data_help)
    parser.add_argument("--output", required=needs_output, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--camera", help="camera to read, by default one that sees the scene")
    parser.add_argument("--fps", type=float, help="frames per second of RLDS and of images, which do not tell")
    parser.add_argument(
        "--leave_out_missing", action="store_true", help="go on without data sets of a mixture that cannot be opened"
    )
    parser.add_argument(
        *("--skip_broken", "--skip-broken"),
        action="store_true",
        help="decode everything once before, and go on without the episodes that cannot be used, each named in the log",
    )
    parser.add_argument(
        "--interval_s",
        type=float,
        default=1.0,
        help="seconds between the frames of a pair, as in the tokenizer's training; `label` takes those of a mixture's file where "
        "it has some (default: %(default)s)",
    )
    parser.add_argument(
        "--min_interval_s",
        type=float,
        default=0.5,
        help="shortest pair near an episode's end, in seconds (default: %(default)s)",
    )
    parser.add_argument("--batch_size", type=int, default=128, help="frames or pairs at a time (default: %(default)s)")
    parser.add_argument("--device", help="torch device, by default the GPU where there is one")
