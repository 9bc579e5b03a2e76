# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from cyclemimic.models.latent_action_tokenizer.layers_latent_action_tokenizer import (
    LatentActionTokenizerAttention,
    LatentActionTokenizerPatchEmbeddings,
    LatentActionTokenizerSpatialLayer,
    LatentActionTokenizerSpatioTemporalLayer,
    patchify,
    unpatchify,
)


def test_patches_by_hand():
    # Two channels of 4 × 4, the second 100 more: the upper right patch holds columns 2 and 3 of rows 0 and 1.
    frame = torch.arange(16.0).view(1, 1, 4, 4)
    patches = patchify(torch.cat((frame, frame + 100), dim=1), 2)
    assert patches.shape == (1, 4, 8)
    assert patches[0, 1].tolist() == [2, 3, 6, 7, 102, 103, 106, 107]
    assert patches[0, 2].tolist() == [8, 9, 12, 13, 108, 109, 112, 113]


@pytest.mark.parametrize(("channels", "size", "patch_size"), [(3, 16, 4), (1, 12, 3), (2, 8, 8), (3, 6, 1)])
def test_unpatchify_inverts_patchify(channels, size, patch_size):
    frames = torch.randn(2, channels, size, size)
    assert torch.equal(unpatchify(patchify(frames, patch_size), patch_size, size), frames)


def test_patch_embeddings_equal_a_strided_convolution(make_config):
    embeddings = LatentActionTokenizerPatchEmbeddings(make_config())
    nn.init.normal_(embeddings.position_embeddings)
    frames = torch.randn(2, 3, 16, 16)
    weight = embeddings.projection.weight.view(16, 3, 4, 4)
    convolved = nn.functional.conv2d(frames, weight, embeddings.projection.bias, stride=4)
    expected = convolved.flatten(2).transpose(1, 2) + embeddings.position_embeddings
    torch.testing.assert_close(embeddings(frames), expected)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_equals_torch(make_config, implementation):
    config = make_config()
    config._attn_implementation = implementation
    attention = LatentActionTokenizerAttention(config)
    reference = nn.MultiheadAttention(config.hidden_size, config.num_attention_heads, batch_first=True)
    reference.in_proj_weight.data, reference.in_proj_bias.data = attention.qkv_proj.weight, attention.qkv_proj.bias
    reference.out_proj.load_state_dict(attention.o_proj.state_dict())
    hidden_states = torch.randn(3, 5, config.hidden_size)
    expected, _ = reference(hidden_states, hidden_states, hidden_states)
    torch.testing.assert_close(attention(hidden_states), expected)


def test_spatial_layer_keeps_samples_apart(make_config):
    torch.manual_seed(0)
    layer = LatentActionTokenizerSpatialLayer(make_config())
    hidden_states = torch.randn(2, 5, 16)
    changed = hidden_states.clone()
    changed[0, 3] = torch.randn(16)  # a constant shift would vanish in the norm
    difference = (layer(changed) - layer(hidden_states)).abs().amax(-1)
    assert (difference[0] > 0).all() and (difference[1] == 0).all()


def silence(attention: LatentActionTokenizerAttention) -> None:
    nn.init.zeros_(attention.o_proj.weight)
    nn.init.zeros_(attention.o_proj.bias)


def reach_of_a_change(layer: LatentActionTokenizerSpatioTemporalLayer) -> torch.Tensor:
    """Which of `(batch, frame, position)` answer to a change of sample 0, frame 0, position 2."""
    hidden_states = torch.randn(2, 3, 5, 16)
    changed = hidden_states.clone()
    # Not the same for every feature: the norm would take that away.
    changed[0, 0, 2, :8] += 1.0
    return (layer(changed) - layer(hidden_states)).abs().amax(-1) > 1e-6


def test_attention_over_time_stays_at_its_position(make_config):
    layer = LatentActionTokenizerSpatioTemporalLayer(make_config())
    silence(layer.spatial_attention)
    reached = reach_of_a_change(layer)
    assert reached.nonzero().tolist() == [[0, 0, 2], [0, 1, 2], [0, 2, 2]]


def test_attention_over_space_stays_in_its_frame(make_config):
    layer = LatentActionTokenizerSpatioTemporalLayer(make_config())
    silence(layer.temporal_attention)
    reached = reach_of_a_change(layer)
    assert reached.nonzero().tolist() == [[0, 0, position] for position in range(5)]


def test_both_together_reach_every_frame_and_position(make_config):
    reached = reach_of_a_change(LatentActionTokenizerSpatioTemporalLayer(make_config()))
    assert reached[0].all() and not reached[1].any()
