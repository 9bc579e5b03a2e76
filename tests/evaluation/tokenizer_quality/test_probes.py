# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cyclemimic.evaluation.tokenizer_quality import probes
from cyclemimic.evaluation.tokenizer_quality.probes import (
    PROBES,
    _hold_back,
    _ridge_probes,
    fit_classifier,
    fit_linear_probe,
    fit_mlp_probe,
    mean_correlation,
    probe_scores,
)

EPISODES = np.repeat(np.arange(10), 30)


def test_scores_worked_by_hand():
    true = np.array([[0.0, 0.0, 7.0], [2.0, 1.0, 7.0], [4.0, 2.0, 7.0]])
    predicted = np.array([[1.0, 0.0, 7.0], [2.0, 0.0, 7.0], [4.0, 2.0, 9.0]])
    scores = probe_scores(true, predicted)
    # Squared errors 1, 1 and 4; sums of squares about the mean 8, 2 and 0.
    assert scores["r2"] == pytest.approx(1 - 6 / 10)
    assert scores["r2_per_dim"][:2] == pytest.approx([1 - 1 / 8, 1 - 1 / 2])
    assert math.isnan(scores["r2_per_dim"][2])
    assert scores["nmse"] == pytest.approx((1 / 8 + 1 / 2) / 2)
    # Largest absolute errors of the pairs: 1, 1 and 2.
    assert scores["max_l1"] == pytest.approx(4 / 3)


def test_scores_without_motion_are_unknown():
    scores = probe_scores(np.full((4, 2), 0.1), np.zeros((4, 2)))
    assert math.isnan(scores["r2"]) and math.isnan(scores["nmse"])
    assert scores["max_l1"] == pytest.approx(0.1)


def test_perfect_prediction_and_the_mean():
    true = np.random.default_rng(0).normal(3, 2, (50, 3))
    assert probe_scores(true, true)["r2"] == 1.0
    assert probe_scores(true, np.broadcast_to(true.mean(axis=0), true.shape))["r2"] == pytest.approx(0.0)


def test_correlation_minds_neither_scale_nor_offset():
    true = np.random.default_rng(0).normal(size=(50, 2))
    assert mean_correlation(true, 0.1 * true + 5) == pytest.approx(1.0)
    assert mean_correlation(true, true * [1, -1]) == pytest.approx(0.0)
    assert mean_correlation(true, np.stack([true[:, 0], np.full(50, 0.3)], axis=1)) == pytest.approx(0.5)
    assert mean_correlation(np.stack([true[:, 0], np.full(50, 0.3)], axis=1), true) == pytest.approx(1.0)
    assert math.isnan(mean_correlation(np.zeros((50, 2)), true))
    assert math.isnan(mean_correlation(true, np.full((50, 2), np.nan)))


@pytest.mark.parametrize("fit", PROBES.values(), ids=PROBES)
def test_linear_map_is_recovered(fit):
    random = np.random.default_rng(0)
    features = random.normal(5, 3, (300, 6))
    targets = features @ random.normal(size=(6, 2)) - 4
    targets /= targets.std(axis=0)
    probe = fit(features[:240], targets[:240], EPISODES[:240], 0, None)
    assert probe_scores(targets[240:], probe.predict(features[240:]))["r2"] > 0.95


@pytest.mark.parametrize("num_features", [3, 60], ids=["fewer-than-pairs", "more-than-pairs"])
def test_ridge_is_what_the_normal_equations_give(num_features):
    random = np.random.default_rng(1)
    features, targets = random.normal(size=(40, num_features)), random.normal(size=(40, 2))
    penalties = np.array([0.1, 1.0])
    centred = features - features.mean(axis=0)
    gram = centred.T @ centred
    for penalty, probe in zip(penalties, _ridge_probes(features, targets, penalties), strict=True):
        damped = gram + penalty * np.trace(gram) / num_features * np.eye(num_features)
        weight = np.linalg.solve(damped, centred.T @ (targets - targets.mean(axis=0)))
        np.testing.assert_allclose(probe.predict(features), centred @ weight + targets.mean(axis=0))


def test_what_is_held_back_is_of_bodies_that_are_fitted_too():
    bodies = np.repeat([0, 1, 2], [120, 90, 30])
    episodes = np.concatenate([np.repeat([0, 1, 2, 3], 30), np.repeat([4, 5, 6], 30), np.full(30, 7)])
    for seed in range(9):
        fitted, checked = _hold_back(episodes, bodies, seed)
        assert sorted([*fitted, *checked]) == list(range(240))
        assert not set(episodes[fitted]) & set(episodes[checked])
        assert set(bodies[fitted]) == {0, 1, 2} and set(bodies[checked]) == {0, 1}, (
            "one episode is all that body 2 has"
        )


