# SPDX-License-Identifier: Apache-2.0
"""Mutual information of latent actions and true motion, by nearest neighbours, in nats.

Two estimators, because codes are discrete and motions are not. KSG (estimator 1 of Kraskov, Stögbauer and Grassberger,
2004, https://arxiv.org/abs/cond-mat/0305641) takes the codes' vectors as continuous; it is what the field reports
(MVP-LAM), and it changes with the vectors: words that are near and mean alike count for more. Ross (2014,
https://doi.org/10.1371/journal.pone.0087357) takes each distinct action as a label, which is what codes are, but it has to
leave out actions that occur in one episode. Both compare every pair with all others, without a
search tree: codes have too many dimensions for one to help.

Pairs a frame apart share most of their motion and often their codes. A neighbour in time is near in both whether they
have to do with each other or not, so the neighbours of a pair are sought in other episodes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .pair_sample import PairSample
from .passes import EncodedPairs

_NUM_NEIGHBOURS = 3
# Of more pairs than this, some are left out, evenly: every one is compared with every other.
_MAX_PAIRS = 2000
# Rows whose distances to all points are in memory at a time.
_BLOCK = 256
# In units of a standard deviation. Equal points have no nearest neighbour: KSG needs all distances to differ. Far
# below the distance of two words or of two motions, so that it decides between equals only.
_JITTER = 1e-6


def ksg_mutual_information(
    first: np.ndarray,
    seconds: Sequence[np.ndarray],
    groups: np.ndarray | None = None,
    num_neighbours: int = _NUM_NEIGHBOURS,
    seed: int = 0,
) -> list[float]:
    """
    Estimates the mutual information of one continuous variable with each of several: KSG, estimator 1, maximum norm. The
    distances of the one are computed once.

    Discrete values may be given too: a seeded jitter far below their differences tells equal ones apart, and where a
    cell of equal values holds more than `num_neighbours` points the estimate is that of the counts.

    Args:
        first (`np.ndarray` of shape `(n, num_dims)`), seconds (`Sequence[np.ndarray]`, each of shape `(n, num_dims)`): A
            sample of all, row by row. Each is divided by the standard deviation over all its dimensions.
        groups (`np.ndarray` of shape `(n,)`, *optional*): Rows of one group are not compared; by default each is a group.
        num_neighbours (`int`, *optional*, defaults to 3): `k`; fewer is less biased, more varies less.
        seed (`int`, *optional*, defaults to 0): Seed of the jitter.

    Returns:
        `list[float]`: In nats, one a variable of `seconds`; about 0 for independent variables, and then as often below as above.

    Raises:
        ValueError: a row has fewer rows of other groups than `num_neighbours`, or the numbers of rows differ.
    """
    group = _groups(groups, len(first))
    points = []
    for second in seconds:
        _check_rows(first, second, group, num_neighbours)
        random = np.random.default_rng(seed)
        points.append((_standardised(first, random), _standardised(second, random)))
    shared = float(_digamma(torch.tensor(num_neighbours))) + float(_digamma(_num_others(group) + 1).mean())
    totals = [0.0] * len(seconds)
    for rows in torch.arange(len(first)).split(_BLOCK):
        of_first = _distances(points[0][0], group, rows)
        for index, (_, second_points) in enumerate(points):
            of_second = _distances(second_points, group, rows)
            reach = torch.maximum(of_first, of_second).kthvalue(num_neighbours, dim=1).values
            for margin in (of_first, of_second):
                totals[index] += float(_digamma((margin < reach[:, None]).sum(dim=1) + 1).sum())
    return [shared - total / len(first) for total in totals]


def discrete_mutual_information(
    labels: np.ndarray, values: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> tuple[float, float]:
    """
    Estimates the mutual information of a label and a continuous variable (Ross 2014), by three neighbours; of labels with
    fewer other rows, by all.

    Args:
        labels (`np.ndarray` of shape `(n,)`): A whole number a row. Rows whose label no other group has say nothing
            about it and are left out.
        values (`np.ndarray` of shape `(n, num_dims)`): Divided by the standard deviation over all dimensions.
        groups (`np.ndarray` of shape `(n,)`, *optional*): Rows of one group are not compared; by default each is a group.
        seed (`int`, *optional*, defaults to 0): Seed of the jitter.

    Returns:
        `float`, `float`: In nats, `nan` where no label is of two groups; and the share of the rows that it is of.

    Raises:
        ValueError: a row has fewer rows of other groups than neighbours, or the numbers of rows differ.
    """
    group = _groups(groups, len(labels))
    _check_rows(labels, values, group, _NUM_NEIGHBOURS)
    label = torch.from_numpy(np.unique(labels, return_inverse=True)[1].reshape(-1))
    alike = _num_others(group, label)
    known = alike > 0
    if not known.any():
        return float("nan"), 0.0
    points = _standardised(values[known.numpy()], np.random.default_rng(seed))
    label, group, alike = label[known], group[known], alike[known]
    neighbours = alike.clamp(max=_NUM_NEIGHBOURS)
    total = float((_digamma(neighbours) - _digamma(alike + 1) + _digamma(_num_others(group) + 1)).sum())
    for rows in torch.arange(len(points)).split(_BLOCK):
        distances = _distances(points, group, rows)
        same = distances.masked_fill(label[rows, None] != label[None], float("inf"))
        reach = same.topk(min(_NUM_NEIGHBOURS, len(points)), dim=1, largest=False).values
        reach = reach.gather(1, neighbours[rows, None] - 1)
        total -= float(_digamma((distances <= reach).sum(dim=1)).sum())
    return total / len(points), len(points) / len(values)


def code_information(
    sample: PairSample, encoded: EncodedPairs, rows: np.ndarray, seed: int
) -> dict[str, float] | None:
    """
    Mutual information of codes and true motion of some pairs, in nats, by both estimators, with the share of the pairs that the
    discrete one is of, and as a control that of codes and motions of other episodes (`ksg_shuffled`); `None` for too few pairs of
    other episodes.
    """
    if len(rows) > _MAX_PAIRS:
        rows = rows[np.linspace(0, len(rows) - 1, _MAX_PAIRS).round().astype(int)]
    episodes = sample.episode[rows]
    if len(rows) == 0 or int(_num_others(_groups(episodes, len(rows))).min()) < _NUM_NEIGHBOURS:
        return None
    vectors, moved = encoded.quantized[rows].reshape(len(rows), -1), sample.standardised[rows]
    labels = np.unique(encoded.codes[rows], axis=0, return_inverse=True)[1].reshape(-1)
    ksg, ksg_shuffled = ksg_mutual_information(
        vectors, [moved, moved[_elsewhere(episodes, seed)]], episodes, seed=seed
    )
    discrete, discrete_share = discrete_mutual_information(labels, moved, episodes, seed=seed)
    return {
        "ksg": ksg,
        "ksg_shuffled": ksg_shuffled,
        "discrete": discrete,
        "discrete_share": discrete_share,
        "pairs": len(rows),
    }


def _elsewhere(episodes: np.ndarray, seed: int) -> np.ndarray:
    """
    For each row another of another episode, in that one's order: what the course of codes and of motions in time gives away
    is then still there. Where an episode has more than half of the rows, some of them get another of its own.
    """
    order = np.random.default_rng(seed).permutation(np.unique(episodes))
    rows = np.concatenate([np.flatnonzero(episodes == episode) for episode in order])
    donors = np.empty_like(rows)
    donors[rows] = np.roll(rows, len(rows) // 2)
    return donors


def _standardised(values: np.ndarray, random: np.random.Generator) -> torch.Tensor:
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    scaled = centred / max(float(np.sqrt((centred**2).mean())), 1e-300)
    return torch.from_numpy(scaled + _JITTER * random.standard_normal(values.shape))


def _groups(groups: np.ndarray | None, count: int) -> torch.Tensor:
    """Numbers of the rows' groups from 0: `(count,)`."""
    if groups is None:
        return torch.arange(count)
    return torch.from_numpy(np.unique(groups, return_inverse=True)[1].reshape(-1))


def _num_others(group: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
    """How many rows of other groups each row has, of its own label where there are labels: `(n,)`."""
    label = torch.zeros_like(group) if label is None else label
    both = label * (group.max() + 1) + group
    return torch.bincount(label)[label] - torch.bincount(both)[both]


def _distances(points: torch.Tensor, group: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Maximum-norm distances of some points to all, infinite to those of their group: `(len(rows), n)`."""
    distances = torch.cdist(points[rows], points, p=float("inf"))
    return distances.masked_fill_(group[rows, None] == group[None], float("inf"))


def _digamma(counts: torch.Tensor) -> torch.Tensor:
    return torch.digamma(counts.double())


def _check_rows(first: np.ndarray, second: np.ndarray, group: torch.Tensor, num_neighbours: int) -> None:
    if not len(first) == len(second) == len(group):
        raise ValueError(
            f"variables and groups must have as many rows, got {len(first)}, {len(second)}, {len(group)}."
        )
    fewest = int(_num_others(group).min()) if len(group) else 0
    if not 1 <= num_neighbours <= fewest:
        raise ValueError(
            f"the neighbours of a row must be in [1, {fewest}], the rows of other groups, got {num_neighbours}."
        )
