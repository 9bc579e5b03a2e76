# SPDX-License-Identifier: Apache-2.0
"""Probes: how much of the true motion can be read from a representation, by a linear map and by a small network.

A probe is fitted on some episodes and scored on others. What it can choose, ridge penalty or number of epochs, it
chooses on a part of each body's episodes that it is fitted on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

_VALIDATION_SHARE = 0.25
# Penalties relative to the mean variance of a feature.
_PENALTIES = np.logspace(-4, 3, 8)
_HIDDEN_SIZE = 128
_MAX_EPOCHS, _PATIENCE = 60, 6
# Of a loss that starts near 1: less is no gain worth waiting for.
_LEAST_GAIN = 1e-3
# Pairs a step: few of few pairs, or an epoch would be a single step.
_MIN_BATCH_SIZE, _MAX_BATCH_SIZE, _STEPS_PER_EPOCH = 32, 256, 16


class Probe(Protocol):
    """What a fitted probe does."""

    def predict(self, features: np.ndarray) -> np.ndarray:
        """`(n, num_features)` → `(n, num_targets)`."""
        ...


FitProbe = Callable[[np.ndarray, np.ndarray, np.ndarray, int, np.ndarray | None], Probe]


class ProbeScores(TypedDict):
    """What [`probe_scores`] tells."""

    r2: float
    r2_per_dim: list[float]
    nmse: float
    max_l1: float


def probe_scores(true: np.ndarray, predicted: np.ndarray) -> ProbeScores:
    """
    How well a motion is predicted.

    Args:
        true, predicted (`np.ndarray` of shape `(n, num_dims)`): Motion, each dimension in comparable units.

    Returns:
        `dict`:
        - **r2**: 1 less the squared error over the variance of `true`, both summed over dimensions: a dimension that
          moves more weighs more. 1 is perfect, 0 as good as the mean of `true`, below 0 worse.
        - **r2_per_dim**: the same in each dimension, `nan` in one that does not move.
        - **nmse**: mean over dimensions that move of squared error over variance.
        - **max_l1**: mean over pairs of the largest absolute error over dimensions.
    """
    error = ((true - predicted) ** 2).sum(axis=0)
    spread, moves = _spread(true), varying_dims(true)
    ratio = np.divide(error, spread, out=np.full(len(error), np.nan), where=moves)
    return {
        "r2": float(1 - error.sum() / spread.sum()) if moves.any() else float("nan"),
        "r2_per_dim": (1 - ratio).tolist(),
        "nmse": float(ratio[moves].mean()) if moves.any() else float("nan"),
        "max_l1": float(np.abs(true - predicted).max(axis=1).mean()),
    }


def varying_dims(motion: np.ndarray) -> np.ndarray:
    """Of some pairs' motion `(n, num_dims)`, bool `(num_dims,)`: whether it is not the same in all; no R² is without."""
    # Rounding leaves a spread in a dimension that does not move.
    return _spread(motion) > 1e-12 * np.maximum(1.0, (motion**2).sum(axis=0))


def _spread(motion: np.ndarray) -> np.ndarray:
    return ((motion - motion.mean(axis=0)) ** 2).sum(axis=0)


def mean_correlation(true: np.ndarray, predicted: np.ndarray) -> float:
    """
    Correlation of true and predicted motion `(n, num_dims)`, mean over dimensions: unlike R², it does not mind motions
    that are too small throughout, or off by the same everywhere. A dimension that moves, and is predicted not to, counts as 0;
    `nan` where none moves, or the prediction is not known.
    """
    moves = varying_dims(true)
    if not moves.any() or not np.isfinite(predicted).all():
        return float("nan")
    true, predicted = ((motion - motion.mean(axis=0))[:, moves] for motion in (true, predicted))
    scale = np.sqrt((true**2).sum(axis=0) * (predicted**2).sum(axis=0))
    return float(
        np.divide((true * predicted).sum(axis=0), scale, out=np.zeros_like(scale), where=scale > 1e-12).mean()
    )


