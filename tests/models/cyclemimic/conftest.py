# SPDX-License-Identifier: Apache-2.0
"""A policy small enough for a test to train, and a batch of it with prompts of unequal length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cyclemimic.models.cyclemimic import CycleMimicConfig, CycleMimicProcessor, make_tiny_backbone_config

TEXTS = ["open the drawer", "press the big red button from the top", "reach"]
STATISTICS = {"arm": {"q01": [-2.0, -1.0, 0.0, 0.0], "q99": [2.0, 1.0, 4.0, 1.0], "mask": [True, True, True, False]}}


@pytest.fixture
def processor() -> CycleMimicProcessor:
    return CycleMimicProcessor.from_texts(
        TEXTS, image_size=32, patch_size=8, chunk_size=5, action_dim=4, num_act_tokens=2, action_statistics=STATISTICS
    )


@pytest.fixture
def config(processor: CycleMimicProcessor) -> CycleMimicConfig:
    backbone_config = make_tiny_backbone_config(
        processor, image_size=32, patch_size=8, hidden_size=32, num_text_layers=2
    )
    torch.manual_seed(0)
    return processor.make_config(backbone_config, action_decoder_hidden_size=32, action_decoder_num_heads=2)


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))


@pytest.fixture
def texts() -> list[str]:
    return TEXTS


@pytest.fixture
def codes() -> np.ndarray:
    return np.array([[3, 0, 15, 7], [7, 7, 1, 2], [0, 15, 3, 3]])


@pytest.fixture
def actions() -> np.ndarray:
    return np.random.default_rng(1).uniform(0.0, 1.0, (3, 5, 4)).astype(np.float32)
