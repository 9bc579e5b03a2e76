# SPDX-License-Identifier: Apache-2.0
"""Small data sets whose frames can be told apart after lossy compression, and the real ones beside the repository."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cyclemimic.data import LeRobotWriter, encode_video

SHARED_DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
LEVELS = 6


def make_frames(num_frames: int, first: int = 0, size: int = 32) -> np.ndarray:
    """Frame `i` is of the one grey `LEVELS * (first + i)`, with a dark left half: codecs keep that to within 2."""
    frames = np.empty((num_frames, size, size, 3), dtype=np.uint8)
    frames[:] = (LEVELS * (first + np.arange(num_frames)))[:, None, None, None]
    frames[:, :, : size // 2] //= 4
    return frames


def read_frame_numbers(frames: np.ndarray) -> list[int]:
    """Which frame of `make_frames` each of the decoded frames is."""
    return (frames[:, :, -4:].mean(axis=(1, 2, 3)) / LEVELS).round().astype(int).tolist()


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Path of a real data set; skips the test where there is none."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.is_dir():
            pytest.skip(f"real data set {name} is not beside the repository (shared/data)")
        return path

    return find


@pytest.fixture
def v30(tmp_path: Path) -> Path:
    """A version 3.0 data set of three episodes with 8, 5 and 12 frames at 10 fps, in one video file."""
    root = tmp_path / "v30"
    with LeRobotWriter(root, 10, "sawyer", ["x", "y", "gripper"], ["height"]) as writer:
        for index, (first, length) in enumerate([(0, 8), (8, 5), (13, 12)]):
            actions = np.arange(3 * length, dtype=np.float32).reshape(length, 3) + index
            writer.add_episode(
                make_frames(length, first), actions, f"task {index % 2}", actions[:, :1], {"success": index != 1}
            )
    return root


@pytest.fixture
def make_v21(tmp_path: Path) -> Callable[..., Path]:
    """Makes a version 2.1 data set of two episodes with 6 and 9 frames at 10 fps."""
    import pyarrow
    import pyarrow.parquet as parquet

    def make(
        info: dict | None = None,
        features: dict | None = None,
        tasks: list[str] | None = None,
        columns: dict | None = None,
        camera: str = "observation.images.top",
    ) -> Path:
        root = tmp_path / "v21"
        meta = root / "meta"
        meta.mkdir(parents=True)
        tasks = tasks or ["lift the cube"]
        base = {
            "codebase_version": "v2.1",
            "robot_type": "arm",
            "fps": 10,
            "chunks_size": 1000,
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
            "features": {camera: {"dtype": "video"}, "action": {"dtype": "float64"}, **(features or {})},
        }
        (meta / "info.json").write_text(json.dumps(base | (info or {})))
        rows = [{"episode_index": i, "tasks": tasks, "length": n, "operator": "me"} for i, n in enumerate((6, 9))]
        (meta / "episodes.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        lines = [json.dumps({"task_index": index, "task": task}) for index, task in enumerate(tasks)]
        (meta / "tasks.jsonl").write_text("\n".join(lines))
        for index, length in enumerate((6, 9)):
            data = root / f"data/chunk-000/episode_{index:06d}.parquet"
            data.parent.mkdir(parents=True, exist_ok=True)
            base_columns = {
                "action": [[float(step), 2.0 * step] for step in range(length)],
                "timestamp": [step / 10 for step in range(length)],
                "task_index": [len(tasks) - 1] * length,
            }
            given = {key: make_column(length) for key, make_column in (columns or {}).items()}
            parquet.write_table(pyarrow.table(base_columns | given), data)
            video = root / f"videos/chunk-000/{camera}/episode_{index:06d}.mp4"
            video.parent.mkdir(parents=True, exist_ok=True)
            encode_video(video, make_frames(length, 10 * index), 10)
        return root

    return make
