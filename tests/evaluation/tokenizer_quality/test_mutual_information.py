# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from cyclemimic.evaluation.tokenizer_quality.mutual_information import (
    code_information,
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


def ksg(first: np.ndarray, second: np.ndarray, groups: np.ndarray | None = None, num_neighbours: int = 3) -> float:
    return ksg_mutual_information(first, [second], groups, num_neighbours)[0]


def slow_ksg(first: np.ndarray, second: np.ndarray, k: int, groups: np.ndarray) -> float:
    """Estimator 1, equation 8 of Kraskov et al., point by point, each among the points of other groups."""
    count, total = len(first), 0.0
    for i in range(count):
        others = [j for j in range(count) if groups[j] != groups[i]]
        dx = [max(abs(first[i] - first[j])) for j in others]
        dy = [max(abs(second[i] - second[j])) for j in others]
        reach = sorted(map(max, zip(dx, dy)))[k - 1]
        total += digamma(sum(d < reach for d in dx) + 1) + digamma(sum(d < reach for d in dy) + 1)
        total -= digamma(len(others) + 1)
    return digamma(k) - total / count


@pytest.mark.parametrize("groups", [np.arange(60), np.repeat(np.arange(5), [4, 8, 12, 16, 20])], ids=["none", "five"])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_ksg_equals_the_definition(k, groups):
    first, second = correlated(60, 0.7, 2)
    first, second = (values - values.mean(axis=0) for values in (first, second[:, :1]))
    first, second = first / first.std(), second / second.std()
    assert ksg(first, second, groups, k) == pytest.approx(slow_ksg(first, second, k, groups), abs=1e-3)


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
    assert discrete_mutual_information(labels, values + 5 * labels[:, None])[0] == pytest.approx(math.log(2), abs=0.02)
    # Half of each range is shared: H(Y) - H(Y|X) = 1.5 ln 2 - ln 2.
    overlapping = 2 * values + labels[:, None]
    assert discrete_mutual_information(labels, overlapping)[0] == pytest.approx(0.5 * math.log(2), abs=0.06)
    assert discrete_mutual_information(labels, values)[0] == pytest.approx(0.0, abs=0.06)


def test_labels_of_few_rows_by_the_definition():
    """Ross 2014, equation 2, each among rows of other groups; of a label with fewer than three there, by all of them."""
    labels = np.repeat(np.arange(4), [2, 3, 4, 9])
    values = np.random.default_rng(0).random(18) + 0.3 * labels
    for groups in (np.arange(18), np.arange(18) % 6):
        total = 0.0
        for i, label in enumerate(labels):
            others = groups != groups[i]
            distances = abs(values - values[i])[others]
            alike = distances[labels[others] == label]
            k = min(3, len(alike))
            reach = np.sort(alike)[k - 1]
            total += digamma(k) - digamma(len(alike) + 1) + digamma(len(distances) + 1)
            total -= digamma(int((distances <= reach).sum()))
        found = discrete_mutual_information(labels, values[:, None], groups)
        assert found == pytest.approx((total / 18, 1.0), abs=1e-9)


def test_labels_of_one_group_are_left_out():
    random = np.random.default_rng(0)
    labels, values = random.integers(0, 2, 200), random.random((200, 1))
    values += 5 * labels[:, None]
    groups = np.arange(200) // 2
    expected = discrete_mutual_information(labels, values, groups)
    extended = np.concatenate([values, [[0.3], [2.0], [5.5]]])
    found = discrete_mutual_information(
        np.concatenate([labels, [7, 7, 7]]), extended, np.concatenate([groups, 3 * [200]])
    )
    assert found[0] == pytest.approx(expected[0], abs=0.02)
    assert (expected[1], found[1]) == (1.0, 200 / 203)


