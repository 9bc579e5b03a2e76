# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from cyclemimic.data import DataError, Episode, InMemorySource
from cyclemimic.evaluation.episode_sheet import draw_episodes


def make_source(name, num_episodes, shape=(20, 30), level=200, num_frames=9):
    frames = np.full((num_frames, *shape, 3), level, dtype=np.uint8)
    return InMemorySource(
        [
            Episode.from_arrays(frames, 10, "put the cup on the plate " * 20, source=name, index=index)
            for index in range(num_episodes)
        ]
    )


def tiles(sheet, row):
    """Where the pictures of a row begin and end, along a line through their middle."""
    line = np.asarray(sheet)[12 + 138 * row + 56].mean(axis=1) < 240
    edges = np.flatnonzero(np.diff(line.astype(int)))
    return edges[1::2] - edges[::2]


def test_rows_are_episodes_and_columns_frames():
    sheet = draw_episodes([make_source("a", 10), make_source("b", 2, (40, 40), 90)], num_episodes=3, num_frames=4)
    assert sheet.height == 5 * 138 + 12
    assert tiles(sheet, 0).tolist() == [168] * 4 and tiles(sheet, 3).tolist() == [112] * 4
    pixels = np.asarray(sheet)
    assert (pixels[12 + 56, 12 + 50] == 200).all() and (pixels[12 + 3 * 138 + 56, 12 + 50] == 90).all()
    # A long caption ends at the margin.
    assert (pixels[:, -12:] == 255).all()


def test_only_the_frames_shown_are_decoded(monkeypatch):
    asked = []
    iter_frames = Episode.iter_frames

    def note(episode, indices=None):
        asked.append((episode.index, indices))
        return iter_frames(episode, indices)

    monkeypatch.setattr(Episode, "iter_frames", note)
    draw_episodes([make_source("a", 5)], num_episodes=2, num_frames=3)
    assert asked == [(0, [0, 4, 8]), (4, [0, 4, 8])]


def test_a_row_that_does_not_decode_is_drawn_as_far_as_it_goes(monkeypatch):
    def stop_early(episode, indices):
        yield np.full((20, 20, 3), 100, dtype=np.uint8)
        raise DataError("cut off")

    monkeypatch.setattr(Episode, "iter_frames", stop_early)
    sheet = draw_episodes([make_source("a", 1)], num_frames=4)
    assert tiles(sheet, 0).tolist() == [112]


def test_panoramas_and_single_frames_fit():
    wide, one = make_source("wide", 1, (4, 400)), make_source("one", 1, (64, 64), num_frames=1)
    sheet = draw_episodes([wide, one], num_frames=2)
    assert tiles(sheet, 0).tolist() == [336] * 2 and tiles(sheet, 1).tolist() == [112]
