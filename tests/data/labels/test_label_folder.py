# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import LabelFolder

from .test_latent_labels import ROWS, SETTINGS, make_columns


@pytest.fixture
def labels(tmp_path) -> LabelFolder:
    """One shard in the making."""
    labels = LabelFolder(tmp_path / "labels", SETTINGS, 1)
    labels.start()
    return labels


def test_interrupted_writing_leaves_no_shard(labels, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            labels.write(0, make_columns(ROWS))
    assert [path.name for path in tmp_path.rglob("*")] == ["labels.partial", ".plan.json"]
    assert labels.is_missing(0) and not labels.finish()
    labels.write(0, make_columns(ROWS))
    assert labels.finish()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"codes": np.full((5, 4), 16)}, r"`codes` must be in \[0, 16\), got 16 to 16"),
        ({"codes": np.full((5, 4), -1)}, r"`codes` must be in \[0, 16\)"),
        ({"codes": np.zeros((5, 3))}, r"`codes` must have shape \(num_rows, 4\), got \(5, 3\)"),
        ({"frame_index": [1]}, "equal length"),
        ({"extra": [1] * 5}, "`columns` must be"),
    ],
)
def test_rows_that_do_not_fit_are_refused(labels, change, message):
    with pytest.raises(ValueError, match=message):
        labels.write(0, make_columns(ROWS) | change)
    assert labels.is_missing(0)
