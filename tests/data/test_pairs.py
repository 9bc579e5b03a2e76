# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cyclemimic.data import DataError, DemonstrationDataset, Episode, FramePairDataset, InMemorySource, LeRobotSource

from .conftest import make_frames, read_frame_numbers


def make_source(name, lengths, fps, embodiment="arm"):
    episodes = [
        Episode.from_arrays(make_frames(n), fps, f"do {name}", source=name, embodiment=embodiment, index=10 + index)
        for index, n in enumerate(lengths)
    ]
    return InMemorySource(episodes)


def test_pairs_by_hand():
    # 5 fps: one second is 5 frames, 0.6 s are 3. Seven frames: 0-5, 1-6, then shorter, the shortest 3-6.
    dataset = FramePairDataset([make_source("a", [7], fps=5)], interval_s=1.0, min_interval_s=0.6)
    assert dataset.pairs.tolist() == [[0, 0, 5], [0, 1, 6], [0, 2, 6], [0, 3, 6]]


def test_interval_follows_each_sources_rate():
    dataset = FramePairDataset([make_source("a", [30], 20), make_source("b", [8], 4)], 1.0, 1.0)
    gaps = dataset.pairs[:, 2] - dataset.pairs[:, 1]
    assert (gaps[dataset.pairs[:, 0] == 0] == 20).all() and (gaps[dataset.pairs[:, 0] == 1] == 4).all()
    assert len(dataset) == 10 + 4


def test_interval_is_at_least_one_frame():
    dataset = FramePairDataset([make_source("a", [3], fps=2)], interval_s=0.01, min_interval_s=0.01)
    assert dataset.pairs.tolist() == [[0, 0, 1], [0, 1, 2]]


def test_item_holds_frames_and_where_they_are_from():
    sources = [make_source("a", [5], 5, "sawyer"), make_source("b", [2, 6], 5, "human")]
    dataset = FramePairDataset(sources, 0.6, 0.4, transform=lambda frames: frames[:, ::2, ::2])
    assert dataset.embodiments == ["human", "sawyer"]
    item = dataset[3]
    assert read_frame_numbers(np.stack([item.pop("current"), item.pop("future")])) == [0, 3]
    assert item == {
        "embodiment_id": 0,
        "source": "b",
        "episode_index": 11,
        "frame_index": 0,
        "future_index": 3,
        "instruction": "do b",
    }
    assert dataset[0]["embodiment_id"] == 1 and dataset[0]["current"].shape == (16, 16, 3)


def test_short_episodes_are_left_out_and_counted(caplog):
    with caplog.at_level(logging.INFO):
        dataset = FramePairDataset([make_source("a", [3, 9, 5], 5)], 1.0, 1.0)
    assert len(dataset) == 4 and [episode.index for episode in dataset.episodes] == [11]
    assert "2 of 3 episodes are too short for a pair, a's 10 first" in caplog.text
    with pytest.raises(DataError, match=r"\['a'\]: no episode has two frames 1 s apart"):
        FramePairDataset([make_source("a", [3, 5], 5)], 1.0, 1.0)


@pytest.mark.parametrize("times", [(0.0, 0.0), (1.0, 2.0), (1.0, 0.0), (float("inf"), 1.0), (float("nan"), 1.0)])
def test_times_are_checked(times):
    with pytest.raises(ValueError, match="`min_interval_s`"):
        FramePairDataset([make_source("a", [9], 5)], *times)
    with pytest.raises(ValueError, match="`sources`"):
        FramePairDataset([], 1.0, 1.0)


@pytest.mark.parametrize("make", [lambda source: source, lambda source: source[0], lambda source: [source[0]]])
@pytest.mark.parametrize("kind", [FramePairDataset, DemonstrationDataset])
def test_what_is_no_list_of_data_sets_is_refused(kind, make):
    sources = make(make_source("a", [9], 5))
    times = (1.0, 1.0) if kind is FramePairDataset else ()
    got = "InMemorySource" if isinstance(sources, InMemorySource) else "Episode"
    with pytest.raises(
        ValueError, match=f"`sources` must be a list of data sets, as `open_source` opens them, got {got}"
    ):
        kind(sources, *times)
    for path in ("a/path", ["a/path"], Path("a/path"), [Path("a/path")]):
        with pytest.raises(ValueError, match="`sources` must be a list of data sets, .*, got (str|PosixPath)"):
            kind(path, *times)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers_read_the_same_pairs(v30, context):
    dataset = FramePairDataset([LeRobotSource(v30)], 0.5, 0.5)
    loader = DataLoader(
        pickle.loads(pickle.dumps(dataset)), batch_size=4, num_workers=1, multiprocessing_context=context
    )
    batches = list(loader)
    current, future = (torch.cat([batch[key] for batch in batches]).numpy() for key in ("current", "future"))
    assert read_frame_numbers(current) == [0, 1, 2, *range(13, 20)]
    assert read_frame_numbers(future) == [5, 6, 7, *range(18, 25)]


def test_pairs_of_real_data(shared_data):
    sources = [
        LeRobotSource(shared_data(name)) for name in ("gr1_sim_picknplace_lerobot_v20", "cr5_banana_lerobot_v30")
    ]
    dataset = FramePairDataset(sources, 1.0, 0.5, transform=lambda frames: frames[:, ::8, ::8])
    # One second is 20 frames of one and 10 of the other; the last half second has no pairs.
    assert len(dataset) == (1356 - 3 * 10) + (687 - 3 * 5)
    item = dataset[len(dataset) - 1]
    assert (item["frame_index"], item["future_index"], item["current"].shape) == (269, 274, (60, 80, 3))
