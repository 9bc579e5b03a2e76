# SPDX-License-Identifier: Apache-2.0
"""What readers of plain images and videos share: files that hold frames and nothing else, found in a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .episode import DataError


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
    inside = root.resolve()
    for path in filter(is_wanted, root.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise DataError(f"{path} is a link out of {root}; copy the file to where the link is")
        yield path


def choose_episodes(root: Path, num_episodes: int, episodes: Sequence[int] | None) -> Sequence[int]:
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
