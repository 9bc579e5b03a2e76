# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic push`: tokenizer, policy, processor, adapter or labels → a repository on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cyclemimic.verb_parser import VerbParser


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Publishes a folder that a verb has made on the Hugging Face Hub, in one commit: weights, configs, "
        "processor, statistics, card and code, or labels and card. Of a checkpoint's folder that is every file of JSON, text, "
        "Markdown or Python, which the log names; folders, pickles and other files stay here. The access token is HF_TOKEN, "
        "or the one that `hf auth login` has stored.",
    )
    parser.add_argument("folder", help="checkpoint, adapter or labels")
    parser.add_argument("repo_id", help="repository on the Hub, OWNER/NAME; made if it is not there")
    parser.add_argument("--private", action="store_true", help="make the repository private, if it is not there yet")
    parser.add_argument("--revision", help="branch to commit to (default: main)")
    parser.add_argument("--base_model", help="id on the Hub of the model that an adapter belongs to")
    parser.add_argument("--commit_message", help="(default: Upload with cyclemimic)")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Checks the folder and sends it; says which commit it is."""
    from pathlib import Path

    from cyclemimic.data import LatentLabels
    from cyclemimic.hub.publication import read_publication
    from cyclemimic.hub.upload import push_folder

    if read_publication(arguments.folder, arguments.base_model).kind == "dataset":
        LatentLabels.from_folder(arguments.folder)
    commit = push_folder(
        Path(arguments.folder),
        arguments.repo_id,
        private=arguments.private or None,
        revision=arguments.revision,
        commit_message=arguments.commit_message,
        base_model=arguments.base_model,
    )
    return f'Pushed: {commit.repo_url}, loaded exactly so with revision="{commit.oid}"'
