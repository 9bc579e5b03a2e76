# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from cyclemimic import LatentActionTokenizerModel
from cyclemimic.models.latent_action_tokenizer.layers_latent_action_tokenizer import (
    LatentActionTokenizerAttention,
    LatentActionTokenizerEmbeddingNorm,
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


def reach_of_a_change(layer: LatentActionTokenizerSpatioTemporalLayer, frame: int) -> list[torch.Tensor]:
    """Which `(batch, position)` of either frame answer to a change of sample 0, position 2, in `frame`."""
    frames = list(torch.randn(2, 2, 5, 16))
    changed = [states.clone() for states in frames]
    # Not the same for every feature: the norm would take that away.
    changed[frame][0, 2, :8] += 1.0
    results = []
    for current, future in (frames, changed):
        current, *memory = layer(current)
        results.append((current, layer(future, *memory)[0]))
    return [(before - after).abs().amax(-1) > 1e-6 for before, after in zip(*results, strict=True)]


def test_attention_over_time_stays_at_its_position(make_config):
    layer = LatentActionTokenizerSpatioTemporalLayer(make_config())
    silence(layer.spatial_attention)
    for reached in reach_of_a_change(layer, frame=0):
        assert reached.nonzero().tolist() == [[0, 2]]


def test_attention_over_space_stays_in_its_frame(make_config):
    layer = LatentActionTokenizerSpatioTemporalLayer(make_config())
    silence(layer.temporal_attention)
    current, future = reach_of_a_change(layer, frame=0)
    assert current.nonzero().tolist() == [[0, position] for position in range(5)] and not future.any()


def test_the_future_sees_the_current_frame_and_not_the_other_way_round(make_config):
    layer = LatentActionTokenizerSpatioTemporalLayer(make_config())
    for reached in reach_of_a_change(layer, frame=0):
        assert reached[0].all() and not reached[1].any()
    current, future = reach_of_a_change(layer, frame=1)
    assert not current.any() and future[0].all() and not future[1].any()


def test_attention_over_time_against_a_reference(make_config):
    # Causal attention over both frames at once, each position a sequence of two.
    config = make_config()
    layer = LatentActionTokenizerSpatioTemporalLayer(config)
    silence(layer.spatial_attention)
    frames = torch.randn(2, 3, 5, config.hidden_size)
    reference = nn.MultiheadAttention(config.hidden_size, config.num_attention_heads, batch_first=True)
    attention = layer.temporal_attention
    reference.in_proj_weight.data, reference.in_proj_bias.data = attention.qkv_proj.weight, attention.qkv_proj.bias
    reference.out_proj.load_state_dict(attention.o_proj.state_dict())
    positions = frames.permute(1, 2, 0, 3).flatten(0, 1)
    normed = layer.temporal_norm(positions)
    hidden = torch.tensor([[False, True], [False, False]])
    positions = positions + reference(normed, normed, normed, attn_mask=hidden)[0]
    positions = positions + layer.mlp(layer.mlp_norm(positions))
    expected = positions.unflatten(0, (3, 5)).permute(2, 0, 1, 3)
    current, *memory = layer(frames[0])
    torch.testing.assert_close(current, expected[0])
    torch.testing.assert_close(layer(frames[1], *memory)[0], expected[1])


def test_positions_that_are_not_read_change_nothing(make_config):
    layer = LatentActionTokenizerSpatioTemporalLayer(make_config()).double()
    current, future = torch.randn(2, 3, 7, 16, dtype=torch.float64)
    _, *memory = layer(current)
    expected = layer(future, *memory)[0]
    read, *memory = layer(current, num_read=2)
    assert read.shape == (3, 2, 16) and memory[0].shape == (3, 2, 16)
    read = layer(future, *memory, num_read=2)[0]
    assert torch.allclose(read, expected[:, :2], atol=1e-12)


def test_embedding_norm_by_hand(make_config):
    norm = LatentActionTokenizerEmbeddingNorm(
        make_config(num_latent_tokens=2, codebook_dim=1, normalize_codebook=False)
    )
    # Token 0 is 1, 3, 5: mean 3, variance 8/3. Token 1 is 10 throughout, and stays finite.
    embeddings = torch.tensor([[1.0, 10.0], [3.0, 10.0], [5.0, 10.0]])[..., None]
    expected = torch.tensor([[-1.2247449, 0.0], [0.0, 0.0], [1.2247449, 0.0]])[..., None]
    torch.testing.assert_close(norm(embeddings, by_batch=True), expected, rtol=0, atol=1e-6)
    # A tenth of the way from mean 0 and variance 1.
    torch.testing.assert_close(norm.running_mean, torch.tensor([[0.3], [1.0]]))
    torch.testing.assert_close(norm.running_variance, torch.tensor([[0.9 + 0.8 / 3], [0.9]]))
    kept = norm.running_mean.clone()
    standardised = norm(embeddings, by_batch=False)
    torch.testing.assert_close(standardised[0, 0], torch.tensor([(1 - 0.3) / (0.9 + 0.8 / 3 + 1e-6) ** 0.5]))
    assert torch.equal(norm.running_mean, kept)


def test_embedding_norm_keeps_half_precision_outside(make_config):
    norm = LatentActionTokenizerEmbeddingNorm(make_config())
    embeddings = torch.randn(6, *norm.running_mean.shape).bfloat16()
    output = norm(embeddings, by_batch=True)
    assert output.dtype == torch.bfloat16 and norm.running_mean.dtype == torch.float32
    torch.testing.assert_close(norm.running_mean, 0.1 * embeddings.float().mean(0))


def test_statistics_of_embeddings_reach_those_of_a_model_in_half_precision(make_config, tmp_path):
    """In bf16 they would come to rest a few per cent before."""
    torch.manual_seed(0)
    model = LatentActionTokenizerModel(make_config()).to(torch.bfloat16)
    norm = model.encoder.embedding_norm
    embeddings = (20 + torch.randn(6, *norm.running_mean.shape)).bfloat16()
    for _ in range(200):
        norm(embeddings, by_batch=True)
    torch.testing.assert_close(norm.running_mean, embeddings.float().mean(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(norm(embeddings, by_batch=False), norm(embeddings, by_batch=True), rtol=0.01, atol=1e-3)
    model.save_pretrained(tmp_path)
    loaded = LatentActionTokenizerModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(loaded.encoder.embedding_norm.running_mean, norm.running_mean)


NORM_ON_A_RANK = """
import sys
import torch
import torch.distributed as dist
from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerModel
from cyclemimic.models.latent_action_tokenizer.layers_latent_action_tokenizer import LatentActionTokenizerEmbeddingNorm

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
assert dist.get_world_size() == 2
own = torch.load(f"{folder}/embeddings.pt", weights_only=True).chunk(2)[rank].clone().requires_grad_()
norm = LatentActionTokenizerEmbeddingNorm(LatentActionTokenizerConfig.from_pretrained(folder))
output = norm(own, by_batch=True)
output.pow(3).sum().backward()
torch.save({"output": output.detach(), "gradient": own.grad, **norm.state_dict()}, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def test_embedding_norm_is_global_over_ranks(make_config, tmp_path):
    config = make_config()
    config.save_pretrained(tmp_path)
    norm = LatentActionTokenizerEmbeddingNorm(config)
    embeddings = torch.randn(8, *norm.running_mean.shape).mul(3).requires_grad_()
    output = norm(embeddings, by_batch=True)
    output.pow(3).sum().backward()
    torch.save(embeddings.detach(), tmp_path / "embeddings.pt")
    program = [sys.executable, "-c", NORM_ON_A_RANK]
    processes = [subprocess.Popen([*program, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(torch.cat([rank["output"] for rank in ranks]), output.detach())
    torch.testing.assert_close(torch.cat([rank["gradient"] for rank in ranks]), embeddings.grad)
    for rank in ranks:
        torch.testing.assert_close(rank["running_mean"], norm.running_mean)
        torch.testing.assert_close(rank["running_variance"], norm.running_variance)
