# SPDX-License-Identifier: Apache-2.0
"""What a model was made of beside video, as its card names it: never by a path of this machine."""

from __future__ import annotations

from pathlib import Path

from cyclemimic.data import LatentLabels
from cyclemimic.data.readers.licences import read_licence
from cyclemimic.hub.names import names_hub_repository, public_name, split_revision


def describe_checkpoint(checkpoint: str | Path) -> str:
    """Name and licence of a model: a folder, or an id on the Hub, whose card is downloaded for that."""
    return f"{public_name(checkpoint)} ({_in_words(_folder_of_card(checkpoint))})"


def id_on_the_hub(name: str | Path) -> str | None:
    """The name, where it is an id on the Hub and no folder."""
    bare, _ = split_revision(name)
    return bare if names_hub_repository(bare) else None


def describe_labels(labels: LatentLabels) -> str:
    """Name and licence of a label set, where it is one and not made in passing, and its tokenizer."""
    name = f"{labels.name} ({_in_words(labels.folder)}), " if labels.name else ""
    revision = labels.metadata.get("tokenizer_revision")
    tokenizer = (
        "an unknown tokenizer" if labels.tokenizer is None else f"the tokenizer {public_name(labels.tokenizer)}"
    )
    return f"{name}made by {tokenizer}" + (f" at {revision}" if revision else "")


def _in_words(folder: Path | None) -> str:
    licence = None if folder is None else read_licence(folder)
    return f"licence: {licence}" if licence else "licence unknown"


def _folder_of_card(checkpoint: str | Path) -> Path | None:
    from huggingface_hub import hf_hub_download

    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    try:
        name, revision = split_revision(checkpoint)
        return Path(hf_hub_download(name, "README.md", revision=revision)).parent
    # Whatever the client or its libraries raise: a card is written behind a training, which no line of it may cost.
    except Exception:
        return None
