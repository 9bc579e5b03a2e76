# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from cyclemimic.evaluation.tokenizer_quality.mutual_information import (
    discrete_mutual_information,
    ksg_mutual_information,
)


def correlated(count: int, correlation: float, num_dims: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian vectors, correlated dimension by dimension."""
    first, noise = np.random.default_rng(seed).standard_normal((2, count, num_dims))
    return first, correlation * first + math.sqrt(1 - correlation**2) * noise


def digamma(number: int) -> float:
    """ψ of a whole number, by harmonic numbers."""
    return -0.57721566490153286 + sum(1 / term for term in range(1, number))


def ksg(first: np.ndarray, second: np.ndarray, *arguments: int) -> float:
    return ksg_mutual_information(first, [second], *arguments)[0]


def slow_ksg(first: np.ndarray, second: np.ndarray, k: int) -> float:
    """Estimator 1, equation 8 of Kraskov et al., point by point."""
    count, total = len(first), 0.0
    for i in range(count):
        others = [j for j in range(count) if j != i]
        dx = [max(abs(first[i] - first[j])) for j in others]
        dy = [max(abs(second[i] - second[j])) for j in others]
        reach = sorted(map(max, zip(dx, dy)))[k - 1]
        total += digamma(sum(d < reach for d in dx) + 1) + digamma(sum(d < reach for d in dy) + 1)
    return digamma(k) + digamma(count) - total / count


@pytest.mark.parametrize("k", [1, 3, 5])
def test_ksg_equals_the_definition(k):
    first, second = correlated(60, 0.7, 2)
    first, second = (values - values.mean(axis=0) for values in (first, second[:, :1]))
    first, second = first / first.std(), second / second.std()
    assert ksg(first, second, k) == pytest.approx(slow_ksg(first, second, k), abs=1e-3)


@pytest.mark.parametrize(("correlation", "num_dims"), [(0.0, 1), (0.5, 1), (0.9, 1), (0.8, 2)])
def test_ksg_of_correlated_gaussians(correlation, num_dims):
    expected = -0.5 * num_dims * math.log(1 - correlation**2)
    found = ksg(*correlated(1500, correlation, num_dims))
    assert found == pytest.approx(expected, abs=0.08)


def test_ksg_does_not_depend_on_units():
    first, second = correlated(300, 0.8, 2)
    expected = ksg(first, second)
    assert ksg(1e3 * first + 7, 1e-3 * second) == pytest.approx(expected, abs=0.02)


def test_ksg_with_several_is_that_with_each():
    first, second = correlated(200, 0.7, 2)
    seconds = [second, second[::-1]]
    assert ksg_mutual_information(first, seconds) == [ksg(first, second) for second in seconds]


def test_ksg_of_codes_and_a_motion_they_name():
    random = np.random.default_rng(0)
    codes = random.integers(0, 8, 800)
    vectors = np.eye(8)[codes]
    # The motion says which of the eight it is, and something besides.
    assert ksg(vectors, codes[:, None] + 0.5 * random.random((800, 1))) == pytest.approx(math.log(8), abs=0.1)
    # A motion of eight values, no two of them alike, and one that half the words share.
    assert ksg(vectors, 1.0 * codes[:, None]) == pytest.approx(math.log(8), abs=0.1)
    assert ksg(vectors, 1.0 * (codes[:, None] // 2)) == pytest.approx(math.log(4), abs=0.1)
    assert ksg(vectors, random.random((800, 1))) == pytest.approx(0.0, abs=0.1)


def test_labels_that_split_the_values():
    random = np.random.default_rng(0)
    labels, values = random.integers(0, 2, 1000), random.random((1000, 1))
    assert discrete_mutual_information(labels, values + 5 * labels[:, None]) == pytest.approx(math.log(2), abs=0.02)
    # Half of each range is shared: H(Y) - H(Y|X) = 1.5 ln 2 - ln 2.
    overlapping = 2 * values + labels[:, None]
    assert discrete_mutual_information(labels, overlapping) == pytest.approx(0.5 * math.log(2), abs=0.06)
    assert discrete_mutual_information(labels, values) == pytest.approx(0.0, abs=0.06)


def test_labels_of_few_rows_by_the_definition():
    """Ross 2014, equation 2; where a label has fewer than three other rows, by all of them."""
    labels = np.repeat(np.arange(4), [2, 3, 4, 9])
    values = np.random.default_rng(0).random(18) + 0.3 * labels
    total = 0.0
    for i, label in enumerate(labels):
        size = int((labels == label).sum())
        k = min(3, size - 1)
        distances = np.delete(abs(values - values[i]), i)
        reach = np.sort(distances[np.delete(labels, i) == label])[k - 1]
        total += digamma(k) - digamma(size) - digamma(int((distances <= reach).sum()))
    found = discrete_mutual_information(labels, values[:, None])
    assert found == pytest.approx(digamma(18) + total / 18, abs=1e-9)


def test_labels_that_occur_once_are_left_out():
    random = np.random.default_rng(0)
    labels, values = random.integers(0, 2, 200), random.random((200, 1))
    expected = discrete_mutual_information(labels, values + 5 * labels[:, None])
    more = np.concatenate([labels, [7, 8, 9]])
    extended = np.concatenate([values + 5 * labels[:, None], [[0.3], [2.0], [5.5]]])
    assert discrete_mutual_information(more, extended) == pytest.approx(expected, abs=0.02)
    assert math.isnan(discrete_mutual_information(np.arange(200), values))


@pytest.mark.parametrize("function", [ksg, discrete_mutual_information])
def test_bad_input(function):
    with pytest.raises(ValueError, match="as many rows, got 4 and 5"):
        function(np.zeros((4, 1)), np.zeros((5, 1)))
    with pytest.raises(ValueError, match=r"neighbours of a row must be in \[1, 3\), of all rows, got 3"):
        function(np.zeros((3, 1)), np.zeros((3, 1)))
