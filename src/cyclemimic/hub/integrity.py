# SPDX-License-Identifier: Apache-2.0
"""
Whether a download is what the Hub said it would be. Its client compares sizes, and hashes only where Xet transfers the file;
it keeps a file under the Hub's etag, which is the hash of the content.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def check_downloads(paths: Iterable[Path]) -> None:
    """
    Reads files of the client's cache once more, and removes from there those whose content is another.

    Raises:
        ValueError: there are any.
    """
    wrong = {}
    for path in paths:
        etag = Path(os.readlink(path)).name if path.is_symlink() else ""
        # Without links, as on some systems, the cache has no etags.
        if _ETAG.fullmatch(etag) is not None and _hash_as(etag, path) != etag:
            wrong[path] = etag
    for path in wrong:
        path.resolve().unlink(missing_ok=True)
        path.unlink()
    if wrong:
        path, etag = next(iter(wrong.items()))
        raise ValueError(f"{path.name} must have the hash {etag}, got other content of its size; it was removed")


def _hash_as(etag: str, path: Path) -> str:
    """SHA-256 for what Git LFS keeps, and for other files git's own."""
    with path.open("rb") as file:
        if len(etag) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        header = b"blob %d\0" % os.fstat(file.fileno()).st_size
        return hashlib.file_digest(file, lambda: hashlib.sha1(header)).hexdigest()
