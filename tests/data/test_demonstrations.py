# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import numpy as np
import pytest
from torch.utils.data import DataLoader

from cyclemimic.data import DataError, DemonstrationDataset, Episode, InMemorySource, LatentLabels
from cyclemimic.data.instructions import UNSAID

from .conftest import make_frames, read_frame_numbers


def make_source(name="a", lengths=(6, 4), action_dim=2, instruction="push", **changes):
    episodes = []
    for index, length in enumerate(lengths):
        actions = None if action_dim is None else np.arange(length * action_dim).reshape(length, action_dim)
        values = {"actions": actions, "instruction": instruction} | changes
        episodes.append(Episode.from_arrays(make_frames(length, 10 * index), 10, source=name, index=index, **values))
    return InMemorySource(episodes)


def make_labels(rows):
    columns = {
        "source": [row[0] for row in rows],
        "episode_index": [row[1] for row in rows],
        "frame_index": [row[2] for row in rows],
        "future_index": [row[2] + 1 for row in rows],
        "codes": [[row[1], row[2]] for row in rows],
    }
    return LatentLabels(columns, {"codebook_size": 16, "num_latent_tokens": 2})


def test_every_frame_is_an_item_without_labels():
    dataset = DemonstrationDataset([make_source()])
    assert len(dataset) == 10 and set(dataset[0]) == {
        "image",
        "instruction",
        "source",
        "episode_index",
        "frame_index",
    }
    numbers = read_frame_numbers(np.stack([dataset[index]["image"] for index in range(10)]))
    assert numbers == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13]


def test_chunk_by_hand_and_mask_at_the_end():
    dataset = DemonstrationDataset([make_source()], chunk_size=3)
    item = dataset[4]
    assert item["actions"].dtype == np.float32 and item["actions"].tolist() == [[8, 9], [10, 11], [10, 11]]
    assert item["actions_mask"].dtype == bool and item["actions_mask"].tolist() == [True, True, False]
    assert dataset[0]["actions_mask"].all() and dataset.action_dim == 2
    # The next episode's actions are not looked at.
    assert dataset[6]["actions"].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_only_labelled_frames_are_items():
    labels = make_labels([("a", 1, 2), ("a", 1, 0), ("b", 0, 0), ("other", 0, 1)])
    dataset = DemonstrationDataset([make_source("a"), make_source("b")], labels, chunk_size=1)
    found = [
        (item["source"], item["episode_index"], item["frame_index"]) for item in map(dataset.__getitem__, range(3))
    ]
    assert found == [("a", 1, 0), ("a", 1, 2), ("b", 0, 0)] and len(dataset) == 3
    item = dataset[1]
    assert item["latent_actions"].dtype == np.int64 and item["latent_actions"].tolist() == [1, 2]
    assert item["actions"].tolist() == [[4, 5]] and item["instruction"] == "push"
    assert read_frame_numbers(item["image"][None]) == [12]


def test_video_without_actions_is_enough_for_pretraining(caplog):
    source = make_source(action_dim=None, instruction=None)
    with caplog.at_level(logging.WARNING):
        dataset = DemonstrationDataset([source], make_labels([("a", 0, 3)]))
    assert dataset[0]["instruction"] == UNSAID and "actions" not in dataset[0]
    assert "a: episodes without instruction" in caplog.text
    with pytest.raises(DataError, match="a has no actions"):
        DemonstrationDataset([source], chunk_size=2)


@pytest.mark.parametrize(
    "sources, labels, message",
    [
        ([make_source("a"), make_source("b", action_dim=3)], None, "b: episode 0 has actions of size 3, the ones"),
        ([make_source(actions=np.full((6, 2), np.inf), lengths=(6,))], None, "not finite"),
        ([make_source("a")], make_labels([("b", 0, 0)]), r"no frame has a label; the labels are of \['b'\]"),
        ([make_source("a")], make_labels([("a", 0, 6)]), "has 6 frames, but labels of frames 6 to 6"),
        ([make_source("a"), make_source("a")], None, "go by the name 'a'"),
    ],
)
def test_data_that_does_not_fit_is_named(sources, labels, message):
    with pytest.raises(DataError, match=message):
        DemonstrationDataset(sources, labels, chunk_size=2)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="`sources`"):
        DemonstrationDataset([])
    with pytest.raises(ValueError, match="`chunk_size`"):
        DemonstrationDataset([make_source()], chunk_size=0)


def test_robot_state_is_that_of_the_frame():
    states = np.arange(12, dtype=np.float64).reshape(4, 3)
    source = make_source(lengths=(4,), states=states)
    dataset = DemonstrationDataset([source], make_labels([("a", 0, 2)]), use_robot_state=True)
    assert dataset.state_dim == 3
    assert dataset[0]["robot_state"].dtype == np.float32 and dataset[0]["robot_state"].tolist() == [6, 7, 8]
    assert "robot_state" not in DemonstrationDataset([source])[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "b has no states; learn without the robot state, or leave it out"),
        (
            {"states": np.zeros((4, 2))},
            "b: episode 0 has states of size 2, the ones before of size 3; use data sets with one state",
        ),
        ({"states": np.full((4, 3), np.nan)}, "b: episode 0 has states that are not finite"),
    ],
)
def test_robot_states_that_do_not_fit_are_named(changes, message):
    first = make_source("a", lengths=(4,), states=np.zeros((4, 3)))
    with pytest.raises(DataError, match=message):
        DemonstrationDataset([first, make_source("b", lengths=(4,), **changes)], use_robot_state=True)


def test_items_are_free_to_change(recwarn):
    source = make_source(lengths=(3,), states=np.ones((3, 2)))
    dataset = DemonstrationDataset([source], make_labels([("a", 0, 1)]), chunk_size=2, use_robot_state=True)
    keys = ("image", "latent_actions", "actions", "robot_state")
    for key in keys:
        dataset[0][key][:] = 7
    assert not any((dataset[0][key] == 7).all() for key in keys)
    (batch,) = DataLoader(dataset)
    assert batch["robot_state"].tolist() == [[1, 1]] and not recwarn.list


def test_cameras_show_one_moment():
    front, wrist = make_source("a", camera="front"), make_source("a", camera="wrist")
    other = [Episode.from_arrays(make_frames(length, 30), 10, source="a", camera="wrist") for length in (6,)]
    wrist = InMemorySource([other[0], wrist[1]])
    labels = make_labels([("a", 0, 2), ("a", 1, 1)])
    dataset = DemonstrationDataset([front], labels, chunk_size=1, further_cameras=[[wrist]])
    numbers = [[read_frame_numbers(image[None])[0] for image in dataset[index]["image"]] for index in range(2)]
    assert numbers == [[2, 32], [11, 11]]
    assert dataset.episodes[0].camera == "front" and dataset[0]["actions"].tolist() == [[4, 5]]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((6, 3), "a: episode 1 has 4 frames of front, but 3 of a further camera; leave it out with `--skip_broken`"),
        ((6,), "a: episode 1 has 4 frames of front, but none of a further camera"),
    ],
)
def test_a_camera_that_filmed_less_is_named(lengths, message):
    further = [make_source("a", lengths=lengths, camera="wrist")]
    with pytest.raises(DataError, match=message):
        DemonstrationDataset([make_source("a", camera="front")], further_cameras=[further])
