# SPDX-License-Identifier: Apache-2.0
"""Names of what is on the Hub, with the revision that is meant: `owner/name@revision`, a branch, tag or commit."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Loaded = TypeVar("Loaded")

_PINNED = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@(\w[\w./-]*)")


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
