# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.evaluation.tokenizer_quality.bootstrap import EpisodeBootstrap
from cyclemimic.evaluation.tokenizer_quality.cross_embodiment import (
    embodiment_predictability,
    predict_held_out,
    score_predictions,
)
from cyclemimic.evaluation.tokenizer_quality.probes import fit_linear_probe


@pytest.fixture
def sample(make_sample):
    """Two bodies, four episodes of 25 pairs each, of which the last two are held out."""
    return make_sample([0] * 100 + [1] * 100, np.repeat(np.arange(8), 25).tolist(), [2, 3, 6, 7])


@pytest.fixture
def bootstrap(sample):
    held_out = sample.held_out_rows()
    return EpisodeBootstrap(sample.episode[held_out], sample.body[held_out], 50)


def test_matrix_tells_who_understands_whom(sample, bootstrap):
    features = np.random.default_rng(0).normal(size=(200, 1))
    # On the second body, the same feature means the opposite motion.
    targets = np.where(sample.body[:, None] == 0, features, -features)
    predictions = predict_held_out(fit_linear_probe, features, targets, sample, seed=0)
    scores = score_predictions(predictions, targets[sample.held_out_rows()], sample, bootstrap)
    np.testing.assert_allclose(scores["matrix"], [[1, -3], [-3, 1]], atol=0.2)
    assert scores["within"]["value"] == pytest.approx(np.trace(scores["matrix"]) / 2)
    assert scores["across"]["value"] == pytest.approx((scores["matrix"][0][1] + scores["matrix"][1][0]) / 2)
    assert scores["across_correlation"] == pytest.approx(-1.0)
    assert scores["pooled"]["value"] < 0.2
    assert scores["by_body"]["b"]["r2"] == scores["matrix"][1][1]
    assert scores["pooled_scores"]["r2"] == scores["pooled"]["value"]


def test_probes_never_see_held_out_pairs(sample):
    seen = []

    def fit(features, targets, episodes, seed, bodies):
        seen.append((set(features[:, 0]), set(episodes)))
        return fit_linear_probe(features, targets, episodes, seed, bodies)

    numbers = np.arange(200.0)[:, None]
    predict_held_out(fit, numbers, numbers, sample, seed=0)
    assert [episodes for _, episodes in seen] == [{0, 1, 4, 5}, {0, 1}, {4, 5}]
    held_out = set(sample.held_out_rows())
    assert not any(rows & held_out for rows, _ in seen)


def test_bodies_told_from_features(sample, bootstrap):
    random = np.random.default_rng(0)
    features = {"noise": random.normal(size=(200, 2)), "name": np.eye(2)[sample.body]}
    told = embodiment_predictability(features, sample, bootstrap, seed=0)
    assert told["chance"] == 0.5
    for kind in ("linear", "mlp"):
        assert told["name"][kind] == {"value": 1.0, "low": 1.0, "high": 1.0}
        assert told["noise"][kind]["value"] == pytest.approx(0.5, abs=0.15)


def test_accuracy_is_a_mean_over_bodies(make_sample):
    # Nine in ten pairs are of the first body; a classifier that cannot tell gains nothing from saying so.
    body = [0] * 180 + [1] * 20
    sample = make_sample(body, np.repeat(np.arange(20), 10).tolist(), [0, 1, 2, 3, 18])
    held_out = sample.held_out_rows()
    bootstrap = EpisodeBootstrap(sample.episode[held_out], sample.body[held_out], 20)
    told = embodiment_predictability({"nothing": np.zeros((200, 1))}, sample, bootstrap, seed=0)
    assert told["nothing"]["linear"]["value"] == told["chance"] == 0.5
