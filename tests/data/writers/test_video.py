# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from pathlib import Path

import av
import numpy as np
import pytest

from cyclemimic.data import decode_frames, encode_video
from cyclemimic.data.writers.video import KEYFRAME_INTERVAL, VideoWriter

from ..conftest import make_frames, read_frame_numbers


def test_round_trip_keeps_frames_within_codec_error(tmp_path):
    encode_video(tmp_path / "video.mp4", make_frames(40), fps=10)
    frames = decode_frames(tmp_path / "video.mp4", fps=10, num_frames=40)
    assert frames.shape == (40, 32, 32, 3) and frames.dtype == np.uint8
    assert np.abs(frames[:, :, -8:].astype(int) - make_frames(40)[:, :, -8:]).max() <= 3


@pytest.mark.parametrize("fps", [3.75, 29.97, 30])
def test_fractional_rates_stay_exact(tmp_path, fps):
    path = tmp_path / "video.mp4"
    encode_video(path, make_frames(40), fps=fps)
    assert read_frame_numbers(decode_frames(path, fps, 10, start_s=30 / fps)) == list(range(30, 40))


def test_keyframes_come_regularly_where_the_picture_does_not_change(tmp_path):
    """In other films of these tests, scenes change with nearly every frame, each of which is a keyframe by itself."""
    encode_video(tmp_path / "still.mp4", np.repeat(make_frames(1), 40, axis=0), fps=10)
    with av.open(str(tmp_path / "still.mp4")) as container:
        keyframes = [index for index, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    assert keyframes == list(range(0, 40, KEYFRAME_INTERVAL))


def test_writer_refuses_what_does_not_fit(tmp_path):
    frame = make_frames(1)[0]
    with VideoWriter(tmp_path / "a.mp4", 10) as writer:
        writer.write([frame])
        with pytest.raises(ValueError, match="like the first"):
            writer.write([frame[:16]])
    with VideoWriter(tmp_path / "b.mp4", 10) as writer, pytest.raises(ValueError, match="even"):
        writer.write([frame[:31]])
    with pytest.raises(ValueError, match="at least one frame"):
        encode_video(tmp_path / "c.mp4", [], 10)


def test_what_the_system_refuses_is_an_os_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        encode_video(tmp_path / "missing" / "d.mp4", make_frames(2), 10)
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("the system has no /dev/full")
    (tmp_path / "full.mp4").symlink_to(full)
    with pytest.raises(OSError, match="No space left") as raised:
        encode_video(tmp_path / "full.mp4", make_frames(2), 10)
    assert raised.value.errno == errno.ENOSPC
