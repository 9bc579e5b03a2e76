# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic label`: tokenizer and video → latent action labels (paper §4, pretraining)."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

from cyclemimic.commands.flags import add_tokenizer_flags
from cyclemimic.verb_parser import VerbParser


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Writes the latent action of every frame pair of some data sets, as Parquet files. Started again after it "
        "was killed, it goes on where it was; `accelerate launch` and `torchrun` share the work between processes.",
    )
    add_tokenizer_flags(parser, of_a_mixture=", but for those of a mixture that has its own")
    parser.add_argument(
        "--rows_per_shard",
        type=int,
        default=10_000,
        help="pairs a file, rounded to whole episodes: what a killed run loses at most (default: %(default)s)",
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Labels this process's share of the data sets; the one that is last says how many pairs there were."""
    from cyclemimic.cards.card import CardData
    from cyclemimic.commands.inputs import check_at_least_one, fill_intervals, open_tokenizer_and_data
    from cyclemimic.data import LatentLabels
    from cyclemimic.labeling import label_videos

    check_at_least_one(rows_per_shard=arguments.rows_per_shard)
    fill_intervals(arguments)
    tokenizer, image_processor, opened = open_tokenizer_and_data(arguments, may_differ=True)
    times = arguments.interval_s, arguments.min_interval_s
    # Where a mixture draws intervals from a range, labels are of its middle.
    own = {entry.source.name: (sum(entry.interval_range_s) / 2, entry.min_interval_s) for entry in opened.sources}
    label_videos(
        tokenizer,
        image_processor,
        [entry.source for entry in opened.sources],
        arguments.output,
        *times,
        tokenizer_name=str(arguments.tokenizer),
        batch_size=arguments.batch_size,
        rows_per_shard=arguments.rows_per_shard,
        # Set by `accelerate launch` and `torchrun`; the processes share the disk and need no other word.
        rank=int(os.environ.get("RANK", 0)),
        world_size=int(os.environ.get("WORLD_SIZE", 1)),
        own_intervals={name: interval for name, interval in own.items() if interval != times},
        data=CardData.of_sources(
            [entry.source for entry in opened.sources], left_out=list(opened.left_out), broken=opened.broken
        ),
    )
    if not arguments.output.exists():
        return f"Done with this process's share; {arguments.output} appears when the other processes are"
    labels = LatentLabels.from_folder(arguments.output)
    return f"Saved: {arguments.output}, labels of {len(labels)} frame pairs"
