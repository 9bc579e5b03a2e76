# SPDX-License-Identifier: Apache-2.0
"""Reads LeRobot data sets, versions 2.0, 2.1 and 3.0, without lerobot."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..episode import DataError, Episode
from .cameras import choose_camera
from .hub import HubFolder
from .images import decode_image
from .lerobot_episodes import EpisodeRecord, VideoPart
from .lerobot_metadata import LeRobotMetadata
from .licences import read_licence
from .parquet import parquet_columns, read_column, read_parquet
from .plain_files import inside
from .video import iter_frames

logger = logging.getLogger(__name__)

_ACTION_KEYS = ("action", "actions")
_STATE_KEYS = ("observation.state", "state")
# Episodes at most, evenly spread, in which files of a camera are looked for.
_MAX_PROBED = 100


class LeRobotSource:
    """A LeRobot data set as a sequence of [`Episode`]s.

    Metadata is read here, Parquet columns and video frames when an episode is asked for them.

    Frame `i` of an episode is the video frame at `from_timestamp + i / fps`. The recorded `timestamp` column is not used:
    it jitters by half a period in real data sets, or starts at one period, while the video has one frame a row.

    Args:
        root (`str`, `Path` or `HubFolder`): The data set's folder, the one that holds `meta/`.
        camera (`str`, *optional*): Camera key, whole (`"observation.images.top"`) or its last part (`"top"`). Default:
            the only camera; of several, one that sees the scene, and the choice is logged.
        embodiment (`str`, *optional*): Robot body; default is `robot_type` of the data set, or where it says none
            (`"unknown"`), its name.
        episodes (`Sequence[int]`, *optional*): Indices of the episodes to use; all by default.
        name (`str`, *optional*): Name of the data set; default is the folder's name.

    Raises:
        DataError: If the folder is no such data set, or lacks the camera or an episode.

    Example:

    ```python
    >>> from cyclemimic.data import LeRobotSource

    >>> source = LeRobotSource("path/to/data_set", camera="top")  # doctest: +SKIP
    >>> frames = source[0].read_frames([0, 10])  # doctest: +SKIP
    ```
    """

    def __init__(
        self,
        root: str | Path | HubFolder,
        camera: str | None = None,
        embodiment: str | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        hub = root if isinstance(root, HubFolder) else None
        self.root = root.path if isinstance(root, HubFolder) else Path(root)
        self.repository = None if hub is None else hub.repository
        self.name = name or (hub.repository.split("/")[1] if hub else self.root.resolve().name)
        self._metadata = LeRobotMetadata(self.root, self.name, hub)
        self.fps = self._metadata.fps
        self.licence = read_licence(self.root, self._metadata.info)
        self.embodiment = embodiment or self._metadata.robot_type
        self._records = self._select(episodes)
        # Real data sets list features whose files were never published. A missing file is its episode's fault alone.
        probed = self._records[:: 1 + len(self._records) // _MAX_PROBED]
        self.cameras = [key for key in self._metadata.cameras if any(self._has_file(key, record) for record in probed)]
        self.camera = self._choose_camera(camera)
        self._warn_of_what_is_not_read()

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Episode:
        record = self._records[index]
        return Episode(
            source=self.name,
            embodiment=self.embodiment,
            index=record.index,
            num_frames=record.num_frames,
            fps=self.fps,
            camera=self.camera,
            reader=_LeRobotReader(self._metadata, record, self.camera),
            attributes=record.attributes,
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"LeRobotSource({str(self.root)!r}, camera={self.camera!r}, {len(self)} episodes, {self.fps:g} fps)"

    def _select(self, episodes: Sequence[int] | None) -> list[EpisodeRecord]:
        if episodes is None:
            return self._metadata.episodes
        records = {record.index: record for record in self._metadata.episodes}
        missing = [index for index in episodes if index not in records]
        if missing or not len(episodes):
            raise DataError(
                f"{self.root} has episodes {min(records)} to {max(records)}; `episodes` must name at least one of "
                f"them and no other, got {list(episodes)[:20]}"
            )
        return [records[index] for index in episodes]

    def _choose_camera(self, camera: str | None) -> str:
        if not self.cameras and camera is None:
            raise DataError(
                f"{self.root} has no camera with files (info.json lists {self._metadata.cameras}); download the videos"
            )
        colour = [key for key in self.cameras if not self._metadata.has_one_channel(key)]
        return choose_camera(
            self.cameras if camera is not None else colour or self.cameras, camera, self.root, self.name
        )

    def _warn_of_what_is_not_read(self) -> None:
        parts = [key for key in self._metadata.features if key.startswith(tuple(f"{key}." for key in _ACTION_KEYS))]
        if parts and not any(key in self._metadata.features for key in _ACTION_KEYS):
            logger.warning("%s: actions are read from one feature, `action`; not read are %s", self.name, parts)

    def _has_file(self, camera: str, record: EpisodeRecord) -> bool:
        if self._metadata.is_remote:
            # To look would be to download videos of every camera.
            return True
        if self._metadata.features[camera]["dtype"] == "image":
            try:
                return camera in parquet_columns(self._metadata.data_file(record))
            except DataError:  # missing or damaged: which whoever reads that episode hears
                return False
        return self._metadata.video_file(record, camera) is not None


@dataclass(frozen=True)
class _LeRobotReader:
    """Episode reader of one episode; see [`EpisodeReader`]."""

    metadata: LeRobotMetadata
    record: EpisodeRecord
    camera: str

    def iter_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        if self.metadata.features[self.camera]["dtype"] == "image":
            return self._iter_images(indices)
        path = self.metadata.video_file(self.record, self.camera)
        if path is None:
            raise DataError(
                f"{self.metadata.root} lacks the video of episode {self.record.index}, camera {self.camera}; download "
                "it or leave the episode out with `--skip_broken`"
            )
        part = self.record.videos.get(self.camera, VideoPart())
        return iter_frames(
            path, self.metadata.fps, self.record.num_frames, indices, start_s=part.start_s, end_s=part.end_s
        )

    def read_instruction(self) -> str | None:
        if self._said is not None:
            # What frames carry, not a mark such as "valid" beside it.
            return self._said[0]
        return (self.record.tasks[0].strip() or None) if self.record.tasks else None

    def read_instructions(self) -> list[str | None] | None:
        return None if self._said is None or len(set(self._said)) == 1 else self._said

    @cached_property
    def _said(self) -> list[str | None] | None:
        """What the frames carry, where `meta/` does not say one thing of the episode."""
        strings = self.metadata.tasks if len(self.record.tasks) != 1 else {}
        column = self._column("task_index") if strings else None
        if column is None:
            return None
        texts = {index: text.strip() or None for index, text in strings.items()}
        return [texts.get(int(index)) for index in column.ravel()]

    def read_actions(self) -> np.ndarray | None:
        return self._vectors(_ACTION_KEYS)

    def read_states(self) -> np.ndarray | None:
        return self._vectors(_STATE_KEYS)

    def _vectors(self, keys: Sequence[str]) -> np.ndarray | None:
        key = next((key for key in keys if key in self.metadata.features), None)
        if key is None:
            return None
        values = self._column(key)
        if values is None:
            raise DataError(
                f"{self.metadata.data_file(self.record)} has no column {key!r}, which meta/info.json lists; remove it "
                "there or write the file again"
            )
        # What does not fit becomes infinite, which those who need finite numbers look for.
        with np.errstate(over="ignore"):
            return values.astype(np.float32)

    def _column(self, key: str) -> np.ndarray | None:
        """This episode's rows of one column."""
        columns = read_column(self.metadata.data_file(self.record), key)
        if columns is None:
            return None
        values, episode_index = columns
        if self.metadata.version == 2 or episode_index is None:
            return values
        return values[episode_index == self.record.index]

    def _iter_images(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Decode frames kept as encoded images in the Parquet file (`dtype` image)."""
        path = self.metadata.data_file(self.record)
        # A file of version 2 holds one episode, as [`_column`] takes it: merged ones keep the numbers they had before.
        is_shared = self.metadata.version == 3 and "episode_index" in parquet_columns(path)
        filters = [("episode_index", "=", self.record.index)] if is_shared else None
        cells = read_parquet(path, [self.camera], filters).column(self.camera)
        if len(cells) != self.record.num_frames:
            raise DataError(
                f"{path} has {len(cells)} images for the {self.record.num_frames} frames of episode "
                f"{self.record.index}; write the file again or leave the episode out with `--skip_broken`"
            )
        return (self._decode_image(cells[index].as_py(), path) for index in indices)

    def _decode_image(self, cell: Any, path: Path) -> np.ndarray:
        data, name = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        if not isinstance(data, bytes) or not data:
            if not isinstance(name, str) or not name:
                raise DataError(f"{path}: {self.camera} has a row without an image; write the file again")
            data = inside(self.metadata.root, name)
        return decode_image(data, f"{path}: an image of {self.camera}")
