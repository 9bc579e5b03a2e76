# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cyclemimic.data import DataError, Episode, InMemorySource, LeRobotSource, open_source
from cyclemimic.data.inspection import inspect_source


def make_episode(index, num_frames, instruction=None, actions=None, states=None):
    frames = np.zeros((num_frames, 4, 6, 3), np.uint8)
    return Episode.from_arrays(frames, 10, instruction, actions, states, index=index, embodiment="arm")


def test_sizes_and_instructions():
    texts = ["open", "close", None, "open", "turn"]
    source = InMemorySource([make_episode(index, 3 + index % 4, text) for index, text in enumerate(texts)])
    found = inspect_source(source)
    assert (found.name, found.embodiment, found.camera, found.cameras) == ("memory", "arm", "image", ["image"])
    assert (found.num_episodes, found.num_frames, found.fps, found.resolution) == (5, 21, 10.0, (6, 4))
    assert found.hours == pytest.approx(21 / 10 / 3600)
    assert (found.shortest, found.longest) == ((0, 3), (3, 6))
    assert (found.num_instructions, found.num_without_instruction) == (3, 1)
    assert found.frequent_instructions == [("open", 2), ("close", 1), ("turn", 1)]
    assert found.actions is None and found.states is None and found.broken == []


def test_the_most_frequent_instructions_are_named():
    texts = [f"task {number}" for number in range(9) for _ in range(9 - number)]
    found = inspect_source(InMemorySource([make_episode(index, 1, text) for index, text in enumerate(texts)]))
    assert found.num_instructions == 9
    assert found.frequent_instructions == [(f"task {number}", 9 - number) for number in range(5)]


def test_statistics_over_all_episodes():
    random = np.random.default_rng(0)
    parts = [random.normal(size=(length, 4)).astype(np.float32) for length in (30, 50)]
    for part in parts:
        part[:, 1] = 7
        part[:, 2] = part[:, 2] > 0
    # Constant within each episode, but not over both.
    parts[0][:, 3], parts[1][:, 3] = 1, 2
    episodes = [make_episode(index, len(part), None, part, part[:, :2] + 1) for index, part in enumerate(parts)]
    found = inspect_source(InMemorySource(episodes))
    values = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(found.actions.mean, values.mean(0))
    np.testing.assert_allclose(found.actions.std, values.std(0), atol=1e-12)
    np.testing.assert_allclose([found.actions.min, found.actions.max], [values.min(0), values.max(0)])
    np.testing.assert_allclose([found.actions.q01, found.actions.q99], np.quantile(values, [0.01, 0.99], axis=0))
    assert found.actions.constant == [False, True, False, False]
    assert found.actions.binary == [False, False, True, True]
    assert len(found.states.mean) == 2 and found.states.constant == [False, True]


def test_broken_columns_are_named_and_left_out_of_the_statistics():
    wrong = [np.array([[np.nan], [0.0]]), np.zeros((2, 3)), np.zeros((1, 1))]
    actions = [np.array([[1.0], [2.0]]), *wrong]
    episodes = [make_episode(index, len(part), "go", part) for index, part in enumerate(actions)]
    # A data set may say another length than its columns have.
    episodes[3] = replace(episodes[3], num_frames=2)
    found = inspect_source(InMemorySource(episodes))
    assert [episode.index for episode in found.broken] == [1, 2, 3]
    reasons = [episode.reason for episode in found.broken]
    assert "not finite" in reasons[0] and "of size 3, the ones before of size 1" in reasons[1]
    assert "2 frames but 1 rows of actions" in reasons[2]
    assert (found.num_episodes, found.actions.min, found.actions.max) == (4, [1.0], [2.0])


def test_an_episode_that_does_not_decode_is_in_no_statistics():
    def refuse(indices):
        raise DataError("no picture")

    episodes = [
        make_episode(index, 2, text, np.full((2, 1), 10.0**index)) for index, text in enumerate(("do not", "go"))
    ]
    # A reader is frozen.
    object.__setattr__(episodes[0].reader, "iter_frames", refuse)
    found = inspect_source(InMemorySource(episodes), check=True)
    assert [episode.index for episode in found.broken] == [0]
    assert found.actions.max == [10.0] and found.frequent_instructions == [("go", 1)]
    assert found.resolution == (6, 4)


def test_actions_of_no_size():
    found = inspect_source(InMemorySource([make_episode(0, 2, None, np.zeros((2, 0)))]))
    assert found.actions.mean == [] and found.broken == []


def test_frames_are_decoded_only_where_asked_for(v30):
    video = v30 / "videos/observation.images.main/chunk-000/file-000.mp4"
    data = bytearray(video.read_bytes())
    # From the second episode on.
    first, last = data.index(b"mdat"), data.index(b"moov")
    data[first + (last - first) // 2 : last - 8] = bytes(last - 8 - (first + (last - first) // 2))
    video.write_bytes(data)
    assert inspect_source(LeRobotSource(v30)).broken == []
    assert 2 in [episode.index for episode in inspect_source(LeRobotSource(v30), check=True).broken]


def test_frames_are_tried_until_one_decodes(v30):
    (v30 / "videos/observation.images.main/chunk-000/file-000.mp4").write_bytes(b"no video")
    found = inspect_source(LeRobotSource(v30))
    assert found.resolution is None and [episode.index for episode in found.broken] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "episodes", "frames", "resolution", "sizes"),
    [
        ("cr5_banana_lerobot_v21", 8, 1840, (640, 480), (7, 6)),
        ("cr5_banana_lerobot_v30", 3, 687, (640, 480), (7, 6)),
        ("gr1_sim_picknplace_lerobot_v20", 3, 1356, (256, 256), (44, 44)),
        ("donkeycar_nav_images", 2, 480, (160, 120), None),
    ],
)
def test_real_sets_hold_what_their_readme_says(shared_data, name, episodes, frames, resolution, sizes):
    found = inspect_source(open_source(shared_data(name), fps=20))
    assert (found.num_episodes, found.num_frames, found.resolution) == (episodes, frames, resolution)
    assert sizes == (found.actions and (len(found.actions.min), len(found.states.min)))
    assert found.cameras == [found.camera] and found.broken == []


def test_words_that_are_none_are_told_as_such():
    found = inspect_source(InMemorySource([make_episode(0, 3, ""), make_episode(1, 3, " "), make_episode(2, 3, "go")]))
    assert (found.num_instructions, found.num_without_instruction) == (1, 2)
