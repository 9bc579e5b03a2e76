# SPDX-License-Identifier: Apache-2.0
"""Writes LeRobot data sets, version 3.0, as lerobot lays them out, without lerobot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ..atomic import AtomicFolder
from ..episode import DataError
from ..feature_statistics import DatasetStatistics
from ..numeric_inputs import is_rate
from ..readers.lerobot_episodes import is_own_episode_column
from .lerobot_files import EpisodesFile, RollingParquet, RollingVideo
from .lerobot_info import describe_features, write_info, write_statistics, write_tasks

_DATA_FILE_MB = 100
_VIDEO_FILE_MB = 200
# 1,000 frames of 128 x 128 take about 1 MB.
_MIN_FREE_BYTES = 256 << 20


class LeRobotWriter:
    """Writes episodes of one robot and one camera to a LeRobot data set, version 3.0.

    A context manager. Everything goes to the sibling folder `<root>.partial`, which gets its name when the block ends
    well; after an exception it is removed. Memory stays at one episode: frames are encoded and rows written as they come.

    Args:
        root (`str` or `Path`): Folder to make.
        fps (`float`): Frames per second.
        robot_type (`str`): Robot body, the `embodiment` when read back.
        action_names (`Sequence[str]`): Names of the action's dimensions.
        state_names (`Sequence[str]`, *optional*): Names of the state's dimensions; without, no states are written.
        camera (`str`, *optional*, defaults to `"observation.images.main"`): Camera key.

    Raises:
        DataError: If `root` exists, no episode was added, or the disk has too little room, at the start (256 MiB) or
            later.
        ValueError: If an argument does not fit.

    Example:

    ```python
    >>> import tempfile
    >>> import numpy as np
    >>> from cyclemimic.data import LeRobotSource, LeRobotWriter

    >>> root = tempfile.mkdtemp() + "/demonstrations"
    >>> with LeRobotWriter(root, fps=10, robot_type="sawyer", action_names=["x", "gripper"]) as writer:
    ...     writer.add_episode(np.zeros((5, 32, 32, 3), np.uint8), np.zeros((5, 2)), "open the drawer")
    >>> len(LeRobotSource(root))
    1
    ```
    """

    def __init__(
        self,
        root: str | Path,
        fps: float,
        robot_type: str,
        action_names: Sequence[str],
        state_names: Sequence[str] | None = None,
        camera: str = "observation.images.main",
    ) -> None:
        if not is_rate(fps):
            raise ValueError(f"`fps` must be a number above 0, got {fps!r}")
        if not isinstance(camera, str) or not camera or "/" in camera or camera in (".", ".."):
            # It names a folder and is part of column names that are split at slashes.
            raise ValueError(f"`camera` must be a name without slashes, got {camera!r}")
        self.root = Path(root)
        self._folder = AtomicFolder(root)
        self.fps = int(fps) if float(fps).is_integer() else float(fps)
        self.robot_type = robot_type
        self.camera = camera
        self._vectors = {"action": _checked_names("action_names", action_names)}
        if state_names is not None:
            self._vectors["observation.state"] = _checked_names("state_names", state_names)
        self._image_shape: tuple[int, int, int] | None = None
        self._attribute_types: dict[str, type] | None = None
        self._tasks: dict[str, int] = {}
        self._num_episodes = self._num_frames = 0
        self._statistics = DatasetStatistics()
        self._is_broken = False
        self._data = RollingParquet(self._folder.partial, _DATA_FILE_MB << 20)
        self._video = RollingVideo(self._folder.partial, camera, self.fps, _VIDEO_FILE_MB << 20)
        self._episodes = EpisodesFile(self._folder.partial)
        self._files = (self._video, self._data, self._episodes)

    def __enter__(self) -> LeRobotWriter:
        self._folder.start(_MIN_FREE_BYTES)
        return self

    def add_episode(
        self,
        frames: np.ndarray,
        actions: np.ndarray,
        instruction: str,
        states: np.ndarray | None = None,
        attributes: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        """Append an episode.

        Args:
            frames (`np.ndarray` of shape `(num_frames, height, width, 3)`): RGB, `uint8`; all episodes share one size,
                even in both directions.
            actions (`np.ndarray` of shape `(num_frames, action_dim)`): Finite; stored as `float32`.
            instruction (`str`): What the robot is asked to do.
            states (`np.ndarray` of shape `(num_frames, state_dim)`, *optional*): Required with `state_names`.
            attributes (`Mapping`, *optional*): Scalars to keep with the episode, such as `{"success": True}`; the same
                names and types in every episode.

        Raises:
            DataError: If the disk is full.
            ValueError: If a value does not fit.
        """
        if not self._folder.partial.is_dir():
            raise ValueError("`add_episode` must be called inside the writer's `with` block")
        self._check_frames(frames)
        vectors = self._checked_vectors(len(frames), actions, states)
        attributes = self._checked_attributes(attributes or {})
        if not isinstance(instruction, str) or not instruction.strip():
            raise ValueError(f"`instruction` must be a text, got {instruction!r}")
        self._image_shape = frames.shape[1:]
        self._attribute_types = {key: type(value) for key, value in attributes.items()}
        # A write that fails midway leaves files that disagree: they must not become a data set.
        self._is_broken = True
        with self._folder.one_line_errors():
            self._write_episode(frames, vectors, instruction, attributes)
        self._is_broken = False

    def close(self) -> None:
        """Complete the data set and give it its name. The `with` block calls this."""
        if self._is_broken or self._image_shape is None:
            reason = "writing an episode failed" if self._is_broken else "no episode was added"
            raise DataError(f"{self.root}: {reason}, so there is no data set to keep; record again")
        with self._folder.one_line_errors():
            for files in self._files:
                files.close()
            self._write_metadata(self._image_shape)
        self._folder.commit()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
        finally:
            if self._folder.partial.exists():
                self._abandon()

    def _abandon(self) -> None:
        try:
            for files in self._files:
                # To release memory and handles; what made the writing fail is on its way to the caller already.
                with suppress(OSError, ValueError):
                    files.close()
        finally:
            self._folder.discard()

    def _check_frames(self, frames: np.ndarray) -> None:
        if not isinstance(frames, np.ndarray):
            raise ValueError(f"`frames` must be a NumPy array (`np.asarray(frames)`), got {type(frames).__name__}")
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
            raise ValueError(
                f"`frames` must be uint8 of shape (num_frames, height, width, 3), got {frames.dtype} {frames.shape}"
            )
        if frames.shape[1] % 2 or frames.shape[2] % 2:
            raise ValueError(f"`frames` must be even in height and width, as video is, got {frames.shape[1:3]}")
        if self._image_shape not in (None, frames.shape[1:]):
            raise ValueError(f"`frames` must be of the first episode's {self._image_shape}, got {frames.shape[1:]}")

    def _checked_vectors(
        self, num_frames: int, actions: np.ndarray, states: np.ndarray | None
    ) -> dict[str, np.ndarray]:
        given = {"action": actions, "observation.state": states}
        if (states is None) == ("observation.state" in self._vectors):
            raise ValueError("`states` and `state_names` go together: give both or neither")
        vectors = {}
        for key, names in self._vectors.items():
            values = np.asarray(given[key], dtype=np.float32)
            if values.shape != (num_frames, len(names)) or not np.isfinite(values).all():
                what = "actions" if key == "action" else "states"
                raise ValueError(
                    f"`{what}` must be finite and of shape ({num_frames}, {len(names)}): as many rows as frames, a "
                    f"column a name; got shape {values.shape}"
                )
            vectors[key] = values
        return vectors

    def _checked_attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in attributes.items()}
        types = {key: type(value) for key, value in plain.items()}
        scalars = (bool, int, float, str)
        wrong = [key for key, kind in types.items() if kind not in scalars or is_own_episode_column(key)]
        if wrong:
            raise ValueError(f"`attributes` must be bool, int, float or str under names of their own, got {wrong}")
        if self._attribute_types not in (None, types):
            raise ValueError(f"`attributes` must be those of the first episode, {self._attribute_types}, got {types}")
        return plain

    def _write_episode(
        self, frames: np.ndarray, vectors: dict[str, np.ndarray], instruction: str, attributes: dict[str, Any]
    ) -> None:
        num_frames, frame_index = len(frames), np.arange(len(frames), dtype=np.int64)
        columns = {
            **vectors,
            "timestamp": (frame_index / self.fps).astype(np.float32),
            "frame_index": frame_index,
            "episode_index": np.full_like(frame_index, self._num_episodes),
            "index": frame_index + self._num_frames,
            "task_index": np.full_like(frame_index, self._tasks.setdefault(instruction, len(self._tasks))),
        }
        row = {
            "episode_index": self._num_episodes,
            "tasks": [instruction],
            "length": num_frames,
            **self._data.append(columns),
            "dataset_from_index": self._num_frames,
            "dataset_to_index": self._num_frames + num_frames,
            **self._video.append(frames),
            **attributes,
        }
        self._episodes.append(row | self._statistics.update(columns, self.camera, frames))
        self._num_episodes += 1
        self._num_frames += num_frames

    def _write_metadata(self, image_shape: tuple[int, int, int]) -> None:
        features = describe_features(self._vectors, self.camera, image_shape, self.fps)
        numbers = {
            "total_episodes": self._num_episodes,
            "total_frames": self._num_frames,
            "total_tasks": len(self._tasks),
            "data_files_size_in_mb": _DATA_FILE_MB,
            "video_files_size_in_mb": _VIDEO_FILE_MB,
        }
        write_tasks(self._folder.partial, list(self._tasks))
        write_statistics(self._folder.partial, self._statistics.result())
        write_info(self._folder.partial, self.robot_type, self.fps, features, numbers)


def _checked_names(name: str, names: Sequence[str]) -> list[str]:
    # A text is a sequence of its letters.
    each = list(names) if isinstance(names, Iterable) and not isinstance(names, str) else []
    if not each or not all(isinstance(one, str) for one in each) or len(set(each)) < len(each):
        raise ValueError(f"`{name}` must be a list of names, one a dimension and each another, got {names!r}")
    return each
