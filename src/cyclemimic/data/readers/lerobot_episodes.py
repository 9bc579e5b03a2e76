# SPDX-License-Identifier: Apache-2.0
"""The tables of episodes and tasks in the `meta/` folder of a LeRobot data set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..episode import DataError, check_num_frames
from .parquet import parquet_columns, read_rows
from .plain_files import inside

_EPISODE_COLUMNS = {"episode_index", "tasks", "length", "dataset_from_index", "dataset_to_index", "task_index"}
_EPISODE_PREFIXES = ("stats/", "videos/", "data/", "meta/")
# Indices, and seconds into a file.
_MAX_NUMBER = 1 << 31


class VideoPart(NamedTuple):
    """Where in which video file an episode is (version 3), in seconds; `end_s` is `None` where the data set does not say."""

    chunk_index: int = 0
    file_index: int = 0
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True)
class EpisodeRecord:
    """What `meta/` says of one episode.

    Args:
        index (`int`): Episode index.
        num_frames (`int`): Number of frames.
        tasks (`tuple[str, ...]`): Task strings, in no meaningful order.
        data_file (`tuple[int, int]`): Chunk and file index of its Parquet file (version 3).
        videos (`Mapping[str, VideoPart]`): Its part of a video file, a camera (version 3).
        attributes (`Mapping[str, object]`): Further scalars.
    """

    index: int
    num_frames: int
    tasks: tuple[str, ...]
    data_file: tuple[int, int] = (0, 0)
    videos: Mapping[str, VideoPart] = field(default_factory=dict)
    attributes: Mapping[str, object] = field(default_factory=dict)


def read_episodes(root: Path, version: int) -> list[EpisodeRecord]:
    """Return the data set's episodes in the order of their indices (`DataError` if the tables are unusable)."""
    found = _episodes_v2(root) if version == 2 else _episodes_v3(root)
    records = sorted(found, key=lambda record: record.index)
    for record, other in pairwise(records):
        if record.index == other.index:
            raise DataError(f"{root}: meta/ lists episode {record.index} more than once; correct its list of episodes")
    return records


def is_own_episode_column(key: str) -> bool:
    """Whether a column of the episodes table is the format's own; every other scalar is an attribute."""
    return key in _EPISODE_COLUMNS or key.startswith(_EPISODE_PREFIXES)


def read_tasks(root: Path, version: int) -> dict[int, str]:
    """Return the task string of every task index (empty where the data set has no tasks file)."""
    if version == 2:
        path = inside(root, "meta/tasks.jsonl")
        rows = list(_rows_of_jsonl(path, ("task_index", "task"))) if path.is_file() else []
        return {_number(row, "task_index", path): str(row["task"]) for row in rows if row["task"] is not None}
    path = inside(root, "meta/tasks.parquet")
    if not path.is_file():
        return {}
    names = parquet_columns(path)
    # pandas names the index column of the task strings "task", or "__index_level_0__" where the index has no name.
    string = next(
        (name for name in ("task", "__index_level_0__", *names) if name in names and name != "task_index"), None
    )
    if "task_index" not in names or string is None:
        raise DataError(f"{path} lacks the task_index or the task column, got {sorted(names)}; write it again")
    return {_number(row, "task_index", path): str(row[string]) for row in read_rows(path) if row[string] is not None}


def _episodes_v2(root: Path) -> Iterator[EpisodeRecord]:
    path = inside(root, "meta/episodes.jsonl")
    if not path.is_file():
        raise DataError(f"{root} lacks meta/episodes.jsonl; download the whole `meta/` folder")
    for row in _rows_of_jsonl(path, ("episode_index", "length")):
        yield _record(row, path)


def _episodes_v3(root: Path) -> Iterator[EpisodeRecord]:
    paths = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not paths:
        raise DataError(f"{root} holds zero episodes: meta/episodes has no Parquet file; download the whole data set")
    for path in paths:
        inside(root, path.relative_to(root))
        # The flattened statistics are most of the file, and nothing here needs them.
        names = [name for name in parquet_columns(path) if not name.startswith(("stats/", "meta/"))]
        cameras = [name.split("/")[1] for name in names if re.fullmatch(r"videos/[^/]+/from_timestamp", name)]
        places = [f"videos/{camera}/{name}" for camera in cameras for name in ("chunk_index", "file_index")]
        missing = {"episode_index", "length", "data/chunk_index", "data/file_index", *places} - set(names)
        if missing:
            raise DataError(f"{path} lacks the columns {sorted(missing)}; download or write it again")
        for row in read_rows(path, names):
            videos = {
                camera: _video_part(row, f"videos/{camera}", path)
                for camera in cameras
                if row[f"videos/{camera}/from_timestamp"] is not None
            }
            data_file = _number(row, "data/chunk_index", path), _number(row, "data/file_index", path)
            yield _record(row, path, data_file, videos)


def _video_part(row: Mapping[str, Any], prefix: str, path: Path) -> VideoPart:
    start_s = float(_number(row, f"{prefix}/from_timestamp", path, (int, float)))
    end = f"{prefix}/to_timestamp"
    end_s = None if row.get(end) is None else float(_number(row, end, path, (int, float)))
    return VideoPart(
        _number(row, f"{prefix}/chunk_index", path), _number(row, f"{prefix}/file_index", path), start_s, end_s
    )


def _number(row: Mapping[str, Any], key: str, path: Path, kinds: Any = int) -> Any:
    value: Any = _whole(row[key]) if kinds is int else row[key]
    if not isinstance(value, kinds) or not 0 <= value < _MAX_NUMBER:
        raise DataError(f"{path}: {key} must be a number of at least 0, got {str(value)[:40]}; correct the file")
    return value


def _whole(value: Any) -> Any:
    """A whole number as such: pandas writes columns of them as floats where some are missing."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_NUMBER else value


def _record(
    row: Mapping[str, Any],
    path: Path,
    data_file: tuple[int, int] = (0, 0),
    videos: Mapping[str, VideoPart] | None = None,
) -> EpisodeRecord:
    index, length, tasks = _whole(row["episode_index"]), _whole(row["length"]), row.get("tasks") or []
    if not isinstance(index, int) or not isinstance(length, int) or not 0 <= index < _MAX_NUMBER or length < 1:
        raise DataError(
            f"{path}: an episode needs an index of at least 0 and a length of at least 1, got {index!r} and "
            f"{length!r}; correct the file"
        )
    check_num_frames(length, f"{path}, episode {index}")
    if not isinstance(tasks, (str, list)):
        raise DataError(
            f"{path}: tasks of episode {index} must be texts, got {type(tasks).__name__}; correct the file"
        )
    attributes = {
        key: value
        for key, value in row.items()
        if not is_own_episode_column(key) and isinstance(value, (bool, int, float, str))
    }
    tasks = [tasks] if isinstance(tasks, str) else tasks
    said = tuple(str(task) for task in tasks if task is not None)
    return EpisodeRecord(index, length, said, data_file, videos or {}, attributes)


def _rows_of_jsonl(path: Path, required: Sequence[str]) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error}); download it again") from error
            if not isinstance(row, dict) or any(key not in row for key in required):
                raise DataError(f"{path}, line {number}: must be an object with {list(required)}; download it again")
            yield row
