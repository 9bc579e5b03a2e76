# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic label`: tokenizer and video → latent action labels (paper §4, pretraining)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Writes the latent action of every frame pair of some data sets, as Parquet files.",
    )
    parser.add_argument("--tokenizer", required=True, metavar="PATH", help="checkpoint of a latent action tokenizer")
    parser.add_argument("--data", required=True, nargs="+", metavar="DIR", help="folders of LeRobot data sets")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument("--camera", help="camera to read, by default one that sees the scene")
    parser.add_argument(
        "--interval_s",
        type=float,
        default=1.0,
        help="seconds between the frames of a pair, as in the tokenizer's training (default: %(default)s)",
    )
    parser.add_argument(
        "--min_interval_s",
        type=float,
        default=0.5,
        help="shortest pair near an episode's end, in seconds (default: %(default)s)",
    )
    parser.add_argument("--batch_size", type=int, default=128, help="frames at a time (default: %(default)s)")
    parser.add_argument("--device", help="torch device, by default the GPU where there is one")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Labels the data sets, and says how many pairs there were."""
    from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
    from cyclemimic.commands.inputs import (
        check_at_least_one,
        check_interval,
        choose_device,
        open_sources,
        read_config,
    )
    from cyclemimic.data import LatentLabels
    from cyclemimic.labeling import label_videos

    check_interval(arguments.interval_s, arguments.min_interval_s)
    check_at_least_one(batch_size=arguments.batch_size)
    device = choose_device(arguments.device)
    sources = open_sources(arguments.data, arguments.camera)
    read_config("tokenizer", arguments.tokenizer, "latent_action_tokenizer")
    label_videos(
        LatentActionTokenizerModel.from_pretrained(arguments.tokenizer).to(device),
        LatentActionTokenizerImageProcessor.from_pretrained(arguments.tokenizer),
        sources,
        arguments.output,
        arguments.interval_s,
        arguments.min_interval_s,
        tokenizer_name=str(arguments.tokenizer),
        batch_size=arguments.batch_size,
    )
    return f"Saved: {arguments.output}, labels of {len(LatentLabels.from_folder(arguments.output))} frame pairs"
