# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import DataError, Episode, InMemorySource
from cyclemimic.data.instructions import instructions_of


def source(name: str, *instructions: str | None) -> InMemorySource:
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    return InMemorySource(
        [
            Episode.from_arrays(frames, 10.0, source=name, index=index, instruction=instruction)
            for index, instruction in enumerate(instructions)
        ]
    )


def test_distinct_instructions_of_all_data_sets():
    assert instructions_of([source("a", "reach", "open it", "reach"), source("b", "press")]) == [
        "open it",
        "press",
        "reach",
    ]


@pytest.mark.parametrize("silence", [None, "", "  "])
def test_episodes_without_words(silence):
    sources = [source("a", "reach"), source("b", "press", silence, silence)]
    assert instructions_of(sources, may_be_silent=True) == ["press", "reach"]
    with pytest.raises(DataError, match="b: 2 episodes have no instruction, episode 1 first"):
        instructions_of(sources)
    with pytest.raises(DataError, match="c: 1 episodes have no instruction, episode 0 first"):
        instructions_of([source("c", silence)], may_be_silent=True)
