# SPDX-License-Identifier: Apache-2.0
"""Names of what is on the Hub, with the revision that is meant: `owner/name@revision`, a branch, tag or commit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Loaded = TypeVar("Loaded")

_OWNER_AND_NAME = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_PINNED = re.compile(rf"({_OWNER_AND_NAME})@(\w[\w./-]*)")


def is_repository_id(name: str | Path) -> bool:
    """Whether a name has the form of an id on the Hub, `owner/name`."""
    return re.fullmatch(_OWNER_AND_NAME, str(name)) is not None


def names_hub_repository(name: str | Path) -> bool:
    """Whether a name is meant for the Hub: it has the form of an id, and there is no such path."""
    return is_repository_id(name) and not Path(name).exists()


def public_name(name: str | Path) -> str:
    """What to call a folder, or an id on the Hub, where others read it: a path is of this machine alone."""
    bare, _ = split_revision(name)
    return bare if names_hub_repository(bare) else Path(name).resolve().name


def split_revision(name: str | Path) -> tuple[str, str | None]:
    """The name and, of `owner/name@revision` where there is no such path, the revision."""
    match = _PINNED.fullmatch(str(name))
    return (str(name), None) if match is None or Path(name).exists() else (match[1], match[2])


def load_pinned(load: Callable[..., Loaded], checkpoint: str | Path, **options: Any) -> Loaded:
    """
    What `from_pretrained` loads, of the revision that the name ends with.

    Args:
        load (`Callable`): `from_pretrained` of a class, or what is called as it is.
        checkpoint (`str` or `Path`): Folder, `owner/name` or `owner/name@revision`.
        options: Further arguments of `load`.
    """
    name, revision = split_revision(checkpoint)
    return load(name, **options) if revision is None else load(name, revision=revision, **options)