class LinearProbe:
    """Ridge regression: `targets ≈ (features - mean) @ weight + bias`."""

    def __init__(self, mean: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> None:
        self.mean, self.weight, self.bias = mean, weight, bias

    def predict(self, features: np.ndarray) -> np.ndarray:
        return (features - self.mean) @ self.weight + self.bias


def fit_linear_probe(
    features: np.ndarray, targets: np.ndarray, episodes: np.ndarray, seed: int = 0, bodies: np.ndarray | None = None
) -> LinearProbe:
    """
    Fits a ridge regression, in closed form. The penalty is chosen on held-back episodes.

    Args:
        features (`np.ndarray` of shape `(n, num_features)`): Representation of each pair.
        targets (`np.ndarray` of shape `(n, num_targets)`): Motion of each pair.
        episodes (`np.ndarray` of shape `(n,)`): Episode of each pair.
        seed (`int`, *optional*, defaults to 0): Seed of the choice of episodes.
        bodies (`np.ndarray` of shape `(n,)`, *optional*): Body of each pair; all one body by default.
    """
    penalty, split = 1.0, _hold_back(episodes, bodies, seed)
    if split is not None:
        fitted, checked = split
        probes = _ridge_probes(features[fitted], targets[fitted], _PENALTIES)
        errors = [((probe.predict(features[checked]) - targets[checked]) ** 2).mean() for probe in probes]
        penalty = _PENALTIES[int(np.argmin(errors))]
    return _ridge_probes(features, targets, np.array([penalty]))[0]


def _ridge_probes(features: np.ndarray, targets: np.ndarray, penalties: np.ndarray) -> list[LinearProbe]:
    """A probe for each penalty, from one eigendecomposition, of as many rows as there are pairs or features, the fewer."""
    mean, bias = features.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
    centred, goal = features - mean, targets - bias
    scale = max(float((centred**2).sum()) / centred.shape[1], 1e-12)
    has_few_features = centred.shape[1] <= centred.shape[0]
    values, vectors = np.linalg.eigh(centred.T @ centred if has_few_features else centred @ centred.T)
    projected = vectors.T @ (centred.T @ goal if has_few_features else goal)
    solutions = (vectors @ (projected / (np.maximum(values, 0) + penalty * scale)[:, None]) for penalty in penalties)
    return [LinearProbe(mean, found if has_few_features else centred.T @ found, bias) for found in solutions]


@dataclass(frozen=True, eq=False)
class Scaling:
    """To values around 0 of a mean square of 1. One scale for all dimensions: by its own, one that hardly varies, as a word
    that is hardly used, would be blown up."""

    mean: np.ndarray
    scale: float

    @classmethod
    def of(cls, values: np.ndarray) -> Scaling:
        """The one of these values, of shape `(n, num_dims)`."""
        mean = values.mean(axis=0, dtype=np.float64)
        spread = float(np.sqrt(((values - mean) ** 2).mean()))
        # Values that are all alike, as a collapsed codebook's, have no scale: others are not to be blown up by it.
        return cls(mean, spread if spread > 1e-6 else 1.0)

    def apply(self, values: np.ndarray) -> torch.Tensor:
        """float32 of the shape of `values`."""
        return torch.from_numpy((values - self.mean) / self.scale).float()

    def invert(self, values: np.ndarray) -> np.ndarray:
        """What [`apply`] made `values` of."""
        return self.mean + self.scale * values


class NetworkProbe:
    """A fitted network, with the scaling of its input and, if it predicts a scaled motion, of that."""

    def __init__(self, network: nn.Module, inputs: Scaling, outputs: Scaling | None = None) -> None:
        self.network, self.inputs, self.outputs = network, inputs, outputs

    @torch.inference_mode()
    def predict(self, features: np.ndarray) -> np.ndarray:
        values = self.network(self.inputs.apply(features)).numpy().astype(np.float64)
        return values if self.outputs is None else self.outputs.invert(values)


def fit_mlp_probe(
    features: np.ndarray, targets: np.ndarray, episodes: np.ndarray, seed: int = 0, bodies: np.ndarray | None = None
) -> NetworkProbe:
    """Fits a network with one hidden layer, as [`fit_linear_probe`]; the number of epochs is chosen on held-back
    episodes. The same arguments give the same probe, and targets in another unit the same predictions in that."""
    inputs, outputs = Scaling.of(features), Scaling.of(targets)
    network = _fit_network(
        *(inputs.apply(features), outputs.apply(targets), F.mse_loss, targets.shape[1], _HIDDEN_SIZE),
        *(episodes, bodies, seed),
    )
    return NetworkProbe(network, inputs, outputs)


def fit_classifier(
    features: np.ndarray, labels: np.ndarray, episodes: np.ndarray, hidden_size: int | None = None, seed: int = 0
) -> NetworkProbe:
    """
    Fits a classifier, with every class weighing the same: logistic regression, or a network with a hidden layer.

    Args:
        features (`np.ndarray` of shape `(n, num_features)`): Representation of each pair.
        labels (`np.ndarray` of shape `(n,)`): Class of each pair, its body, from 0; each at least once.
        episodes (`np.ndarray` of shape `(n,)`): Episode of each pair.
        hidden_size (`int`, *optional*): Width of the hidden layer; none by default.
        seed (`int`, *optional*, defaults to 0): Seed of initial weights and order.

    Returns:
        [`NetworkProbe`]: `predict` gives logits, one a class.
    """
    counts = np.bincount(labels)
    weight = torch.from_numpy(len(labels) / (len(counts) * counts)).float()

    def loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, target, weight)

    inputs, target = Scaling.of(features), torch.from_numpy(labels).long()
    network = _fit_network(inputs.apply(features), target, loss, len(counts), hidden_size, episodes, labels, seed)
    return NetworkProbe(network, inputs)


