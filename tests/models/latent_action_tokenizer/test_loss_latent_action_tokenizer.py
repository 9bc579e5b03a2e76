# SPDX-License-Identifier: Apache-2.0
"""Every loss twice: a value worked by hand, and random input against plain float64 loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cyclemimic.models.latent_action_tokenizer.loss_latent_action_tokenizer import (
    codebook_loss,
    codebook_perplexity,
    commitment_loss,
    cycle_consistency_loss,
    cycle_logits,
    discriminator_loss,
    generator_loss,
    motion_weights,
    reconstruction_loss,
)

RANDOM = np.random.default_rng(0)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def weighted_loss(
    reconstruction: torch.Tensor, future: torch.Tensor, current: torch.Tensor, motion_weight: float, window: int = 1
) -> torch.Tensor:
    return reconstruction_loss(reconstruction, future, motion_weights(future, current, motion_weight, window))


def test_reconstruction_loss_by_hand():
    # One channel, two pixels: errors 1 and 2. Mean squared error (1 + 4) / 2.
    current = torch.tensor([[[[0.0, 0.0]]]])
    future = torch.tensor([[[[0.0, 4.0]]]])
    reconstruction = torch.tensor([[[[1.0, 2.0]]]])
    assert weighted_loss(reconstruction, future, current, 0).item() == 2.5
    # Absolute: (1 + 2) / 2.
    assert reconstruction_loss(reconstruction, future, distance="l1").item() == 1.5
    # Squared changes 0 and 16, mean 8: weights 1 + 0 and 1 + 2, mean 2: (1/2 · 1 + 3/2 · 4) / 2.
    assert weighted_loss(reconstruction, future, current, 1.0).item() == 3.25
    # Weights 1 and 1 + 0.5 · 2 = 2, mean 1.5: (1/1.5 · 1 + 2/1.5 · 4) / 2.
    assert weighted_loss(reconstruction, future, current, 0.5).item() == pytest.approx(3.0)


def test_motion_window_by_hand():
    # Squared changes 0, 0, 12; over three pixels, fewer at the border: 0, 4, 6. Mean 10/3: weights 1, 2.2, 2.8, mean 2.
    current = torch.tensor([[[[0.0, 0.0, 0.0]]]], dtype=torch.float64)
    future = torch.tensor([[[[0.0, 0.0, 12.0**0.5]]]], dtype=torch.float64)
    reconstruction = future + torch.tensor([1.0, 2.0, 3.0])
    expected = (0.5 * 1 + 1.1 * 4 + 1.4 * 9) / 3
    assert weighted_loss(reconstruction, future, current, 1.0, 3).item() == pytest.approx(expected, rel=1e-12)


def test_a_window_hardly_pulls_a_guess_beyond_the_mean():
    # The middle pixel moves or stays, one as likely as the other, amid others that move.
    current = torch.zeros(2, 1, 1, 9, dtype=torch.float64)
    future = torch.full((2, 1, 1, 9), 3.0, dtype=torch.float64)
    future[:, 0, 0, 4] = torch.tensor([1.0, 0.0])

    def pull(window):
        reconstruction = future.clone()
        reconstruction[..., 4] = 0.5
        reconstruction.requires_grad_()
        loss = weighted_loss(reconstruction, future, current, 3.0, window)
        return -torch.autograd.grad(loss, reconstruction)[0][..., 4].sum().item()

    assert pull(1) > 0.004 and 0 <= pull(17) < 0.2 * pull(1)


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("motion_weight", [0.0, 0.3, 1.0, 5.0])
def test_reconstruction_loss_against_a_reference(motion_weight, window):
    reconstruction, future, current = RANDOM.normal(size=(3, 2, 3, 4, 5))
    change = np.zeros((2, 4, 5))
    for sample, row, column in np.ndindex(change.shape):
        change[sample, row, column] = sum(
            (future[sample, c, row, column] - current[sample, c, row, column]) ** 2 / 3 for c in range(3)
        )
    near = window // 2
    pooled = np.zeros_like(change)
    for sample, row, column in np.ndindex(change.shape):
        rows, columns = slice(max(0, row - near), row + near + 1), slice(max(0, column - near), column + near + 1)
        pooled[sample, row, column] = change[sample, rows, columns].mean()
    weights = 1 + motion_weight * pooled / pooled.mean()
    total = 0.0
    for sample, channel, row, column in np.ndindex(future.shape):
        error = reconstruction[sample, channel, row, column] - future[sample, channel, row, column]
        total += weights[sample, row, column] * error**2
    expected = total / (weights.sum() * 3)
    loss = weighted_loss(*tensors(reconstruction, future, current), motion_weight, window)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_reconstruction_loss_where_nothing_moves():
    frame, reconstruction = torch.randn(2, 2, 3, 4, 4)
    expected = (reconstruction - frame).square().mean()
    assert weighted_loss(reconstruction, frame, frame, 1.0).item() == pytest.approx(expected.item())
    weights = motion_weights(frame.half(), frame.half(), 1.0)
    assert weights.dtype == torch.float16 and (weights == 1).all(), (
        "in fp16, whose least number is far above the floor, too"
    )


def test_codebook_and_commitment_loss_by_hand():
    # Squared differences 9 and 16, mean 12.5; the gradient is the difference, to one side each.
    embeddings = torch.tensor([[[3.0, 0.0]]], requires_grad=True)
    words = torch.tensor([[[0.0, 4.0]]], requires_grad=True)
    assert codebook_loss(embeddings, words).item() == commitment_loss(embeddings, words).item() == 12.5
    codebook_loss(embeddings, words).backward()
    assert embeddings.grad is None and words.grad.tolist() == [[[-3.0, 4.0]]]
    words.grad = None
    commitment_loss(embeddings, words).backward()
    assert words.grad is None and embeddings.grad.tolist() == [[[3.0, -4.0]]]


@pytest.mark.parametrize("loss", [codebook_loss, commitment_loss])
def test_codebook_and_commitment_loss_against_a_reference(loss):
    embeddings, words = RANDOM.normal(size=(2, 3, 4, 5))
    expected = sum(float(e - w) ** 2 for e, w in zip(embeddings.flat, words.flat)) / embeddings.size
    assert loss(*tensors(embeddings, words)).item() == pytest.approx(expected, rel=1e-12)


def test_cycle_consistency_loss_by_hand():
    # Distances of the one embedding to the three words: 5, 0 and 10.
    embeddings = torch.tensor([[[3.0, 4.0]]])
    codebook = torch.tensor([[0.0, 0.0], [3.0, 4.0], [9.0, 12.0]])
    assert cycle_logits(embeddings, codebook, 5.0).flatten().tolist() == pytest.approx([-1.0, 0.0, -2.0], abs=1e-5)
    # −log(e⁰ / (e⁰ + e⁻¹ + e⁻²)) = log 1.5032147 for word 1, and 1 more for word 0.
    for code, expected in ((1, 0.4076060), (0, 1.4076060)):
        loss = cycle_consistency_loss(embeddings, codebook, torch.tensor([[code]]), 5.0)
        assert loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
def test_cycle_consistency_loss_against_a_reference(temperature):
    embeddings, codebook = RANDOM.normal(size=(3, 2, 4)), RANDOM.normal(size=(6, 4))
    codes = RANDOM.integers(0, 6, (3, 2))
    losses = []
    for sample, token in np.ndindex(codes.shape):
        scores = [math.exp(-math.dist(embeddings[sample, token], word) / temperature) for word in codebook]
        losses.append(-math.log(scores[codes[sample, token]] / sum(scores)))
    loss = cycle_consistency_loss(*tensors(embeddings, codebook, codes), temperature)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_cycle_gradient_is_finite_at_zero_distance(dtype):
    codebook = torch.eye(3, dtype=dtype)
    embeddings = codebook[None, :2].clone().requires_grad_()
    cycle_consistency_loss(embeddings, codebook, torch.tensor([[0, 2]]), 1.0).backward()
    assert torch.isfinite(embeddings.grad).all() and embeddings.grad[0, 1].abs().sum() > 0


def test_adversarial_losses_by_hand():
    # Undecided, Ψ = 1/2 everywhere: log 2 an image and log 2 a patch; twice that for real and generated.
    local_logits, global_logits = torch.zeros(2, 3), torch.zeros(2)
    assert generator_loss(local_logits, global_logits).item() == pytest.approx(2 * math.log(2))
    undecided = discriminator_loss((local_logits, global_logits), (local_logits, global_logits))
    assert undecided.item() == pytest.approx(4 * math.log(2))
    # Ψ(real) = 0.8 and Ψ(generated) = 0.2 everywhere: −4 log 0.8 for Ψ, −2 log 0.2 for D. The logit of 0.8 is log 4.
    certain = torch.full((2, 3), math.log(4)), torch.full((2,), math.log(4))
    refused = -certain[0], -certain[1]
    assert discriminator_loss(certain, refused).item() == pytest.approx(0.8925742)
    assert generator_loss(*refused).item() == pytest.approx(3.2188758)


def test_adversarial_losses_against_a_reference():
    real_local, generated_local = RANDOM.normal(scale=3.0, size=(2, 4, 5))
    real_global, generated_global = RANDOM.normal(scale=3.0, size=(2, 4))
    expected = 0.0
    for real, generated in ((real_local, generated_local), (real_global, generated_global)):
        expected -= np.mean([math.log(sigmoid(logit)) for logit in real.flat])
        expected -= np.mean([math.log(1 - sigmoid(logit)) for logit in generated.flat])
    loss = discriminator_loss(tensors(real_local, real_global), tensors(generated_local, generated_global))
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    expected = -np.mean([math.log(sigmoid(logit)) for logit in generated_local.flat])
    expected -= np.mean([math.log(sigmoid(logit)) for logit in generated_global.flat])
    assert generator_loss(*tensors(generated_local, generated_global)).item() == pytest.approx(expected, rel=1e-10)


def test_adversarial_losses_are_finite_for_certain_discriminators():
    large = torch.full((1, 1), 500.0), torch.full((1,), 500.0)
    small = -large[0], -large[1]
    assert discriminator_loss(small, large).item() == 2000.0
    assert generator_loss(*small).item() == 1000.0


def test_codebook_perplexity_by_hand():
    assert codebook_perplexity(torch.full((5, 4), 3), 16).item() == 1.0
    assert codebook_perplexity(torch.arange(32).view(8, 4) % 16, 16).item() == pytest.approx(16.0, rel=1e-6)
    # Frequencies 1/2, 1/4, 1/4: entropy 1.5 log 2.
    assert codebook_perplexity(torch.tensor([0, 0, 1, 2]), 16).item() == pytest.approx(2**1.5, rel=1e-6)


def test_codebook_perplexity_against_a_reference():
    codes = RANDOM.integers(0, 7, (30, 4))
    shares = [(codes == word).mean() for word in range(7)]
    expected = math.prod(share**-share for share in shares if share > 0)
    assert codebook_perplexity(torch.from_numpy(codes), 9).item() == pytest.approx(expected, rel=1e-5)
