# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from cyclemimic.data import DataError, InMemorySource
from cyclemimic.evaluation.tokenizer_quality import QualitySettings
from cyclemimic.evaluation.tokenizer_quality.motion import TrueMotion
from cyclemimic.evaluation.tokenizer_quality.pair_sample import sample_pairs

from .conftest import make_source

MOTION = TrueMotion("state", (0, 1))
SETTINGS = QualitySettings(interval_s=0.3, min_interval_s=0.1)


def sample(sources, **changes):
    return sample_pairs(sources, MOTION, np.stack, dataclasses.replace(SETTINGS, **changes))


def test_pairs_are_those_of_the_data():
    sources = [make_source("sawyer", 3, 12), make_source("panda", 4, 9)]
    pairs = sample(sources)
    assert pairs.bodies == ("panda", "sawyer")
    assert len(pairs) == 4 * 8 + 3 * 11
    by_name = {source.name: source for source in sources}
    for row in range(len(pairs)):
        episode = by_name[pairs.source[row]][pairs.episode_index[row]]
        current, future = pairs.frame_index[row], pairs.future_index[row]
        assert future == min(current + 3, episode.num_frames - 1)
        assert episode.embodiment == pairs.bodies[pairs.body[row]]
        real = episode.read_frames([current, future])
        np.testing.assert_array_equal(pairs.frames[[pairs.current[row], pairs.future[row]]], real)
        np.testing.assert_array_equal(pairs.motion[row], (episode.states[future] - episode.states[current])[:2])


def test_every_frame_is_kept_once():
    assert len(sample([make_source("panda", 4, 9)]).frames) == 4 * 9


@pytest.mark.parametrize("max_pairs", [7, 30, 95])
def test_fewer_pairs_are_spread_evenly(max_pairs):
    pairs = sample([make_source("panda", 10, 11)], max_pairs=max_pairs)
    places = pairs.episode_index * 10 + pairs.frame_index
    assert len(places) == max_pairs and (np.diff(places) > 0).all()
    # One in each of equal stretches: no gap is longer than two of them.
    assert np.diff(places).max() <= 2 * np.ceil(100 / max_pairs)


def test_the_seed_draws_which_pair_of_a_stretch():
    """The first of each would be at one phase of whatever repeats itself."""
    first, again, other = (sample([make_source("panda", 10, 11)], max_pairs=10, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.frame_index, again.frame_index)
    assert len(np.unique(first.frame_index)) > 3 and (first.frame_index != other.frame_index).any()


def test_held_out_episodes_are_a_share_of_each_body():
    sources = [make_source("panda", 10, 9), make_source("sawyer", 3, 9)]
    pairs = sample(sources)
    for body, (total, held_out) in enumerate([(10, 3), (3, 1)]):
        kept, out = (np.unique(pairs.episode[rows(body)]) for rows in (pairs.training_rows, pairs.held_out_rows))
        assert (len(kept), len(out)) == (total - held_out, held_out)
        assert not set(kept) & set(out)
    assert (sample(sources).held_out == pairs.held_out).all()
    assert any((sample(sources, seed=seed).held_out != pairs.held_out).any() for seed in range(1, 5))


def test_an_episode_is_left_to_fit_probes_on():
    pairs = sample([make_source("panda", 2, 9)], held_out_share=0.9)
    assert len(pairs.training_rows()) == len(pairs.held_out_rows()) == 8


def test_data_sets_of_one_body_are_one():
    again = InMemorySource([dataclasses.replace(episode, source="more") for episode in make_source("panda", 2, 9, 1)])
    pairs = sample([make_source("panda", 2, 9), again])
    assert pairs.bodies == ("panda",) and len(np.unique(pairs.episode)) == 4
    assert set(pairs.source) == {"panda_data", "more"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (make_source("panda", 1, 9), "panda: 1 of 1 episodes have pairs .* at least 2 are needed"),
        (make_source("sawyer", 3, 1), "sawyer: 0 of 3 episodes have pairs of frames 0.1 s apart"),
    ],
)
def test_too_few_episodes(source, message):
    with pytest.raises(DataError, match=message):
        sample([source])
