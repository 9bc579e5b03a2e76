# SPDX-License-Identifier: Apache-2.0
"""A tokenizer small enough for a test to train, and pairs of frames in which a square moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerForPreTraining

SIZES = {
    "image_size": 16,
    "patch_size": 4,
    "vision_config": None,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "num_discriminator_layers": 1,
    "codebook_size": 8,
    "num_latent_tokens": 2,
    "codebook_dim": 4,
    "buffer_batch_size": 8,
}
TINY_DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_state(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name, value in first.items() if not torch.equal(value, second[name])] == []


@pytest.fixture
def make_config() -> Callable[..., LatentActionTokenizerConfig]:
    """The tiny configuration, with some fields set otherwise."""
    return lambda **fields: LatentActionTokenizerConfig(**(SIZES | fields))


@pytest.fixture
def tiny_dinov2() -> dict:
    return dict(TINY_DINOV2)


@pytest.fixture
def make_joined_model(make_config) -> Callable[..., LatentActionTokenizerForPreTraining]:
    """A model in training in which AC3 is active, half ramped up, with two batches of two bodies in its buffer."""

    def make(**fields) -> LatentActionTokenizerForPreTraining:
        torch.manual_seed(0)
        config = make_config(**({"cycle_ramp_steps": 200} | fields))
        model = LatentActionTokenizerForPreTraining(config).train()
        for _ in range(2):
            codes = torch.randint(config.codebook_size, (6, config.num_latent_tokens))
            model.buffer.add(codes, torch.arange(6) % 2)
        model.ac3_steps.fill_(100)
        return model

    return make


def moving_squares(count: int, first: int = 0, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Pairs `(count, 3, size, size)`: a bright square on black goes four pixels left, right, up or down. Any four in a row
    are of four places and four directions, any sixteen are all different.
    """
    frames = torch.zeros(2, count, 3, size, size)
    for pair in range(count):
        number = first + pair
        row, column = 4 * (1 + number // 2 % 2), 4 * (1 + number % 2)
        down, right = ((0, 4), (0, -4), (4, 0), (-4, 0))[(number + number // 4) % 4]
        frames[0, pair, :, row : row + 4, column : column + 4] = 1.0
        frames[1, pair, :, row + down : row + down + 4, column + right : column + right + 4] = 1.0
    return frames[0], frames[1]


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    return moving_squares(6)
