# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic.data import DataError
from cyclemimic.data.readers.cameras import choose_camera


@pytest.mark.parametrize(
    ("cameras", "chosen"),
    [
        (["cam_high_depth", "cam_high"], "cam_high"),
        (["front_depth", "front_rgb"], "front_rgb"),
        (["depth", "camera_1"], "camera_1"),
        (["observation.images.top_segmentation", "observation.images.wrist"], "observation.images.wrist"),
        (["image_mask", "disparity_top", "gripper"], "gripper"),
        (["wrist_depth", "top_depth"], "top_depth"),
    ],
)
def test_what_is_no_picture_comes_last(cameras, chosen):
    assert choose_camera(cameras, None, "root", "set") == chosen
    assert choose_camera(cameras, cameras[0], "root", "set") == cameras[0]


@pytest.mark.parametrize(
    ("cameras", "chosen"),
    [
        # A name of its own is before one that only holds such a word.
        (["image_left", "observation.images.top"], "observation.images.top"),
        (["front_left", "main_left"], "main_left"),
        # Written large.
        (["side_view", "observation/Image_0"], "observation/Image_0"),
        (["Wrist", "camera_1"], "camera_1"),
    ],
)
def test_scene_cameras_have_an_order(cameras, chosen):
    assert choose_camera(cameras, None, "root", "set") == chosen
    assert choose_camera(cameras[::-1], None, "root", "set") == chosen


def test_a_name_that_two_cameras_have_is_told_of():
    with pytest.raises(DataError, match=r"set has several cameras 'top'; give one of \['left.top', 'right.top'\] as"):
        choose_camera(["left.top", "right.top", "front"], "top", "set", "set")
