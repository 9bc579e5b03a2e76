# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, Dinov2Config, SiglipVisionConfig

from cyclemimic import LatentActionTokenizerConfig


def test_defaults_are_the_papers():
    config = LatentActionTokenizerConfig()
    assert (config.image_size, config.patch_size, config.grid_size) == (224, 14, 16)
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (768, 12, 3072)
    layers = config.num_encoder_layers, config.num_decoder_layers, config.num_discriminator_layers
    assert layers == (12, 12, 12)
    assert (config.codebook_size, config.num_latent_tokens, config.codebook_dim) == (16, 4, 128)
    assert config.buffer_batches == 4 and config.freeze_vision and config.uses_ac3
    vision = config.vision_config
    assert isinstance(vision, Dinov2Config) and (vision.hidden_size, vision.num_hidden_layers) == (768, 12)
    assert (vision.patch_size, vision.image_size) == (14, 224)


def test_weights_start_by_the_width():
    config = LatentActionTokenizerConfig(hidden_size=64, num_attention_heads=2, vision_config=None)
    assert config.initializer_range == 0.125
    assert LatentActionTokenizerConfig(initializer_range=0.02).initializer_range == 0.02


@pytest.mark.parametrize("vision", ["none", "default", "tiny", "siglip"])
def test_round_trip(vision, make_config, tiny_dinov2, tmp_path):
    siglip = SiglipVisionConfig(hidden_size=8, patch_size=4, image_size=16)
    given = {"none": {"vision_config": None}, "default": {}, "tiny": {"vision_config": tiny_dinov2}}
    fields = {"codebook_size": 5, "buffer_sampling": "uniform", "cycle_weight": 0.5}
    config = LatentActionTokenizerConfig(**fields, **given.get(vision, {"vision_config": siglip}))
    config.save_pretrained(tmp_path)
    for reloaded in (LatentActionTokenizerConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert {**reloaded.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
        assert type(reloaded.vision_config) is type(config.vision_config)
        assert (reloaded.codebook_size, reloaded.buffer_sampling, reloaded.cycle_weight) == (5, "uniform", 0.5)
    if vision == "tiny":
        assert reloaded.vision_config.hidden_size == 8 and reloaded.vision_config.patch_size == 8
    if vision == "siglip":
        assert isinstance(reloaded.vision_config, SiglipVisionConfig)


def test_vision_model_takes_the_sizes_that_it_does_not_name():
    with pytest.raises(ValueError, match="`vision_config` must be of a model with patch tokens, .* got BertConfig"):
        LatentActionTokenizerConfig(image_size=64, patch_size=8, vision_config="bert")
    config = LatentActionTokenizerConfig(image_size=64, patch_size=8, vision_config={"hidden_size": 96})
    assert isinstance(config.vision_config, Dinov2Config)
    assert (config.vision_config.image_size, config.vision_config.patch_size) == (64, 8)
    config = LatentActionTokenizerConfig(image_size=64, patch_size=8, vision_config="siglip_vision_model")
    assert isinstance(config.vision_config, SiglipVisionConfig) and config.vision_config.patch_size == 8


def test_a_living_models_config_stays_its_own():
    given = SiglipVisionConfig(hidden_size=8, patch_size=4, image_size=16, attn_implementation="eager")
    config = LatentActionTokenizerConfig(vision_config=given)
    config.vision_config.hidden_size = 16
    assert given.hidden_size == 8
    assert given._attn_implementation == config.vision_config._attn_implementation == "eager"


@pytest.mark.parametrize("fields", [{"cycle_weight": -1.0}, {"generated_share": 0.0}, {"hidden_size": 15}])
def test_what_is_changed_in_loading_is_checked_too(fields, make_config, tmp_path):
    make_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be"):
        LatentActionTokenizerConfig.from_pretrained(tmp_path, **fields)
    changed, unused = LatentActionTokenizerConfig.from_pretrained(
        tmp_path, cycle_weight=0.5, other=1, return_unused_kwargs=True
    )
    assert changed.cycle_weight == 0.5 and unused == {"other": 1}


def test_times_between_frames_go_together(make_config, tmp_path):
    make_config(interval_s=1, min_interval_s=0.5).save_pretrained(tmp_path)
    reloaded = LatentActionTokenizerConfig.from_pretrained(tmp_path)
    assert (reloaded.interval_s, reloaded.min_interval_s) == (1, 0.5)
    for times in ({"interval_s": 1.0}, {"min_interval_s": 1.0}, {"interval_s": 1.0, "min_interval_s": 2.0}):
        with pytest.raises(ValueError, match="`min_interval_s` and `interval_s` must both be left out, or"):
            make_config(**times)


def test_genie_objective_is_a_setting(make_config):
    assert not make_config(cycle_weight=0, adversarial_weight=0).uses_ac3
    assert make_config(cycle_weight=0.1, adversarial_weight=0).uses_ac3
    assert make_config(cycle_weight=0, adversarial_weight=0.1).uses_ac3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_act": "nope"}, r"`hidden_act` must be one of \['gelu', .*\], got 'nope'"),
        ({"codebok_size": 16}, r"Unknown argument\(s\) \['codebok_size'\].*allowed.*'codebook_size'"),
        ({"codebook_size": 0}, "`codebook_size` must be at least 2, got 0"),
        ({"codebook_size": 1}, "`codebook_size` must be at least 2, got 1"),
        ({"codebook_dim": 1}, "`codebook_dim` must be at least 2 with `normalize_codebook`"),
        ({"num_latent_tokens": 0}, "`num_latent_tokens` must be at least 1, got 0"),
        ({"buffer_batches": 0}, "`buffer_batches` must be at least 1, got 0"),
        ({"num_attention_heads": 0}, "`num_attention_heads` must be at least 1, got 0"),
        ({"num_encoder_layers": -1}, "`num_encoder_layers` must be at least 1, got -1"),
        ({"image_size": 18}, r"`image_size` must be a multiple of `patch_size` \(4\), got 18"),
        (
            {"image_size": 20, "vision_config": {"model_type": "dinov2", "patch_size": 8}},
            r"`image_size` must be a multiple of the vision model's `patch_size` \(8\), .*, got 20",
        ),
        ({"hidden_size": 15}, r"`hidden_size` must be a multiple of `num_attention_heads` \(2\), got 15"),
        ({"motion_weight": -1}, "`motion_weight` must be at least 0, got -1"),
        ({"cycle_weight": float("nan")}, "`cycle_weight` must be at least 0, got nan"),
        ({"cycle_ramp_steps": -5}, "`cycle_ramp_steps` must be at least 0, got -5"),
        ({"generated_share": 0}, r"`generated_share` must be in \(0, 1\], got 0"),
        ({"cycle_temperature": float("nan")}, "`cycle_temperature` must be above 0, got nan"),
        ({"layer_norm_eps": -1.0}, "`layer_norm_eps` must be at least 0, got -1.0"),
        ({"initializer_range": -1.0}, "`initializer_range` must be at least 0, got -1.0"),
        ({"cycle_temperature": 0}, "`cycle_temperature` must be above 0, got 0"),
        ({"vision_config": "dinov9"}, "`vision_config` must have a `model_type` .* got 'dinov9'"),
        ({"vision_config": {"model_type": "resnet"}}, "`vision_config` must be of a model with patch tokens.*ResNet"),
    ],
)
def test_bad_arguments(arguments, message, make_config):
    with pytest.raises(ValueError, match=message):
        make_config(**arguments)


@pytest.mark.parametrize("arguments", [{"codebook_size": "16"}, {"buffer_sampling": "rare"}])
def test_types_are_checked(arguments, make_config):
    with pytest.raises(StrictDataclassError, match=next(iter(arguments))):
        make_config(**arguments)


def test_what_was_added_to_a_config_loads_with_it(make_config, tmp_path):
    config = make_config()
    config.note = "mine"
    config.save_pretrained(tmp_path)
    assert LatentActionTokenizerConfig.from_pretrained(tmp_path).note == "mine"


def test_vision_model_of_as_many_channels():
    assert LatentActionTokenizerConfig(num_channels=4).vision_config.num_channels == 4
