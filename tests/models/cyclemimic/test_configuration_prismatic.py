# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from transformers import AutoConfig, GPT2Config, LlamaConfig

from cyclemimic import PrismaticConfig

from .prismatic_checkpoints import VISION


def test_defaults_are_those_of_the_paper():
    config = PrismaticConfig()
    assert config.num_image_tokens == 256
    dino, siglip = config.vision_config, config.fused_vision_config
    assert (dino.hidden_size, dino.num_hidden_layers, dino.num_register_tokens) == (1024, 24, 4)
    assert (siglip.hidden_size, siglip.num_hidden_layers, siglip.intermediate_size) == (1152, 27, 4304)
    assert (config.text_config.hidden_size, config.text_config.vocab_size) == (4096, 32064)
    assert config.get_text_config() is config.text_config


def test_save_and_load_through_the_auto_class(tmp_path):
    config = PrismaticConfig(**VISION, text_config=GPT2Config(n_layer=1), image_token_id=7)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is PrismaticConfig
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()
    assert loaded.num_image_tokens == 4 and loaded.image_token_id == 7


@pytest.mark.parametrize("tied", [False, True])
def test_the_text_config_says_whether_embeddings_are_tied(tied):
    assert PrismaticConfig(text_config=LlamaConfig(tie_word_embeddings=tied)).tie_word_embeddings is tied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"vision_config": {**VISION["vision_config"], "patch_size": 7}},
            "one number of patches, got 4 x 4 of 28 pixels and 2 x 2 of 28",
        ),
        (
            {"vision_config": {**VISION["vision_config"], "image_size": 29}},
            "must have one image size and one number of patches, got 2 x 2 of 29 pixels",
        ),
        (
            {"fused_vision_config": {**VISION["fused_vision_config"], "num_hidden_layers": 1}},
            "`fused_vision_config` must have at least 2 layers",
        ),
        (
            {"text_config": {"hidden_size": 8}},
            "`text_config` must have a `model_type` that transformers knows, got None",
        ),
        ({"vision_config": {"model_type": "dinov99"}}, "`vision_config` must have a `model_type`"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        PrismaticConfig(**{**VISION, **change})
