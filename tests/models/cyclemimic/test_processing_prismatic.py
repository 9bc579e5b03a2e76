# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, LlavaProcessor

from cyclemimic import PrismaticConfig
from cyclemimic.models.cyclemimic.processing_prismatic import make_prismatic_processor

from .prismatic_checkpoints import VISION, save_tokenizer


def test_processor(tmp_path):
    save_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    size = len(tokenizer)
    processor = make_prismatic_processor(tokenizer, PrismaticConfig(**VISION).vision_config)
    assert (tokenizer.pad_token_id, processor.image_token_id) == (size, size + 1)
    # With these tokens there, none is added again.
    make_prismatic_processor(tokenizer, PrismaticConfig(**VISION).vision_config)
    assert len(tokenizer) == size + 2
    processor.save_pretrained(tmp_path / "saved")
    loaded = AutoProcessor.from_pretrained(tmp_path / "saved")
    assert type(loaded) is LlavaProcessor
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for each in (processor, loaded):
        batch = each(images=[image], text=["<image>open the drawer"], return_tensors="pt")
        assert (batch["input_ids"] == processor.image_token_id).sum() == 4
        # Squeezed, not cropped, and in [-1, 1].
        resized = Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.asarray(resized) / 127.5 - 1).permute(2, 0, 1)
        assert torch.allclose(batch["pixel_values"][0].double(), expected, atol=1e-5)
