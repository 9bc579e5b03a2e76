# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import feature_statistics
from cyclemimic.data.feature_statistics import DistinctValues, ImageStatistics, VectorStatistics, vector_statistics


def test_running_statistics_equal_those_of_all_rows_at_once():
    rng = np.random.default_rng(0)
    parts = [rng.normal(index, 1 + index, (length, 3)) for index, length in enumerate((5, 1, 40, 17))]
    running = VectorStatistics()
    for part in parts:
        running.update(part)
    expected = vector_statistics(np.concatenate(parts))
    for name, value in running.result().items():
        np.testing.assert_allclose(value, expected[name], err_msg=name)


def test_quantiles_of_many_rows_stay_close_and_memory_bounded(monkeypatch):
    monkeypatch.setattr(feature_statistics, "_MAX_ROWS", 1000)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20_011, 2))
    running = VectorStatistics()
    for start in range(0, len(rows), 37):
        running.update(rows[start : start + 37])
        assert running._num_rows <= 1000
    result = running.result()
    np.testing.assert_allclose(result["q50"], np.quantile(rows, 0.5, axis=0), atol=0.15)
    np.testing.assert_allclose(result["mean"], rows.mean(0), atol=1e-9)
    # A systematic sample: every 32nd row, whatever the lengths of the episodes.
    np.testing.assert_array_equal(np.concatenate(running._rows), rows[:: running._stride])
    # Nor do they keep the rows between them alive.
    assert sum(len(kept if kept.base is None else kept.base) for kept in running._rows) <= 2000


def test_distinct_values_are_counted_up_to_three():
    running = DistinctValues()
    assert running.counts() == []
    for rows in ([[5, 0, 1], [5, 0, 2]], [[5, 1, 2]], [[5, 0, 3], [5, 1, 4]]):
        running.update(np.array(rows, dtype=np.float32))
    assert running.counts() == [1, 2, 3]


def test_image_statistics_are_a_channel_and_in_unit_range():
    frames = np.random.default_rng(0).integers(0, 256, (7, 6, 8, 3), dtype=np.uint8)
    running = ImageStatistics()
    own = [running.update(frames[:3]), running.update(frames[3:])]
    unit = frames / 255
    for result, expected in [(own[0], unit[:3]), (running.result(), unit)]:
        assert result["mean"].shape == (3, 1, 1)
        np.testing.assert_allclose(result["mean"].squeeze(), expected.mean((0, 1, 2)))
        np.testing.assert_allclose(result["std"].squeeze(), expected.std((0, 1, 2)))
        np.testing.assert_allclose(result["max"].squeeze(), expected.max((0, 1, 2)))
        np.testing.assert_allclose(
            result["q10"].squeeze(), np.quantile(expected, 0.1, axis=(0, 1, 2), method="inverted_cdf")
        )
    assert running.result()["count"] == pytest.approx([7])
