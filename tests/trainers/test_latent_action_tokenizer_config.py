# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic import LatentActionTokenizerTrainingArguments


def test_defaults_are_the_papers(tmp_path):
    arguments = LatentActionTokenizerTrainingArguments(output_dir=str(tmp_path))
    assert (arguments.learning_rate, arguments.weight_decay) == (1e-4, 1e-2)
    assert arguments.optim.startswith("adamw")
    assert (arguments.interval_s, arguments.min_interval_s, arguments.reversed_share) == (1.0, 0.5, 0.0)
    assert not arguments.remove_unused_columns


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_interval_s": 0.0}, r"`min_interval_s` must be above 0 and at most `interval_s` \(1.0\), got 0.0"),
        ({"interval_s": 0.4}, r"`min_interval_s` must be .* at most `interval_s` \(0.4\), got 0.5"),
        ({"interval_s": float("nan")}, "`min_interval_s` must be"),
        ({"reversed_share": 1.5}, r"`reversed_share` must be in \[0, 1\], got 1.5"),
        ({"reversed_share": -0.1}, r"`reversed_share` must be in \[0, 1\], got -0.1"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        LatentActionTokenizerTrainingArguments(output_dir=str(tmp_path), **arguments)
