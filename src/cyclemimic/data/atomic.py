# SPDX-License-Identifier: Apache-2.0
"""Files and folders that exist either complete or not at all, whatever interrupts the writing."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .episode import DataError

logger = logging.getLogger(__name__)

# In a partial folder, says that it may be removed.
_MARK = ".unfinished"


class AtomicFolder:
    """Collects files in the sibling folder `<root>.partial`, which takes the place of `root` in one step.

    Args:
        root (`str` or `Path`): Folder to make.

    Example:

    ```python
    >>> with AtomicFolder(root).writing() as partial:  # doctest: +SKIP
    ...     (partial / "file").write_text("complete")
    ```
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        # Also of ".", which has no name of its own.
        whole = self.root.absolute() if not self.root.name else self.root
        self.partial = whole.with_name(f"{whole.name}.partial")

    @contextmanager
    def writing(self, min_free_bytes: int = 0) -> Iterator[Path]:
        """The partial folder, for the block to fill; whole at its end, and gone where it fails. Errors as of the three below."""
        self.start(min_free_bytes)
        try:
            yield self.partial
            self.commit()
        finally:
            self.discard()

    def start(self, min_free_bytes: int = 0) -> None:
        """Make the partial folder; `DataError` if `root` is taken, what is there is no such folder, or there is too little room."""
        if self.root.exists():
            raise DataError(f"{self.root} exists already; give another folder")
        if self.partial.exists():
            # Another's, such as labels in the making, or a folder that happens to have this name.
            is_ours = self.partial.is_dir() and ((self.partial / _MARK).is_file() or not any(self.partial.iterdir()))
            if not is_ours:
                raise DataError(f"{self.partial} holds work of something else; move it, or give another folder")
            logger.warning("removing %s, left by a run that was interrupted", self.partial)
            shutil.rmtree(self.partial)
        with self.one_line_errors():
            self.partial.mkdir(parents=True)
            (self.partial / _MARK).touch()
            free = shutil.disk_usage(self.partial).free
        if free < min_free_bytes:
            self.discard()
            raise DataError(
                f"{self.root}: {free >> 20} MiB of disk are free, at least {min_free_bytes >> 20} MiB are needed; "
                "make room or give a folder on another disk"
            )

    def commit(self) -> None:
        """Give the partial folder its name."""
        with self.one_line_errors():
            (self.partial / _MARK).unlink(missing_ok=True)
            os.replace(self.partial, self.root)

    def discard(self) -> None:
        """Remove the partial folder, if there is one."""
        shutil.rmtree(self.partial, ignore_errors=True)

    @contextmanager
    def one_line_errors(self) -> Iterator[None]:
        """Turn what the operating system says while the block writes into a one-line `DataError`."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                reason = "the disk is full; make room or give a folder on another disk"
            else:
                reason = f"cannot be written ({error.strerror or error}); give a folder that can be written"
            raise DataError(f"{self.root}: {reason}") from error


def write_atomically(path: str | os.PathLike[str], payload: bytes) -> Path:
    """Write a file whole or not at all: a reader, or a later run, never finds half of it.

    Args:
        path (`str` or `os.PathLike`): The file; its folder is made where it is missing.
        payload (`bytes`): The content.

    Returns:
        `Path`: The file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A sibling, so that the rename stays within one file system; the process id keeps two runs apart.
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target
