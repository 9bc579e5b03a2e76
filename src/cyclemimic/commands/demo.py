# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic demo`: every stage once, with a report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cyclemimic.verb_parser import VerbParser


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Runs every stage once, from video to a moving robot, and writes OUTPUT/report.html and "
        "OUTPUT/metrics.json. A stage that is already done in OUTPUT is not done again.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo_output"),
        metavar="DIR",
        help="where results go: a new or empty folder, or an earlier demo's, to go on (default: %(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a LeRobot data set to learn from, without rollouts; by default scripted experts are filmed in a simulator",
    )
    parser.add_argument(
        "--camera", metavar="NAME", help="camera of --data to read, by default one that sees the scene"
    )
    parser.add_argument("--quick", action="store_true", help="prove the path in two minutes, with no claim on success")
    parser.add_argument("--seed", type=int, default=0, help="seed of every stage (default: %(default)s)")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Runs the demo, and says where its report is."""
    from cyclemimic.demo.pipeline import DemoConfig, run_demo

    run_demo(DemoConfig(**vars(arguments)))
    return f"Report: {arguments.output / 'report.html'}"
