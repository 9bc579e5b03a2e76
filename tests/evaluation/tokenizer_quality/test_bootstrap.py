# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.evaluation.tokenizer_quality.bootstrap import EpisodeBootstrap, estimate, estimate_of_cells
from cyclemimic.evaluation.tokenizer_quality.probes import probe_scores

EPISODES = np.repeat([4, 7, 9, 20], [3, 5, 2, 6])
BODIES = np.repeat([0, 0, 1, 1], [3, 5, 2, 6])


def resampled_rows(draws: list[int]) -> np.ndarray:
    return np.concatenate([np.flatnonzero(EPISODES == episode) for episode in draws])


def test_every_resample_is_one_of_whole_episodes_of_each_body():
    random = np.random.default_rng(0)
    true, predicted = random.normal(size=(2, 16, 3))
    rows = np.arange(16)
    bootstrap = EpisodeBootstrap(EPISODES, BODIES, 100)
    means, scores = bootstrap.mean(true[:, 0], rows), bootstrap.r2(true, predicted, rows)
    draws = [[a, b, c, d] for a in (4, 7) for b in (4, 7) for c in (9, 20) for d in (9, 20)]
    possible = [resampled_rows(draw) for draw in draws]
    allowed = {
        (round(true[chosen, 0].mean(), 9), round(probe_scores(true[chosen], predicted[chosen])["r2"], 9))
        for chosen in possible
    }
    # The two figures come from the same resamples.
    found = {(round(mean, 9), round(score, 9)) for mean, score in zip(means.tolist(), scores.tolist(), strict=True)}
    assert found <= allowed and len(found) >= 8


def test_rows_of_one_body():
    rows = np.flatnonzero(BODIES == 1)
    values = np.where(EPISODES[rows] == 9, 0.0, 1.0)
    means = EpisodeBootstrap(EPISODES, BODIES, 200).mean(values, rows)
    assert set(np.unique(means)) == {0.0, 12 / 16, 1.0}


def test_a_single_episode_has_no_interval():
    bootstrap = EpisodeBootstrap(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1]), 20)
    alone, two = np.array([0, 1]), np.array([2, 3])
    assert np.isnan(bootstrap.mean(np.ones(2), alone)).all()
    assert np.isnan(bootstrap.r2(np.ones((4, 1)), np.ones((4, 1)), np.arange(4))).all()
    assert np.isfinite(bootstrap.mean(np.ones(2), two)).all()
    assert estimate(1.0, bootstrap.mean(np.ones(2), alone)) == {"value": 1.0, "low": None, "high": None}


def test_resamples_without_motion_do_not_count():
    # Motion differs between the episodes, and not within: a resample of one of them alone has no R².
    episodes, true = np.array([0, 0, 1, 1]), np.array([[1.0], [1.0], [3.0], [3.0]])
    scores = EpisodeBootstrap(episodes, np.zeros(4), 100).r2(true, true, np.arange(4))
    assert np.isnan(scores).any() and (scores[np.isfinite(scores)] == 1).all()
    # Nor where no motion is what rounding leaves of it.
    true = np.array([[0.1], [0.1], [0.1], [0.7], [0.7], [0.7]])
    scores = EpisodeBootstrap(np.repeat([0, 1], 3), np.zeros(6), 100).r2(true, true + 0.1, np.arange(6))
    assert np.isnan(scores).any() and np.nanmin(scores) == np.nanmax(scores) == pytest.approx(1 - 0.01 / 0.09)


def test_resamples_without_any_of_the_pairs_do_not_count():
    # Two episodes, of which the figure is known on one.
    bootstrap = EpisodeBootstrap(np.array([0, 0, 1, 1]), np.zeros(4), 100)
    means = bootstrap.mean(np.ones(2), np.array([0, 1]))
    assert set(means[np.isfinite(means)]) == {1.0} and np.isnan(means).any()
    scores = bootstrap.r2(np.eye(2), np.eye(2), np.array([0, 1]))
    assert (np.isnan(scores) == np.isnan(means)).all()


def test_estimate():
    resampled = np.append(np.linspace(0, 1, 101), np.nan)
    assert estimate(0.4, resampled) == {"value": 0.4, "low": 0.025, "high": 0.975}
    assert estimate(float("nan"), resampled)["value"] is None
    # Where it is not known in half of the resamples or more, the others say too little.
    assert estimate(0.4, np.repeat([0.5, np.nan], 50)) == {"value": 0.4, "low": None, "high": None}
    assert estimate(0.4, np.repeat([0.5, np.nan], [51, 49])) == {"value": 0.4, "low": 0.5, "high": 0.5}


def test_interval_covers_the_truth_about_as_often_as_it_says():
    random, hits = np.random.default_rng(0), 0
    for seed in range(100):
        # Pairs of an episode share most of what they are: 30 episodes, not 300 pairs, are what is known.
        values = np.repeat(random.normal(size=30), 10) + 0.1 * random.normal(size=300)
        bootstrap = EpisodeBootstrap(np.repeat(np.arange(30), 10), np.zeros(300), 200, seed)
        interval = estimate(0.0, bootstrap.mean(values, np.arange(300)))
        hits += interval["low"] <= 0 <= interval["high"]
    assert 85 <= hits <= 99


def test_cells_that_are_not_known_count_nowhere():
    resampled = np.array([[0.2, 0.4], [np.nan, np.nan], [0.6, 0.8]])
    found = estimate_of_cells(np.array([0.3, np.nan, 0.7]), resampled)
    assert found == pytest.approx(estimate(0.5, np.array([0.4, 0.6])))
    nothing = estimate_of_cells(np.array([np.nan]), resampled[1:2])
    assert nothing == {"value": None, "low": None, "high": None}
