# SPDX-License-Identifier: Apache-2.0
"""Opens a data set of any supported format, or says in one line why it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .episode import DataError, EpisodeSource
from .image_folders import ImageFolderSource, has_trajectories
from .lerobot import LeRobotSource

# What a folder of another known kind can be told by, and what to do with it.
_OTHER_KINDS = {
    "*.tfrecord*": "RLDS (TFRecord)",
    "*.npz": "NumPy archives",
    "*.mp4": "plain video files",
    "*.jpg": "images that no number names",
    "*.png": "images that no number names",
}


def open_source(
    path: str | Path,
    camera: str | None = None,
    embodiment: str | None = None,
    episodes: Sequence[int] | None = None,
    name: str | None = None,
    fps: float | None = None,
) -> EpisodeSource:
    """Open the data set in a folder.

    Args:
        path (`str` or `Path`): A LeRobot data set, version 2.0, 2.1 or 3.0: the folder that holds `meta/`. Or folders of
            numbered images, a trajectory each: see [`ImageFolderSource`].
        camera (`str`, *optional*): Camera to read, as in [`LeRobotSource`].
        embodiment (`str`, *optional*): Robot body; default is what the data set says.
        episodes (`Sequence[int]`, *optional*): Indices of the episodes to use; all by default.
        name (`str`, *optional*): Name of the data set; default is the folder's name.
        fps (`float`, *optional*): Frames per second of images, which do not tell; other data sets do.

    Returns:
        `EpisodeSource`: The episodes.

    Raises:
        DataError: If there is no such folder, or it holds no data set, or one that cannot be used, or images come without
            `fps`.
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
    if has_trajectories(path):
        return _open_images(path, camera, embodiment, episodes, name, fps)
    kind = next((kind for pattern, kind in _OTHER_KINDS.items() if any(path.rglob(pattern))), None)
    found = f"seems to hold {kind}, which is not supported" if kind else "is no data set: it lacks meta/info.json"
    raise DataError(f"{path} {found}; give a LeRobot data set (v2.0, v2.1 or v3.0) or numbered images")


def _open_images(
    path: Path,
    camera: str | None,
    embodiment: str | None,
    episodes: Sequence[int] | None,
    name: str | None,
    fps: float | None,
) -> ImageFolderSource:
    if fps is None:
        raise DataError(f"{path} holds images, which do not tell their frame rate; give it as `fps`")
    if camera not in (None, ImageFolderSource.camera):
        raise DataError(f"{path} holds images of one camera; leave out `camera`, got {camera!r}")
    return ImageFolderSource(path, fps, embodiment, episodes, name)
