# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pickle

import numpy as np
import pytest
from PIL import Image

from cyclemimic.data import DataError, FramePairDataset, ImageFolderSource, open_source

from ..conftest import make_frames, read_frame_numbers


@pytest.fixture
def root(tmp_path):
    """Two trajectories: 12 frames from number 0, and 5 from number 7, beside files that are no images."""
    for folder, numbers in {"b": range(12), "a/run": range(7, 12)}.items():
        (tmp_path / folder).mkdir(parents=True)
        for number in numbers:
            Image.fromarray(make_frames(1, number)[0]).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "b" / "traj_data.pkl").write_bytes(pickle.dumps(OnLoad()))
    (tmp_path / "b" / "map.png").write_bytes(b"no image")
    return tmp_path


class OnLoad:
    """What a pickle can do to whoever loads it."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_a_folder_is_a_trajectory_in_the_order_of_its_numbers(root):
    source = open_source(root, fps=4)
    assert isinstance(source, ImageFolderSource) and (len(source), source.fps) == (2, 4.0)
    assert source.embodiment == source.name == root.name
    run, whole = source
    assert (run.index, run.num_frames, run.attributes["folder"]) == (0, 5, "a/run")
    assert (whole.index, whole.num_frames, whole.attributes["folder"]) == (1, 12, "b")
    assert run.instruction is run.actions is run.states is None
    # Not in the order of the names, where 10 comes before 2.
    np.testing.assert_array_equal(whole.read_frames(), make_frames(12))
    assert read_frame_numbers(run.read_frames([4, 0])) == [11, 7]


def test_the_folder_itself_may_be_the_trajectory(root):
    source = ImageFolderSource(root / "b", fps=4, embodiment="jackal", name="recon")
    assert (len(source), source[0].num_frames, source.name, source.embodiment) == (1, 12, "recon", "jackal")
    assert source[0].attributes["folder"] == "."


def test_chosen_episodes_keep_their_index(root):
    source = open_source(root, fps=4, episodes=[1])
    assert [episode.index for episode in source] == [1] and source[0].num_frames == 12
    for wrong in ([], [2], [-1]):
        with pytest.raises(DataError, match="has episodes 0 to 1"):
            open_source(root, fps=4, episodes=wrong)


def test_pairs_follow_the_frame_rate_given(root):
    pairs = FramePairDataset([open_source(root, fps=4)], interval_s=1.0, min_interval_s=0.5)
    assert (pairs.pairs[:, 2] - pairs.pairs[:, 1]).max() == 4


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: (root / "b/5.png").unlink(), "has images 0 to 11, but not 5"),
        (lambda root: (root / "b/5.jpg").touch(), "has number 5 twice, 5.(jpg|png) and 5.(jpg|png); keep one"),
        (lambda root: (root / "b/12.png").symlink_to("/etc/hostname"), r"12.png is a link out of"),
    ],
)
def test_a_broken_trajectory_is_refused_at_once(break_it, message, root):
    break_it(root)
    with pytest.raises(DataError, match=message) as raised:
        open_source(root, fps=4)
    assert str(root) in str(raised.value) and "\n" not in str(raised.value)


def huge(path):
    Image.new("1", (20_000, 20_000)).save(path)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:60]), "3.png does not decode"),
        (lambda path: path.write_bytes(b"no image"), "3.png does not decode"),
        (huge, "3.png does not decode"),
        (
            lambda path: Image.new("RGB", (8, 4)).save(path),
            "frame 3 of episode 1 is 8 x 4 pixels, frames before it 32 x 32",
        ),
    ],
)
def test_a_broken_image_is_named(write, message, root):
    write(root / "b" / "3.png")
    episode = open_source(root, fps=4)[1]
    assert episode.read_frames([2]).shape == (1, 32, 32, 3)
    with pytest.raises(DataError, match=message):
        episode.read_frames([2, 3])


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_frame_rate_that_is_none(fps, root):
    with pytest.raises(ValueError, match="`fps` must be above 0"):
        open_source(root, fps=fps)


def test_what_images_do_not_tell(root):
    with pytest.raises(DataError, match="do not tell their frame rate; give it as `fps`"):
        open_source(root)
    with pytest.raises(DataError, match="plain frames of one camera; leave out `camera`, got 'top'"):
        open_source(root, "top", fps=4)
    (root / "other").mkdir()
    with pytest.raises(DataError, match="no folder of numbered images"):
        ImageFolderSource(root / "other", fps=4)


def test_real_navigation_images(shared_data):
    source = open_source(shared_data("donkeycar_nav_images"), fps=20)
    assert [episode.num_frames for episode in source] == [240, 240]
    assert source[0].read_frames([0, 239]).shape == (2, 120, 160, 3)
