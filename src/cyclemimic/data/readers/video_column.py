# SPDX-License-Identifier: Apache-2.0
"""Reads the videos of a Hugging Face `datasets` Video column, each an episode."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..episode import DataError, Episode, check_num_frames
from .arrow_tables import ArrowTable, find_tables, is_saved, is_table, open_table, wrap_dataset
from .cameras import choose_camera
from .licences import read_licence
from .plain_files import FramesOnly, choose_episodes, find_files, inside, split_pattern
from .video import NamedVideo, iter_frames
from .video_files import VideoHeader, check_fps, fps_to_look_with, read_header, read_headers

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# The first that is there holds the instructions.
_TEXT_COLUMNS = ("instruction", "text", "caption", "task")


class VideoColumnSource:
    """The rows of a data set with a `datasets` Video column as a sequence of [`Episode`]s.

    All are looked at with one frame rate, as in [`VideoFileSource`]. The instruction is the text of the first of the
    columns `instruction`, `text`, `caption` and `task` that is there, and the choice is logged. There are no actions.

    Videos in the table are decoded from memory, one at a time. Of Arrow, only their headers are read here; of Parquet,
    each chosen video is, once, as nothing else tells where in it a header is. Or a row holds the path of a file: in a
    data set on disk, one relative to its folder that does not lead out of it. A `datasets.Dataset` is its owner's own
    choice of files: there it may be any file of this machine.

    Args:
        data (`str`, `Path` or `datasets.Dataset`): A folder that `Dataset.save_to_disk` made; a folder of Parquet files
            as `Dataset.to_parquet` and `push_to_hub` write them, of one split, or a pattern such as
            `"data/train-*.parquet"`; one Parquet or Arrow file; or the object. One in memory goes to each worker whole,
            one on disk does not.
        camera (`str`, *optional*): Video column to read; default is the only one, of several one that sees the scene,
            and the choice is logged.
        fps (`float`, *optional*): Frames per second to look at them with; default is the lowest rate of the videos, at
            most 30.
        embodiment (`str`, *optional*, defaults to `"unknown"`): Body that moves in them; `"human"` is one.
        episodes (`Sequence[int]`, *optional*): Rows to use; all by default.
        name (`str`, *optional*): Name of the data set; default is the folder's name, or what `datasets` calls it.

    Raises:
        DataError: If there is no Video column, or a row has no video that opens and tells how long it is.
        ValueError: If `fps` is not positive, or `data` is something else.

    Example:

    ```python
    >>> from datasets import load_dataset
    >>> from cyclemimic.data import VideoColumnSource

    >>> videos = load_dataset("owner/videos", split="train")  # doctest: +SKIP
    >>> frames = VideoColumnSource(videos, embodiment="human")[0].read_frames([0, 30])  # doctest: +SKIP
    ```
    """

    def __init__(
        self,
        data: str | Path | Dataset,
        camera: str | None = None,
        fps: float | None = None,
        embodiment: str | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        check_fps(fps)
        table, self._what, root, known_as = _open(data)
        self.name = name or known_as
        self.embodiment = embodiment or "unknown"
        self.licence = None if root is None else read_licence(root)
        self.cameras = _video_columns(table.schema)
        if not self.cameras:
            raise DataError(
                f"{self._what} has no Video column of `datasets`, but {table.schema.names}; cast one to it"
            )
        if not len(table):
            raise DataError(f"{self._what} has no rows; write it again")
        self.camera = choose_camera(self.cameras, camera, self._what, self.name)
        self._column = _VideoColumn(table, self.camera, _text_column(table.schema, self.name), self._what, root)
        self._rows = choose_episodes(self._what, len(table), episodes)
        in_order = sorted(set(self._rows))
        self._headers = read_headers(in_order, self._column.header_reads(in_order))
        # Of the rows that are used: to look at the others would be to read their videos.
        self.fps = float(fps or fps_to_look_with(self._headers.values()))
        for row, header in self._headers.items():
            check_num_frames(header.seconds * self.fps, f"{self._column.where(row)}, {header.seconds:.4g} s long")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Episode:
        row = self._rows[index]
        num_frames = max(1, round(self._headers[row].seconds * self.fps))
        reader = _VideoRowReader(self._column, row, self.fps, num_frames)
        return Episode(self.name, self.embodiment, row, num_frames, self.fps, self.camera, reader)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"VideoColumnSource({self._what!r}, camera={self.camera!r}, {len(self)} episodes, {self.fps:g} fps)"


@dataclass(frozen=True)
class _VideoColumn:
    """A Video column, and the texts beside it. Files are followed within `root`, if there is one."""

    table: ArrowTable
    camera: str
    text: str | None
    what: str
    root: Path | None

    def where(self, row: int) -> str:
        return f"{self.what}, row {row}, column {self.camera!r}"

    def header_reads(self, rows: Sequence[int]) -> Iterator[partial[VideoHeader]]:
        cells = self.table.cells(self.camera, rows)
        return (partial(self._read_header, cell, row) for cell, row in zip(cells, rows))

    def read_video(self, row: int) -> NamedVideo:
        return self._video(self.table.cell(self.camera, row), row)

    def _read_header(self, cell: Any, row: int) -> VideoHeader:
        return read_header(self._video(cell, row))

    def _video(self, cell: Any, row: int) -> NamedVideo:
        import pyarrow

        where = self.where(row)
        content, path = cell.field("bytes"), cell.field("path")[0].as_py()
        is_there = cell.is_valid()[0].as_py()
        if is_there and content.null_count == 0:
            return NamedVideo(pyarrow.BufferReader(_bytes_of(content)), where)
        if not is_there or not path:
            raise DataError(f"{where} holds no video; add one or leave its episode out with `--skip_broken`")
        return NamedVideo(self._locate(path, where), f"{path} ({where})")

    def _locate(self, path: str, where: str) -> Path:
        is_local = "://" not in path
        if is_local and self.root is None:
            return Path(path)
        reason = f"{path[:200]!r} is no path {'of this machine' if self.root is None else f'within {self.root}'}"
        if is_local and self.root is not None and not Path(path).is_absolute() and ".." not in Path(path).parts:
            try:
                return inside(self.root, path)
            except DataError as fault:
                reason = str(fault)
        raise DataError(
            f"{where}: {reason}; write the data set again with the videos in it, as `Dataset.save_to_disk` does"
        )


@dataclass(frozen=True)
class _VideoRowReader(FramesOnly):
    """Episode reader of one row; see [`EpisodeReader`]."""

    column: _VideoColumn
    row: int
    fps: float
    num_frames: int

    def iter_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        return iter_frames(self.column.read_video(self.row), self.fps, self.num_frames, indices, by_time=True)

    def read_instruction(self) -> str | None:
        if self.column.text is None:
            return None
        text = self.column.table.cell(self.column.text, self.row)[0].as_py()
        return " ".join((text or "").split()) or None


def has_video_column(path: Path) -> bool:
    """Whether a path is that of a table with a Video column, or of a folder of such, or that `datasets` saved."""
    if is_table(path) or is_saved(path):
        return True
    files = find_files(path, None, is_table) if path.is_dir() else []
    return bool(files) and bool(_video_columns(open_table(files[:1]).schema))


def _open(data: str | Path | Dataset) -> tuple[ArrowTable, str, Path | None, str]:
    """The table, what messages call it, its folder and its name."""
    if isinstance(data, str | Path):
        root, pattern = split_pattern(Path(data))
        table = open_table(find_tables(root, pattern))
        return table, str(data), root.parent if root.is_file() else root, root.resolve().stem
    from datasets import Dataset

    if not isinstance(data, Dataset):
        raise ValueError(
            "`data` must be a path or a `datasets.Dataset` (one split, not streamed), got a "
            f"{type(data).__module__}.{type(data).__name__}"
        )
    name = data.info.dataset_name or "dataset"
    return wrap_dataset(data, name), name, None, name


def _video_columns(schema: Any) -> list[str]:
    """The columns that `datasets` says are of its type Video, and that are kept as it keeps them."""
    import pyarrow

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        # Lists of values are lists here.
        kinds = {name: feature.get("_type") for name, feature in features.items() if isinstance(feature, dict)}
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return []
    kept_as = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    columns = [name for name, kind in kinds.items() if kind == "Video" and name in schema.names]
    return [name for name in columns if schema.field(name).type == kept_as]


def _bytes_of(content: Any) -> Any:
    """The one value of a `pyarrow.BinaryArray` as a buffer, not copied: of a mapped file, little may be needed."""
    _, offsets, values = content.buffers()
    start, stop = np.frombuffer(offsets, np.int32, 2, 4 * content.offset).tolist()
    return values.slice(start, stop - start) if values is not None else b""


def _text_column(schema: Any, name: str) -> str | None:
    import pyarrow

    kinds = (pyarrow.string(), pyarrow.large_string())
    found = [text for text in _TEXT_COLUMNS if text in schema.names and schema.field(text).type in kinds]
    if not found:
        return None
    logger.info("%s: instructions are those of the column %r", name, found[0])
    return found[0]
