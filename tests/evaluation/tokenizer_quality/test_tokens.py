# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from cyclemimic.evaluation.tokenizer_quality.tokens import write_tokens


def test_tokens_are_plain_arrays(faithful, tmp_path):
    write_tokens(tmp_path / "tokens.npz", faithful.sample, faithful.encoded)
    with np.load(tmp_path / "tokens.npz", allow_pickle=False) as file:
        tokens = dict(file)
    count = len(faithful.sample)
    assert {name: (str(array.dtype), array.shape) for name, array in tokens.items() if array.dtype.kind != "U"} == {
        "tokens": ("float32", (count, 2, 5)),
        "indices": ("int64", (count, 2)),
        "actions": ("float32", (count, 2)),
        "episode_index": ("int64", (count,)),
        "frame_index": ("int64", (count,)),
        "future_index": ("int64", (count,)),
        "held_out": ("bool", (count,)),
    }
    assert (set(tokens["source"]), set(tokens["embodiment"])) == (
        {"panda_data", "sawyer_data"},
        {"panda", "sawyer"},
    )
    # The stand-in's vectors are one-hot, and its words the steps themselves.
    np.testing.assert_array_equal(tokens["tokens"].argmax(axis=2), tokens["indices"])
    np.testing.assert_array_equal(tokens["actions"], tokens["indices"] - 2)
