# SPDX-License-Identifier: Apache-2.0
"""Whether a code means the same on every body: probes fitted on one, scored on another; bodies told from codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .bootstrap import EpisodeBootstrap, Estimate, estimate, estimate_of_cells, mean_of_known
from .pair_sample import PairSample
from .probes import FitProbe, fit_classifier, mean_correlation, probe_scores, varying_dims

_CLASSIFIER_HIDDEN_SIZE = 64


@dataclass(frozen=True, eq=False)
class HeldOutPredictions:
    """Motion of the held-out pairs as probes predict it. `m` is the number of held-out pairs of all bodies.

    Args:
        by_body (`np.ndarray` of shape `(num_bodies, m, num_dims)`): By the probe fitted on each body; `nan` of one that does
            not move.
        pooled (`np.ndarray` of shape `(m, num_dims)`): By the probe fitted on all bodies.
    """

    by_body: np.ndarray
    pooled: np.ndarray


def predict_held_out(
    fit: FitProbe, features: np.ndarray, targets: np.ndarray, sample: PairSample, seed: int
) -> HeldOutPredictions:
    """
    Fits a probe on each body's training episodes, and one on all of them.

    Args:
        fit (`Callable`): One of [`~cyclemimic.evaluation.tokenizer_quality.probes.PROBES`].
        features (`np.ndarray` of shape `(n, num_features)`): A representation of every pair.
        targets (`np.ndarray` of shape `(n, num_dims)`): What to predict.
        sample ([`PairSample`]): The pairs.
        seed (`int`): Seed of the probes.
    """
    held_out = features[sample.held_out_rows()]

    def predict(body: int | None) -> np.ndarray:
        rows = sample.training_rows(body)
        if body is not None and not varying_dims(targets[rows]).any():
            # Of a body that stands still, a probe has learnt nothing to be scored.
            return np.full((len(held_out), targets.shape[1]), np.nan)
        return fit(features[rows], targets[rows], sample.episode[rows], seed, sample.body[rows]).predict(held_out)

    pooled = predict(None)
    one_body = len(sample.bodies) == 1
    by_body = [pooled] if one_body else [predict(body) for body in range(len(sample.bodies))]
    return HeldOutPredictions(np.stack(by_body), pooled)


def score_predictions(
    predictions: HeldOutPredictions, true: np.ndarray, sample: PairSample, bootstrap: EpisodeBootstrap
) -> dict[str, Any]:
    """
    Scores of one kind of probe on one representation, on held-out episodes.

    Args:
        predictions ([`HeldOutPredictions`]): By the probes.
        true (`np.ndarray` of shape `(m, num_dims)`): Standardised true motion of the held-out pairs.
        sample ([`PairSample`]): The pairs.
        bootstrap ([`EpisodeBootstrap`]): Over the held-out episodes.

    Returns:
        `dict`:
        - **within**: R² of the probes on the body they were fitted on, mean over bodies.
        - **across**: R² on every other body, mean over pairs of bodies; `None` with one body.
        - **pooled**: R² of the one probe of all bodies, on all.
        - **matrix**: R² of the probe fitted on body i (row) on body j (column).
        - **across_correlation**: [`mean_correlation`] on every other body, mean over pairs of bodies.
        - **by_body**: [`probe_scores`] of each body's own probe.
        - **pooled_scores**: [`probe_scores`] of the pooled probe.

        Means over bodies are over those that move.
    """
    count = len(sample.bodies)
    body = sample.body[sample.held_out_rows()]
    rows = [np.flatnonzero(body == j) for j in range(count)]
    cells = [[(predictions.by_body[i][rows[j]], true[rows[j]], rows[j]) for j in range(count)] for i in range(count)]
    matrix = np.array([[probe_scores(known, guess)["r2"] for guess, known, _ in line] for line in cells])
    resampled = np.array([[bootstrap.r2(known, guess, where) for guess, known, where in line] for line in cells])
    correlations = [
        mean_correlation(cells[i][j][1], cells[i][j][0]) for i in range(count) for j in range(count) if i != j
    ]
    everywhere = np.arange(len(true))
    pooled = probe_scores(true, predictions.pooled)
    return {
        **diagonal_and_rest(matrix, resampled),
        "pooled": estimate(pooled["r2"], bootstrap.r2(true, predictions.pooled, everywhere)),
        "matrix": matrix.tolist(),
        "across_correlation": mean_of_known(np.array(correlations)),
        "by_body": {
            name: probe_scores(true[rows[i]], predictions.by_body[i][rows[i]]) for i, name in enumerate(sample.bodies)
        },
        "pooled_scores": pooled,
    }


def diagonal_and_rest(matrix: np.ndarray, resampled: np.ndarray) -> dict[str, Estimate | None]:
    """Mean over the diagonal (`within`) and over the other cells (`across`) of a matrix, with intervals.

    Args:
        matrix (`np.ndarray` of shape `(num_bodies, num_bodies)`): A figure of each pair of bodies.
        resampled (`np.ndarray` of shape `(num_bodies, num_bodies, R)`): The figure in every resample.
    """
    diagonal = np.eye(len(matrix), dtype=bool)
    across = None if len(matrix) == 1 else estimate_of_cells(matrix[~diagonal], resampled[~diagonal])
    return {"within": estimate_of_cells(matrix[diagonal], resampled[diagonal]), "across": across}


def embodiment_predictability(
    features: dict[str, np.ndarray], sample: PairSample, bootstrap: EpisodeBootstrap, seed: int
) -> dict[str, Any]:
    """
    How well the body can be told from a representation: lower is more unified. Bodies that move differently can be
    told from the true motion already; codes that say nothing but the motion cannot do better than that.

    Args:
        features (`dict[str, np.ndarray]`): Name to representation `(n, num_features)`.
        sample ([`PairSample`]): Pairs of two bodies or more.
        bootstrap ([`EpisodeBootstrap`]): Over the held-out episodes.
        seed (`int`): Seed of the classifiers.

    Returns:
        `dict`: name to classifier (`"linear"`: logistic regression; `"mlp"`) to accuracy on held-out episodes, mean
        over bodies; and `"chance"`.
    """
    fitted, scored = sample.training_rows(), sample.held_out_rows()
    body = sample.body[scored]
    result: dict[str, Any] = {"chance": 1 / len(sample.bodies)}
    for name, values in features.items():
        result[name] = {}
        for kind, hidden_size in (("linear", None), ("mlp", _CLASSIFIER_HIDDEN_SIZE)):
            probe = fit_classifier(values[fitted], sample.body[fitted], sample.episode[fitted], hidden_size, seed)
            is_right = (probe.predict(values[scored]).argmax(axis=1) == body).astype(np.float64)
            rows = [np.flatnonzero(body == j) for j in range(len(sample.bodies))]
            resampled = np.mean([bootstrap.mean(is_right[where], where) for where in rows], axis=0)
            result[name][kind] = estimate(np.mean([is_right[where].mean() for where in rows]), resampled)
    return result
