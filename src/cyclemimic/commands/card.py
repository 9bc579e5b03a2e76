# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic card`: what was measured of a model, into its card."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cyclemimic.verb_parser import VerbParser


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Writes measured figures into the card of a trained model (README.md): a table, and the model-index "
        "that the Hub shows. Figures of earlier calls go.",
    )
    parser.add_argument("--model", required=True, type=Path, metavar="DIR", help="folder of a trained model")
    parser.add_argument("--quality", type=Path, metavar="FILE", help="quality.json of evaluate-tokenizer")
    parser.add_argument("--rollout", type=Path, metavar="FILE", help="results.json of rollout")
    parser.add_argument("--errors", type=Path, metavar="FILE", help="errors.json of evaluate-policy")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Rewrites the card, whole or not at all."""
    from cyclemimic.cards.measured import add_measurements
    from cyclemimic.data.atomic import write_atomically

    path = arguments.model / "README.md"
    if not path.is_file():
        raise ValueError(f"`model` must be the folder of a trained model, with its card, got {arguments.model}.")
    text = add_measurements(path, arguments.quality, arguments.rollout, arguments.errors)
    return f"Saved: {write_atomically(path, text.encode())}"
