# SPDX-License-Identifier: Apache-2.0
"""What a data set or a model says of its licence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..episode import DataError
from .plain_files import inside

# A name, or a link; some write the whole text.
_MAX_CHARACTERS = 120


def read_licence(folder: Path, said: Mapping[str, Any] | None = None) -> str | None:
    """The licence of what a folder holds: the `license` of its `README.md`, as the Hub reads it, or of its metadata.

    Args:
        folder (`Path`): The data set's or the model's folder.
        said (`Mapping`, *optional*): Metadata of another file, for where the card names none.

    Returns:
        `str` or `None`: The Hub's name for it (`"mit"`), or as it is written; `None` where it is not said, or the card
        cannot be read: nothing but other cards depends on it.
    """
    return licence_of(_read_card(folder)) or licence_of(said or {})


def licence_of(metadata: Mapping[str, Any]) -> str | None:
    """The `license` of some metadata; of several, all; of one that the Hub has no name for, its `license_name`."""
    named = metadata.get("license")
    if named == "other":
        named = metadata.get("license_name") or named
    names = named if isinstance(named, list) else [named]
    text = " ".join(", ".join(name for name in names if isinstance(name, str)).split())
    if len(text) > _MAX_CHARACTERS:
        text = f"{text[:_MAX_CHARACTERS]}…"
    return text or None


def _read_card(folder: Path) -> Mapping[str, Any]:
    import yaml
    from huggingface_hub.repocard import metadata_load

    try:
        path = inside(folder, "README.md")
        return (metadata_load(path) if path.is_file() else None) or {}
    except (DataError, OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
