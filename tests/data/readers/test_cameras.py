# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

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
