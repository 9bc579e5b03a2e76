# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from transformers import AutoConfig, LlavaConfig, PaliGemmaConfig

from cyclemimic.models.cyclemimic import CycleMimicConfig, make_tiny_backbone_config


def test_defaults_are_the_papers():
    config = CycleMimicConfig()
    assert (config.codebook_size, config.num_latent_tokens, config.num_act_tokens) == (16, 4, 1)
    assert (config.chunk_size, config.action_dim) == (12, 7)
    assert isinstance(config.backbone_config, LlavaConfig)


def test_round_trip(config, tmp_path):
    config.save_pretrained(tmp_path)
    for reloaded in (CycleMimicConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert {**reloaded.to_dict(), "_name_or_path": ""} == config.to_dict()
        assert type(reloaded.backbone_config) is LlavaConfig
        assert reloaded.get_text_config().vocab_size == config.backbone_config.text_config.vocab_size
        assert reloaded.hidden_size == 32


def test_a_saved_config_may_hold_more(config, tmp_path):
    config.eos_token_id = 0  # as Trainer does in some versions
    config.save_pretrained(tmp_path)
    assert CycleMimicConfig.from_pretrained(tmp_path).latent_token_ids == config.latent_token_ids


@pytest.mark.parametrize("backbone_config", [{"model_type": "paligemma"}, PaliGemmaConfig()])
def test_any_backbone(backbone_config):
    config = CycleMimicConfig(backbone_config=backbone_config)
    assert isinstance(config.backbone_config, PaliGemmaConfig)
    assert config.image_token_id == config.backbone_config.image_token_id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"codebok_size": 16}, "codebok_size.*allowed.*codebook_size"),
        ({"backbone_config": {"hidden_size": 3}}, "model_type"),
        ({"num_latent_tokens": 0}, "`num_latent_tokens` must be at least 1, got 0"),
        ({"action_decoder_hidden_size": 100, "action_decoder_num_heads": 8}, "multiple of `action_decoder_num_heads`"),
        ({"latent_token_ids": [1, 2, 3]}, "`latent_token_ids` must be 16 distinct ids"),
        ({"latent_token_ids": [1] * 16}, "`latent_token_ids` must be 16 distinct ids"),
        ({"action_loss_weight": -1.0}, "`action_loss_weight` must be at least 0, got -1.0"),
        ({"latent_action_loss_weight": float("nan")}, "`latent_action_loss_weight` must be at least 0, got nan"),
        ({"act_token_ids": [10**6]}, "`act_token_ids` must be 1 distinct ids below .* got \\[1000000\\]"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CycleMimicConfig(**arguments)


def test_tiny_backbone_must_fit_the_processor(processor):
    with pytest.raises(ValueError, match="16 image tokens, got 64 and 8"):
        make_tiny_backbone_config(processor, image_size=64, patch_size=8)
    with pytest.raises(ValueError, match="multiple of 32, got 40"):
        make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=40)


@pytest.mark.parametrize("fields", [{"n_action_steps": 99}, {"temporal_ensemble_coeff": -0.1}, {"chunk_size": 0}])
def test_what_is_changed_in_loading_is_checked_too(fields, config, tmp_path):
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be"):
        CycleMimicConfig.from_pretrained(tmp_path, **fields)
    assert CycleMimicConfig.from_pretrained(tmp_path, n_action_steps=1).n_action_steps == 1
