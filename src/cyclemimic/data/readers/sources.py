# SPDX-License-Identifier: Apache-2.0
"""Opens a data set of any supported format, or says in one line why it cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from ...hub.names import names_hub_repository
from ..episode import DataError
from ..episode_source import EpisodeSource
from .arrow_tables import TABLE_SUFFIXES, is_table
from .hub import at_revision, open_hub_folder
from .image_folders import ImageFolderSource, is_numbered_image
from .lerobot import LeRobotSource
from .plain_files import is_pattern
from .rlds import RldsSource, find_version
from .video_column import VideoColumnSource, has_video_column
from .video_files import VideoFileSource, is_video_file

logger = logging.getLogger(__name__)

# What a folder of another known kind can be told by, and what to do with it.
_OTHER_KINDS = {
    "*.tfrecord*": "TFRecord files without the features.json of RLDS",
    "*.parquet": "Parquet files without a Video column of `datasets`",
    "*.npz": "NumPy archives",
    "*.jpg": "images that no number names",
    "*.png": "images that no number names",
}
# Of a LeRobot data set, and of a version of RLDS, where a folder holds several.
_WITHIN = ("*/meta/info.json", "*/*/features.json")
_WANTED = (
    "give a LeRobot data set (v2.0, v2.1 or v3.0), RLDS, numbered images, video files or a Video column of `datasets`"
)


def open_source(
    path: str | Path,
    camera: str | None = None,
    embodiment: str | None = None,
    episodes: Sequence[int] | None = None,
    name: str | None = None,
    fps: float | None = None,
    revision: str | None = None,
) -> EpisodeSource:
    """Open a data set.

    Args:
        path (`str` or `Path`): One of these: a LeRobot data set, version 2.0, 2.1 or 3.0, by the folder that holds
            `meta/` or, where there is no such folder, by its id on the Hub, which may end with `@` and a revision, and
            whose files come as they are needed; an RLDS data set ([`RldsSource`]); folders of numbered images, a trajectory
            each ([`ImageFolderSource`]); a video file, a folder of them or a pattern such as `"videos/*.mp4"`
            ([`VideoFileSource`]); what `datasets` saved that has a Video column ([`VideoColumnSource`]).
        camera (`str`, *optional*): Camera to read, as in [`LeRobotSource`].
        embodiment (`str`, *optional*): Robot body; default is what the data set says, or its name; of videos
            `"unknown"`.
        episodes (`Sequence[int]`, *optional*): Indices of the episodes to use; all by default.
        name (`str`, *optional*): Name of the data set; default is the folder's name.
        fps (`float`, *optional*): Frames per second of RLDS and of images, which do not tell, or to look at video files with. LeRobot
            data sets tell theirs.
        revision (`str`, *optional*): Branch, tag or commit of a data set on the Hub.

    Returns:
        `EpisodeSource`: The episodes.

    Raises:
        DataError: If there is no such folder, or it holds no data set, or one that cannot be used, or images come without
            `fps`.
        ValueError: If `path` is something else.
    """
    if not isinstance(path, str | PathLike):
        raise ValueError(
            f"`path` must be a path or an id on the Hub, got {type(path).__name__}; `VideoColumnSource` takes a "
            "`datasets.Dataset` with a Video column, `InMemorySource` episodes, as `Episode.from_arrays` makes them."
        )
    path, revision = at_revision(path, revision)
    if names_hub_repository(path):
        return _at_its_rate(
            LeRobotSource(open_hub_folder(str(path), revision), camera, embodiment, episodes, name), fps
        )
    if revision is not None:
        raise DataError(f"{path} is no data set on the Hub; leave out `revision`, got {revision!r}")
    path = Path(path)
    if is_pattern(path):
        if path.suffix in TABLE_SUFFIXES:
            return VideoColumnSource(path, camera, fps, embodiment, episodes, name)
        _refuse_camera(path, camera)
        return VideoFileSource(path, fps, embodiment, episodes, name)
    if not path.exists():
        raise DataError(f"{path} does not exist; {_WANTED}")
    if not path.is_dir() and not is_video_file(path) and not is_table(path):
        raise DataError(f"{path} is a file, and no video; {_WANTED}")
    if (path / "meta" / "info.json").is_file():
        return _at_its_rate(LeRobotSource(path, camera, embodiment, episodes, name), fps)
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path} is empty; {_WANTED}")
    version = find_version(path)
    if version is not None:
        if fps is None:
            raise DataError(f"{path} is RLDS, which does not tell its frame rate; give it as `fps`")
        return RldsSource(version, fps, camera, embodiment, episodes, name)
    nested = sorted({info.relative_to(path).parts[0] for each in _WITHIN for info in path.glob(each)})
    if nested:
        raise DataError(f"{path} is no data set, but holds {nested}; give one of those folders")
    if has_video_column(path):
        return VideoColumnSource(path, camera, fps, embodiment, episodes, name)
    return _open_plain_files(path, camera, embodiment, episodes, name, fps)


def _at_its_rate(source: LeRobotSource, fps: float | None) -> LeRobotSource:
    # One `fps` may be for other data sets that are opened along with it.
    if fps not in (None, source.fps):
        logger.warning(
            "%s: has %g frames a second, and is read so, whatever `fps` says (%g)", source.name, source.fps, fps
        )
    return source


def _open_plain_files(
    path: Path,
    camera: str | None,
    embodiment: str | None,
    episodes: Sequence[int] | None,
    name: str | None,
    fps: float | None,
) -> EpisodeSource:
    files = [path] if path.is_file() else list(path.rglob("*"))
    has_images, has_videos = (any(map(is_kind, files)) for is_kind in (is_numbered_image, is_video_file))
    if has_images and has_videos:
        raise DataError(f"{path} holds numbered images and video files; give a folder of one kind")
    if not has_images and not has_videos:
        kind = next((kind for pattern, kind in _OTHER_KINDS.items() if any(path.rglob(pattern))), None)
        found = f"seems to hold {kind}, which is not supported" if kind else "is no data set: it lacks meta/info.json"
        raise DataError(f"{path} {found}; {_WANTED}")
    _refuse_camera(path, camera)
    if has_videos:
        return VideoFileSource(path, fps, embodiment, episodes, name)
    if fps is None:
        raise DataError(f"{path} holds images, which do not tell their frame rate; give it as `fps`")
    return ImageFolderSource(path, fps, embodiment, episodes, name)


def _refuse_camera(path: Path, camera: str | None) -> None:
    if camera is not None:
        raise DataError(f"{path} holds plain frames of one camera; leave out `camera`, got {camera!r}")
