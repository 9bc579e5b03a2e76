# SPDX-License-Identifier: Apache-2.0
"""Policies in fewer bits, by transformers' own settings."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import BitsAndBytesConfig

from cyclemimic import CycleMimicForActionPrediction, CycleMimicTrainer, CycleMimicTrainingArguments
from cyclemimic.models.cyclemimic import make_tiny_backbone_config

pytest.importorskip("bitsandbytes", reason="the package bitsandbytes is not installed")
SETTINGS = {
    "4 bits": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32),
    "8 bits": BitsAndBytesConfig(load_in_8bit=True),
}


@pytest.fixture(params=SETTINGS)
def saved_and_quantized(request, processor, tmp_path) -> tuple[CycleMimicForActionPrediction, ...]:
    backbone_config = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=64)
    for part in (backbone_config.text_config, backbone_config.vision_config):
        part.intermediate_size = 128  # blocks of 64 weights have a scale each
    torch.manual_seed(0)
    saved = CycleMimicForActionPrediction(processor.make_config(backbone_config, action_decoder_hidden_size=64)).eval()
    saved.save_pretrained(tmp_path)
    quantized = CycleMimicForActionPrediction.from_pretrained(
        tmp_path, quantization_config=SETTINGS[request.param], device_map={"": "cpu"}
    )
    return saved, quantized.eval()


def test_backbone_alone_is_quantized_and_predicts_nearly_the_same(saved_and_quantized, processor, images, texts):
    saved, quantized = saved_and_quantized
    head = quantized.get_output_embeddings()
    for name, layer in quantized.named_modules():
        if isinstance(layer, nn.Linear):
            stays = layer is head or name.startswith("action_decoder.")
            assert layer.weight.is_floating_point() == stays, name
    prompt = processor(images, texts)
    codes, chunk = quantized.predict_latent_actions(**prompt), quantized.predict_action_chunk(**prompt)
    assert codes.shape == (3, 4)
    difference = (chunk - saved.predict_action_chunk(**prompt)).abs().max()
    assert 0 < difference < 0.5 * chunk.abs().max()


def test_quantized_policy_is_not_trained(saved_and_quantized, tmp_path):
    with pytest.raises(ValueError, match="`model` must have its weights in full, not quantized, to be trained"):
        CycleMimicTrainer(saved_and_quantized[1], CycleMimicTrainingArguments(tmp_path, lora_rank=4, report_to=[]))