def test_of_single_episodes_the_last_pairs_are_held_back():
    fitted, checked = _hold_back(np.repeat([5, 8], [8, 4]), np.repeat([0, 1], [8, 4]), 0)
    assert checked.tolist() == [6, 7, 11] and fitted.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 10]
    assert _hold_back(np.array([0, 1]), np.array([0, 1]), 0) is None


@pytest.mark.parametrize("fit", PROBES.values(), ids=PROBES)
def test_what_a_probe_chooses_it_checks_on_every_body(fit, monkeypatch):
    seen, hold_back = [], probes._hold_back
    monkeypatch.setattr(
        probes, "_hold_back", lambda episodes, bodies, seed: seen.append(bodies) or hold_back(episodes, bodies, seed)
    )
    bodies = np.repeat([0, 1], 20)
    features = np.random.default_rng(0).normal(size=(40, 2))
    fit(features, features[:, :1], np.repeat(np.arange(4), 10), 0, bodies)
    assert len(seen) == 1 and seen[0] is bodies


def test_bodies_of_one_episode_are_told_apart():
    """A body that is only checked, never fitted, would stop the training after its first epoch."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 30)
    features = np.eye(4)[labels] + random.normal(0, 0.1, (120, 4))
    for seed in range(4):
        probe = fit_classifier(features, labels, labels, hidden_size=16, seed=seed)
        assert (probe.predict(features).argmax(axis=1) == labels).mean() > 0.95


def test_penalty_is_high_where_features_are_noise():
    random = np.random.default_rng(2)
    features, targets = random.normal(size=(300, 100)), random.normal(size=(300, 1))
    probe = fit_linear_probe(features[:150], targets[:150], EPISODES[:150])
    assert probe_scores(targets[150:], probe.predict(features[150:]))["r2"] > -0.1


def test_network_reads_what_a_line_cannot():
    random = np.random.default_rng(3)
    bits = random.integers(0, 2, (300, 2))
    features, targets = np.eye(2, dtype=np.float32)[bits].reshape(300, 4), (bits[:, :1] ^ bits[:, 1:]) * 2.0
    scores = {
        name: probe_scores(
            targets[240:], fit(features[:240], targets[:240], EPISODES[:240], 0, None).predict(features[240:])
        )
        for name, fit in PROBES.items()
    }
    assert scores["mlp"]["r2"] > 0.9 and scores["linear"]["r2"] < 0.2


@pytest.mark.parametrize("fit", PROBES.values(), ids=PROBES)
def test_what_is_read_does_not_depend_on_unit_and_origin(fit):
    """A body that moves little beside others has motions of 0.03, in the standard deviations of all."""
    random = np.random.default_rng(6)
    features = random.normal(size=(300, 6))
    motion = features[:, :2] + 0.3 * random.normal(size=(300, 2))
    predicted, small, moved = (
        fit(features[:240], targets[:240], EPISODES[:240], 0, None).predict(features[240:])
        for targets in (motion, 0.03 * motion, motion + 5)
    )
    assert probe_scores(motion[240:], predicted)["r2"] > 0.8
    np.testing.assert_allclose(small / 0.03, predicted, atol=1e-3)
    np.testing.assert_allclose(moved - 5, predicted, atol=1e-3)


def test_probe_depends_on_the_seed_alone():
    random = np.random.default_rng(4)
    features, targets = random.normal(size=(60, 3)), random.normal(size=(60, 1))
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    first, again, other = (
        fit_mlp_probe(features, targets, EPISODES[:60], seed).predict(features) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("hidden_size", [None, 16])
def test_classifier_gives_rare_classes_their_weight(hidden_size):
    random = np.random.default_rng(5)
    labels = (random.random(300) < 0.1).astype(np.int64)
    features = random.normal(0, 1, (300, 2)) + 2 * labels[:, None]
    probe = fit_classifier(features, labels, EPISODES, hidden_size)
    found = probe.predict(features).argmax(axis=1) == labels
    assert found[labels == 1].mean() > 0.8 and found[labels == 0].mean() > 0.8


def test_features_that_are_all_alike_do_not_blow_up_another():
    random = np.random.default_rng(0)
    features, targets = np.tile([0.0, 1.0], (60, 1)), random.normal(size=(60, 2))
    probe = fit_mlp_probe(features, targets, np.repeat(np.arange(6), 10), seed=0)
    assert np.abs(probe.predict(np.array([[1.0, 0.0]]))).max() < 10
