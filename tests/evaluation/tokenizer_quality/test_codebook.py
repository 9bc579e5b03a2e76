# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.evaluation.tokenizer_quality.codebook import codebook_use, one_hot


def test_one_hot():
    np.testing.assert_array_equal(one_hot(np.array([[0, 2], [1, 1]]), 3), [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]])


def test_use_worked_by_hand():
    use = codebook_use(np.array([[0, 0], [1, 0], [0, 0], [1, 0]]), 4)
    assert use["used_share"] == 0.5
    # Words over all tokens: three quarters and one quarter.
    assert use["perplexity"] == pytest.approx(0.75**-0.75 * 0.25**-0.25)
    assert use["perplexity_per_token"] == pytest.approx([2.0, 1.0])
    assert use["word_shares"] == [[0.5, 0.5, 0, 0], [1.0, 0, 0, 0]]
    assert (use["distinct_actions"], use["possible_actions"]) == (2, 16)
    assert use["action_perplexity"] == pytest.approx(2.0)