def test_a_common_course_in_time_is_no_information():
    """Codes held for five frames and slow motions, drawn apart: by all neighbours, those in time, they would share 1 nat."""
    random = np.random.default_rng(0)
    episodes = np.repeat(np.arange(20), 60)
    codes = np.repeat(random.integers(0, 16, (240, 4)), 5, axis=0)
    noise = random.standard_normal((1200 + 9, 3))
    motion = np.stack([np.convolve(column, np.ones(10), "valid") for column in noise.T], axis=1)
    quantized = np.stack([np.eye(16)[token] for token in codes.T], axis=1)
    sample, encoded = (
        SimpleNamespace(standardised=motion, episode=episodes),
        SimpleNamespace(quantized=quantized, codes=codes),
    )
    found = code_information(sample, encoded, np.arange(1200), seed=0)
    assert abs(found["ksg"]) < 0.15 and abs(found["ksg_shuffled"]) < 0.15
    assert ksg(quantized.reshape(1200, -1), motion) > 1
    # A code that names the motion is told apart from that.
    codes[:, 0] = np.digitize(motion[:, 0], [-2.0, 0.0, 2.0])
    quantized = np.stack([np.eye(16)[token] for token in codes[:, :1].T], axis=1)
    named = SimpleNamespace(quantized=quantized, codes=codes[:, :1])
    found = code_information(sample, named, np.arange(1200), seed=0)
    assert found["ksg"] > 0.8 and found["discrete"] > 0.8 and abs(found["ksg_shuffled"]) < 0.15


@pytest.mark.parametrize("count", [2, 3, 4, 7])
@pytest.mark.parametrize("seed", range(4))
def test_the_control_has_no_episode_of_its_own(count, seed):
    episodes = np.repeat(np.arange(count), 30)
    motion = np.random.default_rng(seed).standard_normal((len(episodes), 1))
    codes = np.digitize(motion, [-1.0, 0.0, 1.0])
    sample = SimpleNamespace(standardised=motion, episode=episodes)
    encoded = SimpleNamespace(quantized=np.eye(4)[codes], codes=codes)
    found = code_information(sample, encoded, np.arange(len(episodes)), seed)
    assert found["ksg"] > 0.7 and abs(found["ksg_shuffled"]) < 0.35


def test_too_few_pairs_of_other_episodes():
    sample = SimpleNamespace(standardised=np.zeros((9, 1)), episode=np.repeat([0, 1], [7, 2]))
    assert code_information(sample, None, np.arange(9), seed=0) is None
    assert code_information(sample, None, np.arange(0), seed=0) is None


def test_labels_that_occur_once_are_left_out():
    random = np.random.default_rng(0)
    labels, values = random.integers(0, 2, 200), random.random((200, 1))
    expected = discrete_mutual_information(labels, values + 5 * labels[:, None])
    more = np.concatenate([labels, [7, 8, 9]])
    extended = np.concatenate([values + 5 * labels[:, None], [[0.3], [2.0], [5.5]]])
    found = discrete_mutual_information(more, extended)
    assert found[0] == pytest.approx(expected[0], abs=0.02) and found[1] == 200 / 203
    value, share = discrete_mutual_information(np.arange(200), values)
    assert math.isnan(value) and share == 0


@pytest.mark.parametrize("function", [ksg, discrete_mutual_information])
def test_bad_input(function):
    with pytest.raises(ValueError, match="as many rows, got 4, 5, 4"):
        function(np.zeros((4, 1)), np.zeros((5, 1)))
    with pytest.raises(ValueError, match="as many rows, got 4, 4, 5"):
        function(np.zeros((4, 1)), np.zeros((4, 1)), np.arange(5))
    with pytest.raises(ValueError, match=r"must be in \[1, 2\], the rows of other groups, got 3"):
        function(np.zeros((3, 1)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"must be in \[1, 2\], the rows of other groups, got 3"):
        function(np.zeros((6, 1)), np.zeros((6, 1)), np.array([0, 0, 0, 0, 1, 1]))
