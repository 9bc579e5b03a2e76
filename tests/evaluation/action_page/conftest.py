# SPDX-License-Identifier: Apache-2.0
"""A tiny tokenizer, two bodies of two episodes, and the page over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
)
from cyclemimic.data import Episode, FramePairDataset, InMemorySource
from cyclemimic.evaluation.action_page.action_explorer import ActionExplorer
from cyclemimic.evaluation.action_page.labelled_pairs import LabelledPairs

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}


def body(name: str, height: int, width: int, seed: int) -> InMemorySource:
    random = np.random.default_rng(seed)
    frames = [random.integers(0, 256, (5, height, width, 3), dtype=np.uint8) for _ in range(2)]
    return InMemorySource(
        [
            Episode.from_arrays(array, 10.0, "<b>wave</b>", source=name, embodiment=name, index=index)
            for index, array in enumerate(frames)
        ]
    )


@pytest.fixture(scope="session")
def page_pairs() -> FramePairDataset:
    """Sixteen pairs of neighbouring frames: bodies `arm` and `leg`, two episodes of four pairs each."""
    return FramePairDataset([body("arm", 16, 16, 0), body("leg", 12, 24, 1)], 0.1, 0.1)


@pytest.fixture(scope="session")
def explorer(page_pairs: FramePairDataset) -> ActionExplorer:
    torch.manual_seed(0)
    codes = {"codebook_size": 4, "num_latent_tokens": 2, "codebook_dim": 4}
    config = LatentActionTokenizerConfig(image_size=16, patch_size=8, vision_config=None, **SIZES, **codes)
    tokenizer = LatentActionTokenizerModel(config).eval()
    labelled = LabelledPairs(page_pairs, np.arange(16), np.random.default_rng(0).integers(0, 4, (16, 2)))
    return ActionExplorer(tokenizer, LatentActionTokenizerImageProcessor(size=16), labelled)