PROBES: dict[str, FitProbe] = {"linear": fit_linear_probe, "mlp": fit_mlp_probe}


def _fit_network(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    num_outputs: int,
    hidden_size: int | None,
    episodes: np.ndarray,
    bodies: np.ndarray | None,
    seed: int,
) -> nn.Module:
    num_epochs, split = _MAX_EPOCHS // 4, _hold_back(episodes, bodies, seed)
    if split is not None:
        fitted, checked = (torch.from_numpy(rows) for rows in split)
        check = (inputs[checked], targets[checked])
        _, num_epochs = _train(inputs[fitted], targets[fitted], loss, num_outputs, hidden_size, seed, check=check)
    return _train(inputs, targets, loss, num_outputs, hidden_size, seed, num_epochs)[0]


def _train(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    num_outputs: int,
    hidden_size: int | None,
    seed: int,
    num_epochs: int = _MAX_EPOCHS,
    check: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[nn.Module, int]:
    """A trained network; with `check`, also the number of epochs after which its loss there was lowest."""
    best, best_epochs = float("inf"), num_epochs
    batch_size = min(_MAX_BATCH_SIZE, max(_MIN_BATCH_SIZE, len(inputs) // _STEPS_PER_EPOCH))
    # The seed makes the probe, without a trace in the caller's random state.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _make_network(inputs.shape[1], num_outputs, hidden_size)
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2, fused=True)
        for epoch in range(1, num_epochs + 1):
            for rows in torch.randperm(len(inputs)).split(batch_size):
                optimizer.zero_grad()
                loss(network(inputs[rows]), targets[rows]).backward()
                optimizer.step()
            if check is not None:
                with torch.inference_mode():
                    current = float(loss(network(check[0]), check[1]))
                if current < best - _LEAST_GAIN:
                    best, best_epochs = current, epoch
                elif epoch - best_epochs >= _PATIENCE:
                    break
    return network.requires_grad_(False), best_epochs


def _make_network(num_inputs: int, num_outputs: int, hidden_size: int | None) -> nn.Module:
    if hidden_size is None:
        return nn.Linear(num_inputs, num_outputs)
    return nn.Sequential(nn.Linear(num_inputs, hidden_size), nn.GELU(), nn.Linear(hidden_size, num_outputs))


def _hold_back(episodes: np.ndarray, bodies: np.ndarray | None, seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    """
    Rows to fit on and rows to check on, of different episodes, both of every body: one that is checked and not fitted
    would always speak for fitting less. A body of one episode is not checked; where all are, the last of each one's rows
    are. `None` where there is nothing to check on.
    """
    random, is_checked = np.random.default_rng(seed), np.zeros(len(episodes), dtype=bool)
    for body in (None,) if bodies is None else np.unique(bodies):
        names = np.unique(episodes if body is None else episodes[bodies == body])
        count = min(len(names) - 1, max(1, round(_VALIDATION_SHARE * len(names))))
        is_checked |= np.isin(episodes, random.permutation(names)[:count])
    if not is_checked.any():
        for name in np.unique(episodes):
            rows = np.flatnonzero(episodes == name)
            is_checked[rows[len(rows) - round(_VALIDATION_SHARE * len(rows)) :]] = True
    return (np.flatnonzero(~is_checked), np.flatnonzero(is_checked)) if is_checked.any() else None
