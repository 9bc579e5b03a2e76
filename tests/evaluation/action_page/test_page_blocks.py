# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cyclemimic.data import encode_video
from cyclemimic.evaluation.action_page.page_blocks import ActionPage, side_by_side


@pytest.fixture(scope="module")
def page(explorer) -> ActionPage:
    return ActionPage(explorer, "Latent actions", "<i>data</i>", 0.1)


def chips(codes) -> str:
    return f'aria-label="latent action {" ".join(map(str, codes))} "'


def test_an_example_is_shown_with_all_its_text_escaped(page):
    html = page.show_example(0)
    view = page.explorer.view_example(page.examples[0])
    assert chips(view.codes) in html and html.count("data:image/webp;base64,") == 3 + 2 + 2 * 3
    assert "&lt;b&gt;wave&lt;/b&gt;" in html and "<b>wave" not in html
    assert "Among 16 labelled pairs" in html and 'role="alert"' not in html


def test_pictures_of_a_user(page, tmp_path):
    paths = []
    for name, size in (("a", (16, 16)), ("b", (16, 16)), ("c", (9, 16))):
        Image.effect_noise(size, 90).convert("RGB").save(tmp_path / f"{name}.png")
        paths.append(str(tmp_path / f"{name}.png"))
    assert "your frame" in page.show_pair(*paths) and "your frame" not in page.show_pair(*paths[:2], None)
    for wrong, problem in (((None, None), "add a current and a future frame"), ((paths[0], paths[2]), "of one size")):
        html = page.show_pair(*wrong, None)
        assert problem in html and 'role="alert"' in html and "<img" not in html


def test_a_video_of_a_user(page, tmp_path):
    frames = np.random.default_rng(3).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    encode_video(tmp_path / "film.mp4", frames, 10.0)
    tiles, moments, html = page.show_video(str(tmp_path / "film.mp4"), 0.1)
    assert len(tiles) == len(moments) == 5 and "Click a moment" in html
    codes = page.explorer.encode([moments[2].current], [moments[2].future])[0].tolist()
    assert tiles[2][1] == f"0.2 s · {' '.join(map(str, codes))}"
    assert chips(codes) in page.show_moment(moments, 2)
    assert 'role="alert"' in page.show_video(None, 0.1)[2] and 'role="alert"' in page.show_moment([], 2)


def test_a_tile_holds_both_frames():
    tile = side_by_side(np.zeros((4, 80, 3), np.uint8), np.full((4, 80, 3), 9, np.uint8))
    assert tile.shape == (4, 162, 3) and tile[0, [79, 80, 81, 82], 0].tolist() == [0, 255, 255, 9]
