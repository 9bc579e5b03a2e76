# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import (
    DataError,
    Episode,
    InMemorySource,
    LeRobotSource,
    compute_action_statistics,
    open_source,
)
from cyclemimic.data.checking import find_broken_episodes

VIDEO = "videos/chunk-000/observation.images.top/episode_000001.mp4"


def test_an_intact_set_has_no_broken_episode(v30, make_v21):
    assert find_broken_episodes(LeRobotSource(v30)) == []
    assert find_broken_episodes(LeRobotSource(make_v21())) == []


def truncate(path):
    # Behind the header, which this package's files have at the end; here the end of the pictures is lost.
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    middle = (start + data.index(b"moov")) // 2
    path.write_bytes(data[:middle] + bytes(data.index(b"moov") - middle) + data[data.index(b"moov") :])


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-200])


def flip_bits(path):
    data = bytearray(path.read_bytes())
    for position in range(data.index(b"mdat") + 4, data.index(b"moov") - 4, 40):
        data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, cut_off, flip_bits, lambda path: path.unlink()])
def test_a_damaged_video_is_found(make_v21, damage):
    root = make_v21()
    damage(root / VIDEO)
    (broken,) = find_broken_episodes(LeRobotSource(root))
    assert broken.index == 1
    assert "\n" not in broken.reason
    assert "episode_000001.mp4" in broken.reason or "lacks the video of episode 1" in broken.reason
    # What is found is what to leave out.
    assert find_broken_episodes(LeRobotSource(root, episodes=[0])) == []


def test_every_broken_episode_is_found(make_v21):
    root = make_v21(columns={"action": lambda n: [[float(step), np.nan if step == 3 else 0.0] for step in range(n)]})
    (root / "data/chunk-000/episode_000001.parquet").write_bytes(b"no table")
    first, second = find_broken_episodes(LeRobotSource(root))
    assert (first.index, second.index) == (0, 1)
    assert "episode 0 has actions that are not finite, dimension 1 of frame 3 first" in first.reason
    assert "episode_000001.parquet is not a readable Parquet file" in second.reason


def test_states_that_are_not_finite():
    frames, states = np.zeros((2, 4, 4, 3), np.uint8), np.array([[0.0], [np.inf]])
    (broken,) = find_broken_episodes(InMemorySource([Episode.from_arrays(frames, 10, states=states, index=5)]))
    assert broken.index == 5 and "states that are not finite, dimension 0 of frame 1" in broken.reason


def test_only_a_frame_is_in_memory(monkeypatch, v30):
    def refuse(*_):
        pytest.fail("an episode was stacked")

    monkeypatch.setattr("cyclemimic.data.episode.stack_frames", refuse)
    assert find_broken_episodes(LeRobotSource(v30)) == []


def test_real_sets_are_whole(shared_data):
    for name in ("cr5_banana_lerobot_v30", "gr1_sim_picknplace_lerobot_v20", "donkeycar_nav_images"):
        assert find_broken_episodes(open_source(shared_data(name), fps=20)) == []


def test_episodes_of_two_sizes_of_actions_are_whole():
    """Whoever learns from their video alone has use for all of them."""
    episodes = [
        Episode.from_arrays(np.zeros((3, 4, 4, 3), np.uint8), 10, actions=np.zeros((3, size)), index=index)
        for index, size in enumerate((3, 2, 2))
    ]
    assert find_broken_episodes(InMemorySource(episodes)) == []
    with pytest.raises(
        DataError, match="actions of size 2, the ones before of size 3; use data sets with one action space"
    ):
        compute_action_statistics([InMemorySource(episodes)])
