# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import DataError, Episode, InMemorySource
from cyclemimic.data.episode_source import list_episodes

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)


def test_two_episodes_of_one_name_are_refused():
    source = InMemorySource([Episode.from_arrays(FRAMES, fps=10, source="twice")])
    message = (
        "'twice', episode 0; give episodes of one data set an `index` each, or open data sets with different `name`s"
    )
    with pytest.raises(DataError, match=message):
        list_episodes([source, source])


class OwnSource:
    def __init__(self, episodes, **names):
        self.episodes = episodes
        self.__dict__.update(names)

    def __iter__(self):
        return iter(self.episodes)


def test_what_is_no_data_set_among_them_is_refused():
    episode = Episode.from_arrays(FRAMES, fps=10)
    for source, kind in (([episode], "list"), (OwnSource([episode]), "OwnSource")):
        with pytest.raises(ValueError, match=f"`sources` must be a list of data sets, .*, got {kind} without `name`"):
            list_episodes([source])
    with pytest.raises(ValueError, match="`sources` must yield `Episode`s, got str of set"):
        list_episodes([OwnSource(["film"], name="set", embodiment="arm")])


@pytest.mark.parametrize(("name", "embodiment"), [("other", "arm"), ("set", "other")])
def test_a_data_set_goes_by_the_names_of_its_episodes(name, embodiment):
    episode = Episode.from_arrays(FRAMES, fps=10, source="set", embodiment="arm", index=3)
    message = f"'set' and 'arm' of episode 3, got '{name}' and '{embodiment}'"
    with pytest.raises(DataError, match=message):
        list_episodes([OwnSource([episode], name=name, embodiment=embodiment)])
