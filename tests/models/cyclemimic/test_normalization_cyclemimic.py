# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.models.cyclemimic.normalization_cyclemimic import (
    bounds_of,
    checked_statistics,
    denormalize,
    normalize,
    resolve_dataset,
)

ARM = checked_statistics("arm", {"q01": [-2.0, 0.0, 5.0, 0.0], "q99": [2.0, 10.0, 5.0, 1.0], "mask": [1, 1, 1, 0]}, 4)
HAND = checked_statistics("hand", {"q01": [0.0] * 4, "q99": [1.0] * 4}, 4)
STATISTICS = {"arm": ARM, "hand": HAND}


@pytest.mark.parametrize("mask", [[2, 0.5, 0, 1], [-1, 0, 0, 0], [True, True, True, 0.1]])
def test_a_mask_is_of_booleans(mask):
    with pytest.raises(ValueError, match=r"`arm` must hold 4 booleans as 'mask', got \["):
        checked_statistics("arm", {**HAND, "mask": mask}, 4)
    with pytest.raises(ValueError, match="`arm` must hold 4 finite values as 'mask', got"):
        checked_statistics("arm", {**HAND, "mask": [True]}, 4)


def test_a_rate_is_a_number_above_0():
    for fps in (0, -5.0, float("nan"), float("inf"), True, "10", [10]):
        with pytest.raises(ValueError, match="`arm` must hold a number above 0 as 'fps', got "):
            checked_statistics("arm", {**HAND, "fps": fps}, 4)
    assert [checked_statistics("arm", {**HAND, "fps": np.float32(fps)}, 4)["fps"] for fps in (10, 0.5)] == [10, 0.5]


def test_by_hand_and_back():
    values = np.array([[1.0, 2.5, 5.0, 0.3], [-3.0, 11.0, 7.0, 9.0]])
    bounds = bounds_of("statistics", {"arm": ARM}, None, values.shape)
    normalized = normalize(values, bounds)
    # Clipped; without width 0; the last left alone.
    np.testing.assert_allclose(normalized, [[0.5, -0.5, 0.0, 0.3], [-1.0, 1.0, 0.0, 9.0]], atol=1e-7)
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(denormalize(normalized, bounds), [[1, 2.5, 5, 0.3], [-2, 10, 5, 9]], atol=1e-6)


def test_a_data_set_a_sample():
    values = np.full((2, 3, 4), 0.5)
    bounds = bounds_of("statistics", STATISTICS, ["hand", "arm"], values.shape)
    normalized = normalize(values, bounds)
    np.testing.assert_allclose(normalized[0], np.zeros((3, 4)), atol=1e-7)
    np.testing.assert_allclose(normalized[1], np.tile([0.25, -0.9, 0.0, 0.5], (3, 1)), atol=1e-7)
    with pytest.raises(ValueError, match=r"`dataset` must be one name, or one a sample of \(2, 3, 4\), got 1 names"):
        bounds_of("statistics", STATISTICS, ["hand"], values.shape)


def test_which_data_set():
    assert resolve_dataset("statistics", {"arm": ARM}, None) == "arm"
    assert resolve_dataset("statistics", STATISTICS, "hand") == "hand"
    with pytest.raises(ValueError, match=r"`dataset` must be one of \['arm', 'hand'\], got None"):
        resolve_dataset("statistics", STATISTICS, None)
    with pytest.raises(ValueError, match=r"got 'arn' \(did you mean 'arm'\?\)"):
        resolve_dataset("statistics", STATISTICS, "arn")
    with pytest.raises(
        ValueError, match="`statistics` must hold the statistics of a data set, which fine-tuning adds, got none"
    ):
        resolve_dataset("statistics", {}, None)


def test_no_command_leaves_the_range_of_the_demonstrations():
    values = np.array([[3.0, -1.5, 2.0, 9.0]])
    bounds = bounds_of("statistics", {"arm": ARM}, None, values.shape)
    # Clipped; without width; the last left alone.
    np.testing.assert_allclose(denormalize(values, bounds), [[2, 0, 5, 9]])
