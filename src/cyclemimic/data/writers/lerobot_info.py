# SPDX-License-Identifier: Apache-2.0
"""The files of `meta/` that describe a LeRobot data set, version 3.0, as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..readers.lerobot_metadata import DATA_PATHS, VIDEO_PATHS
from .lerobot_files import CHUNKS_SIZE

_DEFAULT_FEATURES = {
    key: {"dtype": dtype, "shape": [1], "names": None}
    for key, dtype in [
        ("timestamp", "float32"),
        ("frame_index", "int64"),
        ("episode_index", "int64"),
        ("index", "int64"),
        ("task_index", "int64"),
    ]
}


def describe_features(
    vectors: Mapping[str, Sequence[str]], camera: str, image_shape: tuple[int, int, int], fps: float
) -> dict[str, dict[str, Any]]:
    """Describe the columns for info.json.

    Args:
        vectors (`Mapping[str, Sequence[str]]`): Names of the dimensions of every vector column.
        camera (`str`): Camera key.
        image_shape (`tuple[int, int, int]`): Height, width and channels.
        fps (`float`): Frames per second.
    """
    height, width, channels = image_shape
    video = {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": channels,
        "has_audio": False,
    }
    described: dict[str, dict[str, Any]] = {
        key: {"dtype": "float32", "shape": [len(names)], "names": list(names)} for key, names in vectors.items()
    }
    described[camera] = {
        "dtype": "video",
        "shape": [height, width, channels],
        "names": ["height", "width", "channels"],
        "info": video,
    }
    return described | _DEFAULT_FEATURES


def write_info(
    root: Path, robot_type: str, fps: float, features: Mapping[str, Any], numbers: Mapping[str, int]
) -> None:
    """Write `meta/info.json`, the file that makes a folder a data set. `numbers` are its totals and size limits."""
    info = {
        "codebase_version": "v3.0",
        "robot_type": robot_type,
        **numbers,
        "chunks_size": CHUNKS_SIZE,
        "fps": fps,
        "splits": {"train": f"0:{numbers['total_episodes']}"},
        "data_path": DATA_PATHS[3],
        "video_path": VIDEO_PATHS[3],
        "features": features,
    }
    (root / "meta" / "info.json").write_text(json.dumps(info, indent=4), encoding="utf-8")


def write_statistics(root: Path, statistics: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write `meta/stats.json`."""
    plain = {key: {name: value.tolist() for name, value in values.items()} for key, values in statistics.items()}
    (root / "meta" / "stats.json").write_text(json.dumps(plain, indent=4), encoding="utf-8")


def write_tasks(root: Path, tasks: Sequence[str]) -> None:
    """Write `meta/tasks.parquet` as pandas writes a frame whose index, named `task`, holds the task strings."""
    import pyarrow
    import pyarrow.parquet as parquet

    def column(name: str, pandas_type: str, numpy_type: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": pandas_type,
            "numpy_type": numpy_type,
            "metadata": None,
        }

    # lerobot looks task strings up in the frame's index; without these words pandas would make them a plain column.
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "creator": {"library": "pyarrow", "version": pyarrow.__version__},
        "pandas_version": "2.0.0",
    }
    table = pyarrow.table({"task_index": pyarrow.array(range(len(tasks)), pyarrow.int64()), "task": list(tasks)})
    parquet.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), root / "meta" / "tasks.parquet")
