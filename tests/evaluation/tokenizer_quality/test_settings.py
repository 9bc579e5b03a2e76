# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic.evaluation.tokenizer_quality import QualitySettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interval_s": 0.1}, r"`min_interval_s` must be above 0 and at most `interval_s` \(0.1\), got 0.5"),
        ({"motion": "pose"}, r"`motion` must be one of \['state', 'action'\], got 'pose'"),
        ({"motion_dims": ()}, "`motion_dims` must be distinct numbers"),
        ({"motion_dims": (0, 0)}, r"got \[0, 0\]"),
        ({"motion_dims": (-1,)}, r"got \[-1\]"),
        ({"max_pairs": 0}, "`max_pairs` must be at least 1, got 0"),
        ({"held_out_share": 1.0}, r"`held_out_share` must be in \(0, 1\), got 1"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        QualitySettings(**changes)
