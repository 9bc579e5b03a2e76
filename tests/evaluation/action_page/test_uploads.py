# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyclemimic.data import DataError, encode_video
from cyclemimic.evaluation.action_page import uploads
from cyclemimic.evaluation.action_page.uploads import read_moments, read_pictures


def picture(path: Path, width: int, height: int, colour: tuple[int, int, int] = (10, 200, 30)) -> str:
    Image.new("RGB", (width, height), colour).save(path)
    return str(path)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> str:
    """Thirty frames at 10 fps, brighter by eight each."""
    path = tmp_path_factory.mktemp("upload") / "film.mp4"
    frames = (np.arange(30) * 8).astype(np.uint8)[:, None, None, None] * np.ones((1, 32, 48, 3), np.uint8)
    encode_video(path, frames, 10.0)
    return str(path)


def test_pictures_are_read_and_made_small(tmp_path):
    current, future = read_pictures(picture(tmp_path / "a.png", 800, 400), picture(tmp_path / "b.png", 800, 400))
    assert current.shape == future.shape == (192, 384, 3)
    assert current[0, 0].tolist() == [10, 200, 30]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "add a current and a future frame"),
        (("a",), "add a future frame"),
        (("a", "other"), "the current one has 32 x 16 pixels, the future one 16 x 16"),
        (("a", "text"), "^The future frame does not decode. Choose another file.$"),
        (("a", "svg"), "The future frame does not decode"),
    ],
)
def test_bad_pictures(tmp_path, given, message):
    (tmp_path / "text").write_text("no picture")
    (tmp_path / "svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    picture(tmp_path / "a.png", 32, 16)
    picture(tmp_path / "other.png", 16, 16)
    paths = [str(next(tmp_path.glob(f"{name}*"))) for name in given]
    with pytest.raises(DataError, match=message):
        read_pictures(*[*paths, None, None][:2])


def test_moments_are_the_videos_own(video, monkeypatch):
    moments = read_moments(video, 0.5)
    assert len(moments) == 12 and moments[0].start_s == 0 and moments[-1].start_s == pytest.approx(2.4)
    for moment in moments:
        index = round(moment.start_s * 10)
        assert moment.current.shape == (32, 48, 3)
        assert abs(moment.current.mean() - 8 * index) < 4 and abs(moment.future.mean() - 8 * (index + 5)) < 4
    assert len(read_moments(video, 2.8)) == 2


def test_bad_videos(video, tmp_path, monkeypatch):
    playlist = tmp_path / "film.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXTINF:3,\n{video}\n")
    with pytest.raises(DataError, match="film.m3u8 does not decode") as error:
        read_moments(str(playlist), 0.5)
    # Neither where the server keeps it, nor what a data set would need.
    assert str(tmp_path) not in str(error.value) and "episodes" not in str(error.value)
    with pytest.raises(DataError, match="add one first"):
        read_moments(None, 0.5)
    with pytest.raises(DataError, match="above 0 and at most 120, got 0"):
        read_moments(video, 0)
    with pytest.raises(DataError, match="The video is 3 s long, too short for two frames 3 s apart"):
        read_moments(video, 3)
    for limit, value in (("MAX_SECONDS", 2), ("MAX_VIDEO_PIXELS", 1000), ("_MAX_FPS", 5)):
        with monkeypatch.context() as patch:
            patch.setattr(uploads, limit, value)
            with pytest.raises(DataError, match="The video may have at most"):
                read_moments(video, 0.5)
    monkeypatch.setattr(uploads, "MAX_BYTES", 100)
    with pytest.raises(DataError, match="An upload must be one file of at most"):
        read_moments(video, 0.5)
