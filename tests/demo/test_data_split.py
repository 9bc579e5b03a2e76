# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cyclemimic.data import DataError, LeRobotWriter
from cyclemimic.demo.data_split import open_demo_data, split_demo_data
from cyclemimic.demo.settings import DemoConfig, DemoSettings


def write(root: Path, labelled: list[bool]) -> None:
    with LeRobotWriter(root, 10, "sawyer", ["x", "y"]) as writer:
        for index, is_labelled in enumerate(labelled):
            frames = np.full((3, 16, 16, 3), 10 * index, dtype=np.uint8)
            actions = np.zeros((3, 2), dtype=np.float32)
            writer.add_episode(frames, actions, f"task {index % 2}", attributes={"labelled": is_labelled})


def indices(source) -> list[int]:
    return [episode.index for episode in source]


def test_filmed_experts(tmp_path):
    write(tmp_path / "data", [False, True, False, True])
    data = split_demo_data(DemoConfig(output=tmp_path), DemoSettings())
    assert data.name == data.videos.name == data.demonstrations.name == "demo"
    assert indices(data.videos) == [0, 1, 2, 3] and indices(data.demonstrations) == [1, 3]
    assert data.held_out is None


@pytest.mark.parametrize(
    ("num_episodes", "wanted", "expected"),
    [
        (12, 3, ([*range(10)], [0, 1, 2], [10, 11])),
        (12, 10, ([*range(10)], [0, 1, 2, 3, 4], [10, 11])),
        (3, 10, ([0, 1], [0], [2])),
    ],
)
def test_recorded_data(num_episodes, wanted, expected, tmp_path):
    write(tmp_path / "real", [False] * num_episodes)
    config = DemoConfig(output=tmp_path / "output", data=tmp_path / "real")
    data = split_demo_data(config, DemoSettings(demonstrations_per_task=wanted))
    parts = data.videos, data.demonstrations, data.held_out
    assert tuple(map(indices, parts)) == expected
    # Labels of the videos are looked up by name for the demonstrations.
    assert {part.name for part in parts} == {data.name}


def test_too_few_episodes(tmp_path):
    write(tmp_path / "real", [False] * 2)
    config = DemoConfig(output=tmp_path / "output", data=tmp_path / "real")
    with pytest.raises(DataError, match="has 2 episodes; the demo needs 3"):
        split_demo_data(config, DemoSettings())
    assert indices(open_demo_data(config, [1])) == [1]
