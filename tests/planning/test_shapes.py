# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from transformers import Gemma3Config, InternVLConfig, LlamaConfig, LlavaConfig, Qwen2_5_VLConfig, Qwen2VLConfig

from cyclemimic import (
    CycleMimicConfig,
    CycleMimicForActionPrediction,
    CycleMimicProcessor,
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
)
from cyclemimic.models.cyclemimic import make_tiny_backbone_config
from cyclemimic.planning.shapes import _policy_stacks, _tokenizer_stacks, shape_of
from cyclemimic.trainers.adapters import add_adapter

TINY = {"hidden_size": 32, "num_attention_heads": 2, "num_encoder_layers": 2, "num_decoder_layers": 1}


@pytest.fixture
def tokenizer(tmp_path):
    config = LatentActionTokenizerConfig(
        image_size=32, patch_size=8, vision_config=None, num_discriminator_layers=1, **TINY
    )
    model = LatentActionTokenizerForPreTraining(config)
    model.save_pretrained(tmp_path / "tokenizer")
    return model, str(tmp_path / "tokenizer")


@pytest.fixture
def policy(tmp_path):
    processor = CycleMimicProcessor.from_texts(["reach"], image_size=32, patch_size=8)
    backbone = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=32)
    model = CycleMimicForActionPrediction(processor.make_config(backbone, action_decoder_hidden_size=32))
    model.save_pretrained(tmp_path / "policy")
    return model, str(tmp_path / "policy")


def test_parameters_are_those_of_the_model_itself(tokenizer, policy):
    for model, path in (tokenizer, policy):
        shape = shape_of(path)
        assert (shape.counts.trainable, shape.counts.frozen) == (sum(w.numel() for w in model.parameters()), 0)
    encoder_layer = tokenizer[0].tokenizer.encoder.layers[0]
    text_layer = policy[0].backbone.model.language_model.layers[0]
    for (_, path), layer in ((tokenizer, encoder_layer), (policy, text_layer)):
        assert shape_of(path).counts.largest_layer == sum(weight.numel() for weight in layer.parameters())


def test_adapters_train_a_part(policy):
    model, path = policy
    counts = shape_of(path, lora_rank=4).counts
    adapted = add_adapter(model, 4)
    assert counts.trainable == sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert counts.trainable + counts.frozen == sum(weight.numel() for weight in adapted.parameters())


def test_activations_grow_with_the_batch_and_shrink_by_checkpoints(tokenizer, policy):
    for _, path in (tokenizer, policy):
        shape = shape_of(path)
        assert shape.activation_bytes(8, False) == 2 * shape.activation_bytes(4, False)
        assert shape.activation_bytes(8, True) < shape.activation_bytes(8, False)


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({"generated_share": 1.0}, [60, 40, 60]),
        ({"generated_share": 0.25}, [45, 25, 15]),
        ({"generated_share": 1.0, "cycle_weight": 0}, [40, 40, 60]),
        ({"generated_share": 1.0, "adversarial_weight": 0}, [60, 40]),
        ({"generated_share": 1.0, "adversarial_weight": 0, "cycle_trains_decoder": False}, [60, 20]),
        ({"generated_share": 1.0, "cycle_trains_decoder": False}, [60, 40, 60]),
        ({"generated_share": 1.0, "cycle_weight": 0, "adversarial_weight": 0}, [40, 20]),
    ],
)
def test_stacks_of_a_tokenizer_by_the_frames_that_ac3_plays_on(settings, tokens):
    sizes = {"image_size": 32, "patch_size": 8, "vision_config": None, "num_discriminator_layers": 1}
    config = LatentActionTokenizerConfig(**settings, **sizes, **TINY)
    # Sixteen patches and four latent tokens a frame; E, D, Ψ, and E's attention over time.
    assert [stack.num_tokens for stack in _tokenizer_stacks(config)] == [*tokens, tokens[0]]


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({"freeze_vision": True}, 16),
        ({"freeze_vision": True, "generated_share": 0.25}, 4),
        ({"freeze_vision": True, "cycle_weight": 0}, None),
        ({"freeze_vision": True, "cycle_trains_decoder": False}, None),
        ({"freeze_vision": False}, 48),
        ({"freeze_vision": False, "cycle_weight": 0, "adversarial_weight": 0}, 32),
    ],
)
def test_a_tokenizers_vision_model_keeps_what_gradients_pass_through(settings, tokens):
    vision = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    config = LatentActionTokenizerConfig(image_size=32, patch_size=8, vision_config=vision, **settings, **TINY)
    stacks = [stack for stack in _tokenizer_stacks(config) if stack.hidden_size == 24]
    assert [(stack.num_layers, stack.num_tokens) for stack in stacks] == ([(3, tokens)] if tokens else [])


def test_stacks_of_a_policy(policy):
    (text,) = shape_of(policy[1]).stacks  # the demo's vision model has no layers
    assert text.num_tokens == 16 + 32 and text.gated
    dinov2, siglip, text = shape_of("policy-0.5b").stacks
    assert (dinov2.num_layers, siglip.num_layers, text.num_layers) == (24, 27, 24)
    assert (dinov2.num_tokens, siglip.num_tokens, text.num_tokens) == (256, 256, 256 + 32)
    assert not siglip.gated and text.gated and text.kv_ratio == 2 / 14


@pytest.mark.parametrize(
    ("backbone", "num_image_tokens", "num_patches", "width"),
    [
        # Gemma 3 pools 64 x 64 patches into 16 x 16 tokens, Qwen-VL merges 2 x 2.
        (Gemma3Config(vision_config={"image_size": 896, "patch_size": 14, "hidden_size": 1152}), 256, 4096, 1152),
        (Qwen2VLConfig(), 64, 256, 1280),
        (Qwen2_5_VLConfig(vision_config={"hidden_size": 1280}), 64, 256, 1280),
        (LlavaConfig(), 576, 576, 1024),
        # As height and width; 32 x 32 patches become 256 tokens.
        (InternVLConfig(), 256, 1024, 1024),
    ],
)
def test_towers_see_patches_before_they_are_merged(backbone, num_image_tokens, num_patches, width):
    ids = {"latent_token_ids": list(range(16)), "act_token_ids": [16], "image_token_id": 20}
    config = CycleMimicConfig(backbone_config=backbone, num_image_tokens=num_image_tokens, **ids)
    vision, text = _policy_stacks(config)
    assert (vision.num_tokens, vision.hidden_size) == (num_patches, width)
    assert text.num_tokens == num_image_tokens + 32
    config.camera_names = ["front", "wrist"]
    vision, text = _policy_stacks(config)
    assert (vision.num_tokens, text.num_tokens) == (2 * num_patches, 2 * num_image_tokens + 32)


def test_sizes_of_the_presets():
    assert 85e6 < shape_of("tokenizer").counts.frozen < 87e6
    assert 7.4e9 < shape_of("policy-7b").counts.trainable < 7.6e9


def test_bad_models(tmp_path):
    LlamaConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"`model` must be one of \['tokenizer', .*\] or a .* checkpoint, got .*, of a llama"
    ):
        shape_of(str(tmp_path))
    with pytest.raises(
        ValueError, match=r"`model` must be one of \['tokenizer', .*\], or a checkpoint, got 'policy-3b'"
    ):
        shape_of("policy-3b")
    with pytest.raises(ValueError, match="`lora_rank` must be left out for a tokenizer"):
        shape_of("tokenizer", lora_rank=4)
