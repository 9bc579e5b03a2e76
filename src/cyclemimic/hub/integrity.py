# SPDX-License-Identifier: Apache-2.0
"""
Whether files are what they should be: a download what the Hub said it would be, a model the one that was measured. The Hub's
client compares sizes, and hashes only where Xet transfers the file; it keeps a file under the Hub's etag, which is the hash of
the content.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

# Beside weights: how much of a chunk is carried out, the statistics of its actions, how frames are shown.
_DECIDING_TEXTS = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer.json")
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


def hash_files(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of the files that decide what a checkpoint's model does, by name; of what is no folder, none."""
    paths = [*sorted(checkpoint.glob("*.safetensors")), *(checkpoint / name for name in _DECIDING_TEXTS)]
    hashes = {}
    for path in filter(Path.is_file, paths):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def _hash_as(etag: str, path: Path) -> str:
    """SHA-256 for what Git LFS keeps, and for other files git's own."""
    with path.open("rb") as file:
        if len(etag) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        header = b"blob %d\0" % os.fstat(file.fileno()).st_size
        return hashlib.file_digest(file, lambda: hashlib.sha1(header)).hexdigest()
