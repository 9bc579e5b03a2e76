# SPDX-License-Identifier: Apache-2.0
"""Opens a data set of any supported format, or says in one line why it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .episode import DataError, EpisodeSource
from .lerobot import LeRobotSource

# What a folder of another known kind can be told by, and what to do with it.
_OTHER_KINDS = {
    "*.tfrecord*": "RLDS (TFRecord)",
    "*.npz": "NumPy archives",
    "*.mp4": "plain video files",
    "*.jpg": "plain images",
    "*.png": "plain images",
}


def open_source(
    path: str | Path,
    camera: str | None = None,
    embodiment: str | None = None,
    episodes: Sequence[int] | None = None,
    name: str | None = None,
) -> EpisodeSource:
    """Open the data set in a folder.

    Args:
        path (`str` or `Path`): A LeRobot data set, version 2.0, 2.1 or 3.0: the folder that holds `meta/`.
        camera (`str`, *optional*): Camera to read, as in [`LeRobotSource`].
        embodiment (`str`, *optional*): Robot body; default is what the data set says.
        episodes (`Sequence[int]`, *optional*): Indices of the episodes to use; all by default.
        name (`str`, *optional*): Name of the data set; default is the folder's name.

    Returns:
        `EpisodeSource`: The episodes.

    Raises:
        DataError: If there is no such folder, or it holds no data set, or one that cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; give the folder of a LeRobot data set")
    if not path.is_dir():
        raise DataError(f"{path} is a file; give the folder of a LeRobot data set, the one that holds `meta/`")
    if (path / "meta" / "info.json").is_file():
        return LeRobotSource(path, camera, embodiment, episodes, name)
    if not any(path.iterdir()):
        raise DataError(f"{path} is empty; give the folder of a LeRobot data set")
    nested = sorted(info.parent.parent.name for info in path.glob("*/meta/info.json"))
    if nested:
        raise DataError(f"{path} is no data set, but holds {nested}; give one of those folders")
    kind = next((kind for pattern, kind in _OTHER_KINDS.items() if any(path.rglob(pattern))), None)
    found = f"seems to hold {kind}, which is not supported" if kind else "is no data set: it lacks meta/info.json"
    raise DataError(f"{path} {found}; give the folder of a LeRobot data set (v2.0, v2.1 or v3.0)")
