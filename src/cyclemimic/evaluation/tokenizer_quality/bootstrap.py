# SPDX-License-Identifier: Apache-2.0
"""Intervals of figures measured on episodes: pairs of one episode are too alike to count as independent."""

from __future__ import annotations

import numpy as np

Estimate = dict[str, float | None]


class EpisodeBootstrap:
    """Resamples held-out episodes with replacement, each body's among themselves.

    Every figure uses the same resamples, so that figures can be averaged resample by resample.

    Args:
        episodes (`np.ndarray` of shape `(n,)`): Episode of each held-out pair.
        bodies (`np.ndarray` of shape `(n,)`): Body of each held-out pair.
        num_resamples (`int`, *optional*, defaults to 200): Number of resamples `R`.
        seed (`int`, *optional*, defaults to 0): Seed of the draw.
    """

    def __init__(self, episodes: np.ndarray, bodies: np.ndarray, num_resamples: int = 200, seed: int = 0) -> None:
        _, first, self._episode = np.unique(episodes, return_index=True, return_inverse=True)
        body_of_episode = np.asarray(bodies)[first]
        random = np.random.default_rng(seed)
        # How often each episode stands in each resample.
        self._weights = np.zeros((num_resamples, len(first)))
        self._is_alone = np.zeros(len(first), dtype=bool)
        for body in np.unique(body_of_episode):
            members = np.flatnonzero(body_of_episode == body)
            share = np.full(len(members), 1 / len(members))
            self._weights[:, members] = random.multinomial(len(members), share, size=num_resamples)
            self._is_alone[members] = len(members) == 1

    def mean(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The mean of a figure of each pair, in every resample.

        Args:
            values (`np.ndarray` of shape `(m,)`): Figure of each pair.
            rows (`np.ndarray` of shape `(m,)`): Which held-out pairs they are of.

        Returns:
            `np.ndarray` of shape `(R,)`: All `nan` where a body has a single episode: nothing can vary then.
        """
        counts, sums = self._sums(np.stack([np.ones(len(rows)), values], axis=1), rows).T
        # A resample may hold none of these pairs' episodes.
        counts[counts == 0] = np.nan
        return self._checked(sums / counts, rows)

    def r2(self, true: np.ndarray, predicted: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """R² as in [`probe_scores`], in every resample.

        Args:
            true, predicted (`np.ndarray` of shape `(m, num_dims)`): Motion of some pairs.
            rows (`np.ndarray` of shape `(m,)`): Which held-out pairs they are.

        Returns:
            `np.ndarray` of shape `(R,)`: All `nan` where a body has a single episode.
        """
        num_dims = true.shape[1]
        columns = np.concatenate([np.ones((len(true), 1)), true, true**2, (true - predicted) ** 2], axis=1)
        sums = self._sums(columns, rows)
        counts, totals = np.where(sums[:, :1] > 0, sums[:, :1], np.nan), sums[:, 1 : 1 + num_dims]
        squares, errors = sums[:, 1 + num_dims : 1 + 2 * num_dims], sums[:, 1 + 2 * num_dims :]
        spread = (squares - totals**2 / counts).sum(axis=1)
        # A resample of one episode, many times over, may show no motion at all.
        spread[spread <= 1e-12 * squares.sum(axis=1)] = np.nan
        return self._checked(1 - errors.sum(axis=1) / spread, rows)

    def _sums(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Weighted sums over pairs: `(m, c)` → `(R, c)`."""
        by_episode = np.zeros((self._weights.shape[1], values.shape[1]))
        np.add.at(by_episode, self._episode[rows], values)
        return self._weights @ by_episode

    def _checked(self, resampled: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.full_like(resampled, np.nan) if self._is_alone[self._episode[rows]].any() else resampled


def estimate_of_cells(values: np.ndarray, resampled: np.ndarray) -> Estimate:
    """Mean of a figure over some bodies, or pairs of bodies, with its interval; those of which it is not known, as of a body
    that does not move, count nowhere.

    Args:
        values (`np.ndarray` of shape `(n,)`): The figure of each.
        resampled (`np.ndarray` of shape `(n, R)`): The figure of each in every resample.
    """
    known = np.isfinite(values)
    if not known.any():
        return estimate(np.nan, resampled[:0].ravel())
    return estimate(values[known].mean(), resampled[known].mean(axis=0))


def mean_of_known(values: np.ndarray) -> float | None:
    """Mean of the figures that are known; `None` where none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def estimate(value: float | np.floating, resampled: np.ndarray) -> Estimate:
    """A figure and its 95 % percentile interval.

    Args:
        value (`float`): The figure on all pairs.
        resampled (`np.ndarray` of shape `(R,)`): The figure in every resample.

    Returns:
        `dict`: `"value"`, `"low"`, `"high"`; `None` for what is not known.
    """
    known = resampled[np.isfinite(resampled)]
    low, high = np.percentile(known, [2.5, 97.5]).tolist() if len(known) > len(resampled) / 2 else (None, None)
    return {"value": float(value) if np.isfinite(value) else None, "low": low, "high": high}
