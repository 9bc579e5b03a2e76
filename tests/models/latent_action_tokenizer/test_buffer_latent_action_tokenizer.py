# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch

from cyclemimic.models.latent_action_tokenizer.buffer_latent_action_tokenizer import number_rows


def test_number_rows():
    codes = torch.tensor([[3, 0], [1, 2], [3, 0], [0, 3], [1, 2], [3, 1]])
    assert number_rows(codes, 4).tolist() == [2, 1, 2, 0, 1, 3]


def test_number_rows_of_more_actions_than_64_bits_count():
    codes = torch.zeros(3, 16, dtype=torch.long)
    codes[0, 0] = codes[2, 0] = 2**15
    codes[1, 15] = 1
    assert number_rows(codes, 2**16).tolist() == [1, 0, 1]
