# SPDX-License-Identifier: Apache-2.0
"""The files that make up a LeRobot data set, version 3.0, written in one pass: each holds many episodes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..readers.lerobot_metadata import DATA_PATHS, VIDEO_PATHS
from .video import VideoWriter

CHUNKS_SIZE = 1000
"""Files a folder."""

EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"

_EPISODES_A_ROW_GROUP = 64


class _RollingFiles:
    """Counts files and goes on to the next before an episode that would make the current one too large."""

    def __init__(self, max_bytes: int) -> None:
        self.chunk_index = self.file_index = 0
        self._max_bytes = max_bytes
        self._frames = 0
        self._is_first = True

    def _start_episode(self, num_frames: int, num_bytes: int) -> bool:
        """Return whether the episode must open a file: the first, or the next because the current is full."""
        bytes_a_frame = num_bytes / self._frames if self._frames else 0.0
        opens = self._is_first
        if not opens and num_bytes + bytes_a_frame * num_frames >= self._max_bytes:
            chunk, self.file_index = divmod(self.file_index + 1, CHUNKS_SIZE)
            self.chunk_index += chunk
            opens = True
        self._frames = num_frames + (0 if opens else self._frames)
        self._is_first = False
        return opens


class RollingVideo(_RollingFiles):
    """Appends episodes to `videos/CAMERA/chunk-000/file-000.mp4`, `file-001.mp4`, …"""

    def __init__(self, root: Path, camera: str, fps: float, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._root, self._camera, self._fps = root, camera, fps
        self._writer: VideoWriter | None = None

    def append(self, frames: np.ndarray) -> dict[str, int | float]:
        """Encode an episode's frames; return the episode's columns that say where they are."""
        writer = self._writer
        if self._start_episode(len(frames), writer.num_bytes if writer else 0) or writer is None:
            self.close()
            path = self._root / VIDEO_PATHS[3].format(
                video_key=self._camera, chunk_index=self.chunk_index, file_index=self.file_index
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            writer = self._writer = VideoWriter(path, self._fps)
        start = writer.num_frames
        writer.write(frames)
        return {
            f"videos/{self._camera}/chunk_index": self.chunk_index,
            f"videos/{self._camera}/file_index": self.file_index,
            f"videos/{self._camera}/from_timestamp": start / self._fps,
            f"videos/{self._camera}/to_timestamp": writer.num_frames / self._fps,
        }

    def close(self) -> None:
        """Complete the current file."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


class RollingParquet(_RollingFiles):
    """Appends episodes to `data/chunk-000/file-000.parquet`, …, one row group each (what lerobot does too)."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._root = root
        self._path: Path | None = None
        self._writer: Any = None

    def append(self, columns: Mapping[str, np.ndarray]) -> dict[str, int | float]:
        """Write an episode's rows; return the episode's columns that say where they are."""
        import pyarrow.parquet as parquet

        table = to_table(columns)
        if self._start_episode(table.num_rows, self._path.stat().st_size if self._path else 0):
            self.close()
            self._path = self._root / DATA_PATHS[3].format(chunk_index=self.chunk_index, file_index=self.file_index)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = parquet.ParquetWriter(self._path, table.schema, write_page_checksum=True)
        self._writer.write_table(table)
        return {"data/chunk_index": self.chunk_index, "data/file_index": self.file_index}

    def close(self) -> None:
        """Complete the current file."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()


class EpisodesFile:
    """Writes `meta/episodes`, a row an episode; the first row settles the columns and their types."""

    def __init__(self, root: Path) -> None:
        self._path = root / EPISODES_PATH
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row of scalars, lists and arrays."""
        plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in row.items()}
        self._rows.append(plain | {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0})
        if len(self._rows) >= _EPISODES_A_ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Complete the file."""
        self._flush()
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _flush(self) -> None:
        import pyarrow
        import pyarrow.parquet as parquet

        if not self._rows:
            return
        table = pyarrow.Table.from_pylist(self._rows, schema=self._writer.schema if self._writer else None)
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = parquet.ParquetWriter(self._path, table.schema, write_page_checksum=True)
        self._writer.write_table(table)
        self._rows.clear()


def to_table(columns: Mapping[str, np.ndarray]) -> Any:
    """Make a `pyarrow.Table`; columns of shape `(num_rows, size)` become lists of fixed size, of size 1 scalars."""
    import pyarrow

    arrays = {}
    for key, values in columns.items():
        flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
        size = values.shape[1] if values.ndim == 2 else 1
        # lerobot declares features of shape (1,) as plain values, and reads no lists for them.
        arrays[key] = flat if size == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, size)
    return pyarrow.table(arrays)
