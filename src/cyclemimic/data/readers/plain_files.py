# SPDX-License-Identifier: Apache-2.0
"""What readers share: files found and followed within a data set's folder, and no further."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..episode import DataError

_WILDCARDS = "*?["


class FramesOnly:
    """The part of an [`EpisodeReader`] that has neither instruction nor actions nor states."""

    def read_instruction(self) -> str | None:
        return None

    def read_actions(self) -> np.ndarray | None:
        return None

    def read_states(self) -> np.ndarray | None:
        return None


def iter_files(root: Path, is_wanted: Callable[[Path], bool]) -> Iterator[Path]:
    """The wanted files of a folder and of those below it.

    Raises:
        DataError: If one is a link to somewhere else: a data set must not make its reader open other files.
    """
    for path in filter(is_wanted, root.rglob("*")):
        # By `realpath`, which takes a link to itself for a file; opening that one says what it is.
        if path.is_symlink() and not _is_within(root.resolve(), Path(os.path.realpath(path))):
            raise DataError(f"{path} is a link out of {root}; copy the file to where the link is")
        yield path


def is_pattern(path: Path) -> bool:
    """Whether a path is a pattern of names, and not that of a file or folder which is called so."""
    return any(character in str(path) for character in _WILDCARDS) and not path.exists()


def split_pattern(path: Path) -> tuple[Path, str | None]:
    """The folder that a pattern starts at, and the rest of it; a path that is no pattern has no rest."""
    if not is_pattern(path):
        return path, None
    first = next(i for i, part in enumerate(path.parts) if any(character in part for character in _WILDCARDS))
    return Path(*path.parts[:first]), "/".join(path.parts[first:])


def find_files(root: Path, pattern: str | None, is_wanted: Callable[[Path], bool]) -> list[Path]:
    """The wanted files of a folder, or of those that a pattern names there, in order; `root` itself if it is a file.

    Raises:
        DataError: If the pattern or a link leads out of the folder.
    """
    if root.is_file():
        return [root]
    if pattern is None:
        files = sorted(iter_files(root, is_wanted))
    elif ".." in pattern.split("/"):
        raise DataError(f"the pattern {root / pattern} must not go up by `..` behind its first wildcard")
    else:
        files = sorted({path for path in root.glob(pattern) if is_wanted(path)})
        for path in files:
            # A pattern follows links to folders.
            inside(root, path.relative_to(root))
    return files


def inside(root: Path, relative: str | Path) -> Path:
    """Where `root / relative` leads, links followed.

    Raises:
        DataError: If that is outside the data set's folder, or nowhere.
    """
    try:
        folder = root.resolve()
        path = (folder / relative).resolve()
        # Also asks the system whether there can be such a name.
        path.is_file()
    # A link to itself is a `RuntimeError` before Python 3.13.
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{root}: the path {str(relative)[:200]!r} cannot be followed ({error}); correct it"
        ) from error
    if not _is_within(folder, path):
        raise DataError(
            f"{root}: the path {str(relative)!r} leads outside the data set's folder; correct what "
            "names it, such as meta/info.json, or remove the link"
        )
    return path


def _is_within(folder: Path, path: Path) -> bool:
    # The Hub's cache, snapshots/REVISION, links its files to the folder blobs beside snapshots.
    blobs = [above.parent / "blobs" for above in folder.parents if above.name == "snapshots"]
    return any(path.is_relative_to(allowed) for allowed in [folder, *blobs])


def read_json_object(root: Path, relative: str) -> dict[str, Any]:
    """Read a JSON file of a data set that holds an object.

    Raises:
        DataError: If it is outside the folder, or no such file.
    """
    path = inside(root, relative)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); download or write it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object, got {type(content).__name__}; download or write it again")
    return content


def choose_episodes(root: object, num_episodes: int, episodes: Sequence[int] | None) -> Sequence[int]:
    """Positions of the episodes to use, all by default.

    Raises:
        DataError: If `episodes` names none, or one that is not there.
    """
    chosen = range(num_episodes) if episodes is None else episodes
    if not len(chosen) or any(not 0 <= index < num_episodes for index in chosen):
        raise DataError(
            f"{root} has episodes 0 to {num_episodes - 1}; `episodes` must name at least one of them and no other, got "
            f"{list(chosen)[:20]}"
        )
    return chosen
