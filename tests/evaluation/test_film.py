# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io

import av
import numpy as np
import pytest
from PIL import Image

from cyclemimic.evaluation.film import change_overlay, clip_uri, enlarge, image_uri, sample_strip, strip_indices


def payload(uri: str, media_type: str) -> io.BytesIO:
    prefix = f"data:{media_type};base64,"
    assert uri.startswith(prefix)
    return io.BytesIO(base64.b64decode(uri[len(prefix) :], validate=True))


def test_image_survives_encoding_and_is_enlarged_by_a_whole_factor():
    image = np.full((12, 20, 3), (200, 60, 30), np.uint8)
    with Image.open(payload(image_uri(image, min_width=50), "image/webp")) as picture:
        assert picture.size == (60, 36)
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - (200, 60, 30)).max() < 8


def test_large_images_are_left_alone():
    image = np.zeros((4, 300, 3), np.uint8)
    assert enlarge(image, 256) is image


@pytest.mark.parametrize("shape", [(11, 24, 24), (3, 17, 15), (1, 300, 301), (2, 1, 1)])
def test_clip_decodes_to_the_same_frames(shape):
    values = np.linspace(20, 230, shape[0]).astype(np.uint8)
    frames = np.broadcast_to(values[:, None, None, None], (*shape, 3))
    with av.open(payload(clip_uri(frames, fps=12.5, min_width=0 + shape[2]), "video/mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert float(stream.average_rate) == 12.5
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(decoded) == shape[0]
    for value, frame in zip(values, decoded, strict=True):
        assert abs(float(frame.mean()) - value) < 6


def test_clip_arguments_are_checked():
    with pytest.raises(ValueError, match="a frame or more"):
        clip_uri(np.zeros((0, 8, 8, 3), np.uint8), 10)
    with pytest.raises(ValueError, match="fps must be above 0"):
        clip_uri(np.zeros((1, 8, 8, 3), np.uint8), 0)
    with pytest.raises(ValueError, match="uint8"):
        clip_uri(np.zeros((1, 8, 8, 3)), 10)


def test_strip_is_even_and_keeps_both_ends():
    assert strip_indices(100, 4) == [0, 33, 66, 99]
    assert strip_indices(3, 8) == [0, 1, 2]
    assert strip_indices(0, 8) == []
    assert [index for index, _ in sample_strip(np.zeros((9, 2, 2, 3), np.uint8), 3)] == [0, 4, 8]


def test_change_overlay_colours_what_changed_and_nothing_else():
    current, future = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    future[0, 0] = 255
    overlay = change_overlay(current, future).astype(int)
    assert overlay[0, 0, 0] - overlay[0, 0, 2] > 150
    assert (np.ptp(overlay[1:], axis=-1) == 0).all()
