# SPDX-License-Identifier: Apache-2.0
"""The `meta/` folder of a LeRobot data set, versions 2.0, 2.1 and 3.0, and the paths that it leads to."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..episode import DataError
from .hub import HubFolder
from .lerobot_episodes import EpisodeRecord, VideoPart, read_episodes, read_tasks
from .plain_files import inside, read_json_object

# What lerobot writes; also what is tried where a template of info.json leads nowhere.
DATA_PATHS = {
    2: "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    3: "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
}
VIDEO_PATHS = {
    2: "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    3: "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
}
# From a picture an hour to high-speed cameras.
_MIN_FPS, _MAX_FPS = 1 / 3600, 100_000
# What data sets write where they do not say which robot they are of.
_NO_ROBOT = {"", "unknown", "none", "null", "n/a"}
_TEMPLATE_FIELDS = {"episode_chunk", "episode_index", "chunk_index", "file_index", "video_key"}


class LeRobotMetadata:
    """Reads `meta/` and resolves paths; holds no frame data.

    Args:
        root (`Path`): The data set's folder.
        name (`str`): Name for messages.
        hub (`HubFolder`, *optional*): Where files come from that are not in the folder yet.

    Raises:
        DataError: If the folder is no LeRobot data set of version 2.0, 2.1 or 3.0, or its metadata is unusable.
    """

    def __init__(self, root: Path, name: str, hub: HubFolder | None = None) -> None:
        self.root = root
        self._hub = hub
        self.name = name
        self.info = _read_info(root)
        self.version = _version(self.info, root)
        self.fps = self._number("fps", _MIN_FPS, _MAX_FPS)
        self.features: dict[str, dict[str, Any]] = self._mapping("features")
        self.chunks_size = int(self._number("chunks_size", 1, 1e9, default=1000))
        robot_type = str(self.info.get("robot_type") or "").strip()
        self.robot_type = name if robot_type.lower() in _NO_ROBOT else robot_type
        self.episodes = read_episodes(root, self.version)
        if not self.episodes:
            raise DataError(f"{root} holds zero episodes; record or download some first")

    @property
    def is_remote(self) -> bool:
        """Whether files are downloaded when they are asked for."""
        return self._hub is not None

    @cached_property
    def tasks(self) -> dict[int, str]:
        """The task string of every task index: read once, and only where episodes need it."""
        return read_tasks(self.root, self.version)

    @property
    def cameras(self) -> list[str]:
        """Keys of the video and image features, depth maps left out, in the order of info.json."""
        return [
            key
            for key, feature in self.features.items()
            if feature.get("dtype") in ("video", "image") and not _is_depth_map(feature)
        ]

    def has_one_channel(self, camera: str) -> bool:
        """Whether a camera's pictures are depth that is not marked so, or grey; channels come first or last."""
        shape = self.features[camera].get("shape")
        return isinstance(shape, list) and len(shape) == 3 and 1 in (shape[0], shape[-1])

    def data_file(self, record: EpisodeRecord) -> Path:
        """Path of the Parquet file with an episode's rows (`DataError` if there is none)."""
        path = self._find("data_path", DATA_PATHS[self.version], record, *record.data_file)
        if path is None:
            raise DataError(
                f"{self.root} lacks the data file of episode {record.index}; download it or leave the episode out "
                "with `--skip_broken`"
            )
        return path

    def video_file(self, record: EpisodeRecord, camera: str) -> Path | None:
        """Path of the video file with an episode's frames, or `None` if there is none."""
        if self.version == 3 and camera not in record.videos:
            return None
        part = record.videos.get(camera, VideoPart())
        return self._find("video_path", VIDEO_PATHS[self.version], record, part.chunk_index, part.file_index, camera)

    def _find(
        self, key: str, standard: str, record: EpisodeRecord, chunk_index: int, file_index: int, camera: str = ""
    ) -> Path | None:
        """First existing file among info.json's template and the standard one."""
        values: dict[str, int | str] = {
            "episode_chunk": record.index // self.chunks_size,
            "episode_index": record.index,
            "chunk_index": chunk_index,
            "file_index": file_index,
            "video_key": camera,
        }
        for template in dict.fromkeys([self.info.get(key) or standard, standard]):
            relative = self._format(key, template, values)
            path = inside(self.root, relative)
            if self._hub is not None and not path.is_file():
                self._hub.fetch(relative)
                path = inside(self.root, relative)
            if path.is_file():
                return path
        return None

    def _format(self, key: str, template: object, values: Mapping[str, int | str]) -> str:
        """Fill in a template of info.json, which is data: only known fields and plain widths are taken."""
        try:
            if not isinstance(template, str):
                raise ValueError("no text")
            for _, name, spec, conversion in string.Formatter().parse(template):
                is_plain = not conversion and re.fullmatch(r"(0\d{1,2}d|d)?", spec or "")
                if name is not None and not (name in _TEMPLATE_FIELDS and is_plain):
                    raise ValueError("fields")
            return template.format(**values)
        except ValueError:
            raise DataError(
                f"{self.root}: {key} in meta/info.json is not a usable template ({template!r}); LeRobot writes "
                f"{DATA_PATHS[self.version]!r}"
            ) from None

    def _number(self, key: str, least: float, most: float, default: float | None = None) -> float:
        value = self.info.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise DataError(
                f"{self.root}: {key} in meta/info.json must be a number from {least:.3g} to {most:g}, got "
                f"{str(value)[:40]}; correct it"
            )
        return float(value)

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self.info.get(key)
        if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
            raise DataError(f"{self.root}: {key} in meta/info.json must map names to descriptions; correct it")
        return value


def _read_info(root: Path) -> dict[str, Any]:
    if not inside(root, "meta/info.json").is_file():
        raise DataError(f"{root} is no LeRobot data set: it lacks meta/info.json; give the folder that holds `meta/`")
    return read_json_object(root, "meta/info.json")


def _version(info: Mapping[str, Any], root: Path) -> int:
    text = str(info.get("codebase_version"))
    match = re.fullmatch(r"v?([23])\.\d+(\.\d+)?", text)
    if match is None:
        raise DataError(
            f"{root}: codebase_version {text!r} in meta/info.json is not supported (v2.0, v2.1, v3.0); convert the "
            "data set with lerobot's scripts"
        )
    return int(match[1])


def _is_depth_map(feature: Mapping[str, Any]) -> bool:
    # lerobot has kept this mark under three names.
    given = [feature.get("video_info"), feature.get("info")]
    details = {key: value for part in given if isinstance(part, dict) for key, value in part.items()}
    return bool(details.get("is_depth_map") or details.get("video.is_depth_map"))
