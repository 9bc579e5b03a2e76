# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic label`: tokenizer and video → latent action labels (paper §4, pretraining)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cyclemimic.commands.tokenizer_flags import add_tokenizer_flags


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Writes the latent action of every frame pair of some data sets, as Parquet files.",
    )
    add_tokenizer_flags(parser)
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Labels the data sets, and says how many pairs there were."""
    from cyclemimic.commands.inputs import open_tokenizer_and_data
    from cyclemimic.data import LatentLabels
    from cyclemimic.labeling import label_videos

    tokenizer, image_processor, sources = open_tokenizer_and_data(arguments)
    label_videos(
        tokenizer,
        image_processor,
        sources,
        arguments.output,
        arguments.interval_s,
        arguments.min_interval_s,
        tokenizer_name=str(arguments.tokenizer),
        batch_size=arguments.batch_size,
    )
    return f"Saved: {arguments.output}, labels of {len(LatentLabels.from_folder(arguments.output))} frame pairs"
