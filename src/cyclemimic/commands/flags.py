# SPDX-License-Identifier: Apache-2.0
"""Flags that several verbs share, and what their help says."""

from __future__ import annotations

import argparse
from pathlib import Path

# How the help of every argument that names a checkpoint or a data set says it.
ON_THE_HUB = "(a folder; or, on the Hub, OWNER/NAME or OWNER/NAME@REVISION, a branch, tag or commit)"
CAMERA = "camera to read, by default one that sees the scene"
FPS = (
    "frames per second of RLDS and of images, which do not record it, or at which to read video files; LeRobot data sets have "
    "their own"
)
SKIP_BROKEN = "first decode everything once, then leave out the episodes that cannot be used, each named in the log"
AS_TRAINED = "as in the tokenizer's training, where it says, else {}"
LEAVE_OUT_MISSING = "go on without the data sets of a mixture that cannot be opened"
CAMERAS = "instead of `camera`: several at once, by default the policy's; the labels are of the first"


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """Adds where to compute."""
    parser.add_argument("--device", help="torch device, by default the GPU where there is one")


def add_policy_flags(parser: argparse.ArgumentParser, default_dataset: str = "the policy's only one") -> None:
    """Adds a fine-tuned policy, how it acts, and where."""
    parser.add_argument(
        "--policy", required=True, metavar="PATH", help=f"checkpoint of a fine-tuned policy {ON_THE_HUB}"
    )
    parser.add_argument("--dataset", help=f"data set whose action statistics to use (default: {default_dataset})")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights: the short ones take half of float32's memory (default: as they were saved)",
    )
    add_device_flag(parser)


def add_action_steps_flag(parser: argparse.ArgumentParser) -> None:
    """Adds how much of a chunk is carried out."""
    parser.add_argument(
        "--num_action_steps",
        type=int,
        help="actions carried out before the policy looks again (default: as its configuration says, or half a chunk)",
    )


def add_tokenizer_flags(
    parser: argparse.ArgumentParser,
    data_help: str = "data sets, or one mixture",
    needs_output: bool = True,
    of_a_mixture: str = "; a mixture with intervals of its own is refused",
) -> None:
    """Adds tokenizer, data and output, the pairs' intervals, batch size and device."""
    parser.add_argument(
        "--tokenizer", required=True, metavar="PATH", help=f"checkpoint of a latent action tokenizer {ON_THE_HUB}"
    )
    parser.add_argument("--data", required=True, nargs="+", metavar="DIR", help=f"{data_help} {ON_THE_HUB}")
    parser.add_argument("--output", required=needs_output, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--camera", help=CAMERA)
    parser.add_argument("--fps", type=float, help=FPS)
    parser.add_argument("--leave_out_missing", action="store_true", help=LEAVE_OUT_MISSING)
    parser.add_argument("--skip_broken", action="store_true", help=SKIP_BROKEN)
    parser.add_argument(
        "--interval_s",
        type=float,
        help=f"seconds between the frames of a pair{of_a_mixture} (default: {AS_TRAINED.format(1.0)})",
    )
    parser.add_argument(
        "--min_interval_s",
        type=float,
        help=f"shortest pair near an episode's end, in seconds (default: {AS_TRAINED.format(0.5)})",
    )
    parser.add_argument("--batch_size", type=int, default=128, help="frames or pairs at a time (default: %(default)s)")
    add_device_flag(parser)
