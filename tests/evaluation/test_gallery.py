# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cyclemimic.evaluation.gallery import (
    GalleryGroup,
    GalleryPair,
    contact_sheet,
    motion_magnitude,
    select_groups,
    write_gallery,
)


def frames(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def pair(seed: int, caption: str = "a task") -> GalleryPair:
    return GalleryPair(frames(seed), frames(seed + 1), caption)


def test_motion_magnitude_of_black_to_white_is_one():
    black, white = np.zeros((2, 4, 4, 3), np.uint8), np.full((2, 4, 4, 3), 255, np.uint8)
    white[1] = 0
    np.testing.assert_array_equal(motion_magnitude(black, white), [1.0, 0.0])
    np.testing.assert_array_equal(motion_magnitude(white, black), [1.0, 0.0])


def test_most_shared_action_comes_first_and_one_task_actions_never():
    codes = np.array([[1, 1]] * 20 + [[2, 2]] * 8 + [[3, 3]] * 6)
    # (1, 1) is the most used but belongs to one task; (3, 3) is evenly shared; (2, 2) is used once in the second.
    tasks = np.array(["a"] * 20 + ["a"] * 7 + ["b"] + ["a", "b"] * 3)
    chosen = select_groups(codes, tasks, np.ones(len(codes)), num_groups=5, allow_partial=False)
    assert [shared.codes for shared in chosen] == [(3, 3), (2, 2)]
    assert [(shared.num_pairs, shared.num_groups, shared.is_partial) for shared in chosen] == [
        (6, 2, False),
        (8, 2, False),
    ]
    for shared in chosen:
        assert len(set(tasks[list(shared.indices)])) == 2
        assert {tuple(codes[i].tolist()) for i in shared.indices} == {shared.codes}


def test_visible_motion_is_preferred():
    codes = np.array([[0]] * 40 + [[1]] * 10)
    tasks = np.array([0, 1] * 25)
    motion = np.array([0.0] * 35 + [1.0] * 15)
    chosen = select_groups(codes, tasks, motion, num_groups=1, per_group=4)
    # Code 0 is four times as frequent, but mostly where nothing moves.
    assert chosen[0].codes == (1,)
    second = select_groups(codes, tasks, motion, num_groups=2, per_group=4)[1]
    assert all(motion[i] == 1.0 for i in second.indices)


def test_members_alternate_between_tasks_and_episodes_and_never_overlap():
    count = 60
    episodes = np.repeat(np.arange(6), 10)
    starts = np.tile(np.arange(10) * 2, 6)
    spans = np.stack([starts, starts + 5], axis=1)
    shared = select_groups(
        np.zeros((count, 2), int), episodes % 3, np.ones(count), 1, 12, episode_ids=episodes, spans=spans
    )[0]
    chosen = list(shared.indices)
    assert sorted(episodes[chosen[:6]]) == [0, 1, 2, 3, 4, 5]
    assert sorted((episodes % 3)[chosen[:3]]) == [0, 1, 2]
    for position, first in enumerate(chosen):
        for second in chosen[position + 1 :]:
            apart = spans[first, 1] < spans[second, 0] or spans[second, 1] < spans[first, 0]
            assert episodes[first] != episodes[second] or apart


def test_without_spans_an_episode_appears_once():
    episodes = np.array([0, 0, 0, 1, 1, 1])
    chosen = select_groups(np.zeros((6, 1), int), episodes, np.ones(6), 1, 6, episode_ids=episodes)
    assert sorted(episodes[list(chosen[0].indices)]) == [0, 1]


def test_partial_sharing_is_a_fallback_and_says_so():
    codes = np.array([[5, 0], [5, 1], [5, 2], [5, 3]])
    tasks = np.array([0, 1, 0, 1])
    assert select_groups(codes, tasks, np.ones(4), allow_partial=False) == []
    (shared,) = select_groups(codes, tasks, np.ones(4))
    assert shared.codes == (5,) and shared.is_partial and shared.num_pairs == 4


def test_selection_is_reproducible_and_depends_on_the_seed():
    rng = np.random.default_rng(0)
    codes, tasks, motion = rng.integers(0, 3, (400, 2)), rng.integers(0, 3, 400), rng.random(400)
    first, again = (select_groups(codes, tasks, motion, seed=1) for _ in range(2))
    assert first == again
    assert first != select_groups(codes, tasks, motion, seed=2)


def test_no_pairs_give_no_groups():
    assert select_groups(np.zeros((0, 4), int), np.zeros(0), np.zeros(0)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.zeros(4, int)}, "codes must be of shape"),
        ({"group_ids": np.zeros(3)}, "group_ids must be of shape"),
        ({"motion": np.zeros(5)}, "motion must be of shape"),
        ({"spans": np.zeros((4, 3))}, "spans must be of shape"),
        ({"per_group": 1}, "per_group 2 or more"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments = {"codes": np.zeros((4, 2), int), "group_ids": np.zeros(4), "motion": np.zeros(4)} | changes
    with pytest.raises(ValueError, match=message):
        select_groups(**arguments)


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
