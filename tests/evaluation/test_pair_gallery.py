# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import Episode, FramePairDataset, InMemorySource
from cyclemimic.evaluation.pair_gallery import evenly_spread, gallery_of_pairs


def source(name: str, embodiment: str, instructions: list[str], size: int = 8, num_frames: int = 6) -> InMemorySource:
    frames = np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * np.ones((1, size, size, 3), np.uint8)
    return InMemorySource(
        [
            Episode.from_arrays(frames, 10.0, text, source=name, embodiment=embodiment, index=index)
            for index, text in enumerate(instructions)
        ]
    )


def captions(sources: list[InMemorySource]) -> list[set[str]]:
    pairs = FramePairDataset(sources, 0.1, 0.1)
    codes = np.zeros((len(pairs), 2), dtype=np.int64)
    groups = gallery_of_pairs(pairs, np.arange(len(pairs)), codes, num_groups=1, per_group=2)
    return [{pair.caption for pair in group.pairs} for group in groups]


def test_the_coarsest_difference_is_crossed():
    both = ["open", "close"]
    assert captions([source("a", "panda", both), source("b", "ur5", both, size=6)])[0] in (
        {"panda: open", "ur5: open"},
        {"panda: open", "ur5: close"},
        {"panda: close", "ur5: open"},
        {"panda: close", "ur5: close"},
    )
    assert captions([source("a", "panda", both)]) == [{"open", "close"}]
    # One body, one task: two episodes.
    assert captions([source("a", "panda", ["open", "open"])]) == [{"open"}]
    assert captions([source("a", "panda", ["open"])]) == []


def test_codes_and_notes():
    pairs = FramePairDataset([source("a", "panda", ["open", "close"])], 0.1, 0.1)
    # The first word is shared by all, the second by none across tasks.
    codes = np.array([[7, pairs.pairs[row, 0]] for row in range(10)])
    (group,) = gallery_of_pairs(pairs, np.arange(10), codes, num_groups=1, per_group=2)
    assert group.codes == (7, None) and group.note == "10 of 10 pairs, the first words only"


@pytest.mark.parametrize("per_source", [3, 100])
def test_evenly_spread(per_source):
    pairs = FramePairDataset([source("a", "x", ["t"] * 4), source("b", "y", ["t"])], 0.1, 0.1)
    chosen = evenly_spread(pairs, per_source, seed=0)
    assert (np.diff(chosen) > 0).all()
    names = [pairs.episodes[position].source for position in pairs.pairs[chosen, 0]]
    assert (names.count("a"), names.count("b")) == (min(20, per_source), min(5, per_source))
    np.testing.assert_array_equal(chosen, evenly_spread(pairs, per_source, seed=0))


def test_captions_are_what_is_said_at_the_pair():
    class Reader:
        def __init__(self, frames):
            self.frames = frames

        def iter_frames(self, indices):
            return (self.frames[index] for index in indices)

        def read_instruction(self):
            return "lift"

        def read_instructions(self):
            return ["lift"] * 3 + ["close"] * 3

    frames = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    episode = Episode("a", "arm", 0, 6, 10.0, "top", Reader(frames))
    pairs = FramePairDataset([InMemorySource([episode])], 0.1, 0.1)
    (group,) = gallery_of_pairs(pairs, np.array([0, 4]), np.zeros((2, 4), np.int64), 1, 2)
    assert {pair.caption for pair in group.pairs} == {"lift", "close"}
