# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic gallery`: tokenizer and video → pairs of frames that share one latent action (the paper's Figure 1)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cyclemimic.commands.tokenizer_flags import add_tokenizer_flags


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description="Shows pairs of frames that share one latent action, across robot bodies, data sets or tasks. Writes "
        "OUTPUT/gallery.html and gallery.png.",
    )
    add_tokenizer_flags(parser)
    parser.add_argument("--actions", type=int, default=8, help="latent actions to show (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=4, help="pairs of each, 2 or more (default: %(default)s)")
    parser.add_argument(
        "--max_pairs", type=int, default=1000, help="pairs of each data set to choose from (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: %(default)s)")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Chooses the pairs and writes the gallery; says how many actions were shared."""
    from cyclemimic.commands.inputs import check_at_least_one, open_tokenizer_and_data
    from cyclemimic.data import FramePairDataset
    from cyclemimic.data.atomic_folder import AtomicFolder
    from cyclemimic.evaluation.gallery import write_gallery
    from cyclemimic.evaluation.pair_gallery import evenly_spread, gallery_of_pairs
    from cyclemimic.labeling import encode_pairs

    check_at_least_one(actions=arguments.actions, max_pairs=arguments.max_pairs)
    if arguments.pairs < 2:
        raise ValueError(f"`pairs` must be at least 2, got {arguments.pairs}.")
    tokenizer, image_processor, weighted = open_tokenizer_and_data(arguments)
    sources = [entry.source for entry in weighted]
    folder = AtomicFolder(arguments.output)
    folder.start()
    try:
        pairs = FramePairDataset(sources, arguments.interval_s, arguments.min_interval_s)
        chosen = evenly_spread(pairs, arguments.max_pairs, arguments.seed)
        codes = encode_pairs(tokenizer, image_processor, pairs, chosen, arguments.batch_size)
        groups = gallery_of_pairs(pairs, chosen, codes, arguments.actions, arguments.pairs, arguments.seed)
        with folder.one_line_errors():
            write_gallery(
                folder.partial / "gallery.html",
                groups,
                title="Pairs that share one latent action",
                subtitle=", ".join(source.name for source in sources),
                notes=["Drawn at random among the pairs with the code, not picked for their looks."],
            )
        folder.commit()
    finally:
        folder.discard()
    return f"Saved: {arguments.output}, {len(groups)} latent actions of {len(chosen)} frame pairs"
