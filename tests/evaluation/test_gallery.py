# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cyclemimic.evaluation.gallery import GalleryGroup, GalleryPair, contact_sheet, write_gallery


def frames(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def pair(seed: int, caption: str = "a task") -> GalleryPair:
    return GalleryPair(frames(seed), frames(seed + 1), caption)


def test_pair_refuses_frames_of_two_shapes():
    with pytest.raises(ValueError, match="same shape"):
        GalleryPair(frames(0, 8), frames(0, 16), "x")
    with pytest.raises(ValueError, match="current must be a uint8"):
        GalleryPair(frames(0) / 255, frames(0), "x")


def test_gallery_page_and_contact_sheet(tmp_path):
    groups = (
        GalleryGroup((3, 12, 0, 7), (pair(0, "open the drawer"), pair(2, "<b>press</b>")), "12 pairs in 2 tasks"),
        GalleryGroup((3, None, None, None), (pair(4), pair(6, "a – very long → caption " * 9), pair(8))),
    )
    path = write_gallery(tmp_path / "deep" / "gallery.html", groups, title="Shared & seen", notes=("A note.",))
    text = path.read_text(encoding="utf-8")
    assert "Shared &amp; seen" in text and "&lt;b&gt;press" in text and "<b>press" not in text
    assert "12 pairs in 2 tasks" in text and "A note." in text
    assert sorted(p.name for p in path.parent.iterdir()) == ["gallery.html", "gallery.png"]
    with Image.open(path.with_suffix(".png")) as sheet:
        assert sheet.mode == "RGB" and sheet.width > 3 * 2 * 128 and sheet.height > 2 * 128


def test_contact_sheet_shows_the_frames_side_by_side():
    red, blue = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)
    red[..., 0], blue[..., 2] = 255, 255
    sheet = np.asarray(contact_sheet([GalleryGroup((1,), (GalleryPair(red, blue, ""),))], tile=32))
    is_red, is_blue = (sheet == [255, 0, 0]).all(-1), (sheet == [0, 0, 255]).all(-1)
    assert is_red.sum() == is_blue.sum() == 32 * 32
    assert np.nonzero(is_red)[1].max() < np.nonzero(is_blue)[1].min()


def test_gallery_without_groups_says_so(tmp_path):
    assert "No latent action is shared" in write_gallery(tmp_path / "g.html", ()).read_text(encoding="utf-8")
    assert not (tmp_path / "g.png").exists()


def test_long_actions_have_room_beside_their_frames():
    frame = np.zeros((16, 16, 3), np.uint8)
    groups = [
        GalleryGroup(codes, (GalleryPair(frame, frame, ""),)) for codes in ((1, 2, 3, 4), tuple(range(200, 208)))
    ]
    narrow, wide = (np.asarray(contact_sheet([group], tile=32)) for group in groups)
    assert wide.shape[1] > narrow.shape[1]
    # To the left of the frame, which is black, there is all of the text, and white at both of its sides.
    for sheet in (narrow, wide):
        text = np.flatnonzero((sheet[14 + 5 : 14 + 27] < 200).all(-1).any(0))
        frame_starts = sheet.shape[1] - 10 - (2 * 32 + 26)
        before = text[text < frame_starts]
        assert before.min() > 4 and before.max() < frame_starts - 4
