# SPDX-License-Identifier: Apache-2.0
"""The losses of the latent action tokenizer: pure functions, one an equation of the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from .precision_latent_action_tokenizer import in_fp32


def motion_weights(
    future_pixel_values: torch.Tensor,
    pixel_values: torch.Tensor,
    motion_weight: float,
    motion_window: int = 1,
    mean: Callable[[torch.Tensor], torch.Tensor] = torch.mean,
) -> torch.Tensor | None:
    """
    How much the error of each pixel counts in [`reconstruction_loss`]: more where something moved.

    The weight of a pixel is `1 + motion_weight · c / mean(c)`, where `c` is the squared change from the current to the
    future frame, averaged over the channels and over a window around the pixel, as far as that is in the frame. The mean
    is over the batch, and weights are normalised to mean 1.

    A pixel's own change must not be its weight: where the decoder can't know the future, the best guess would then no
    longer be the mean but something that changes more than the truth, and every edge would be overdrawn. Within a window,
    pixels that changed and pixels that did not count the same.

    Args:
        future_pixel_values (`torch.Tensor` of shape `(batch_size, channels, height, width)`): `o_{t+H}`.
        pixel_values (`torch.Tensor` of the same shape): `o_t`.
        motion_weight (`float`): With 0 all count alike.
        motion_window (`int`): Height and width of the window in pixels, odd.
        mean (`Callable`): Of the weights and of the change, for batches of which this is a part.

    Returns:
        `torch.Tensor` of shape `(batch_size, 1, height, width)`; `None` where all count alike.
    """
    if motion_weight == 0:
        return None
    change = in_fp32(future_pixel_values - pixel_values).square().mean(dim=1, keepdim=True)
    # One side after the other: a mean over a square, for the work of its sides.
    for window in ((motion_window, 1), (1, motion_window)):
        padding = tuple(side // 2 for side in window)
        change = F.avg_pool2d(change, window, 1, padding, count_include_pad=False)
    # The floor keeps a batch of identical frames at the plain mean squared error.
    weights = 1 + motion_weight * change / mean(change).clamp_min(1e-8)
    return (weights / mean(weights)).to(pixel_values.dtype)


def reconstruction_loss(
    reconstruction: torch.Tensor,
    future_pixel_values: torch.Tensor,
    weights: torch.Tensor | None = None,
    distance: str = "l2",
) -> torch.Tensor:
    """
    Mean squared or absolute error of `ô_{t+H}` (paper §3; the distance is open there).

    Args:
        reconstruction (`torch.Tensor` of shape `(batch_size, channels, height, width)`): `ô_{t+H}`.
        future_pixel_values (`torch.Tensor` of the same shape): `o_{t+H}`.
        weights (`torch.Tensor` of shape `(batch_size, 1, height, width)`, *optional*): Of each pixel's error, by
            [`motion_weights`].
        distance (`"l2"` or `"l1"`, *optional*, defaults to `"l2"`): Squared errors, or absolute ones.

    Returns:
        `torch.Tensor`: scalar, in (squared) units of the normalised pixels.
    """
    difference = reconstruction - future_pixel_values
    errors = difference.square() if distance == "l2" else difference.abs()
    return (errors if weights is None else weights * errors).mean()


def codebook_loss(embeddings: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """`‖sg[z^e] − e‖²`, averaged: moves the codebook towards the embeddings (VQ-VAE objective, paper §3).

    Both arguments are of shape `(batch_size, num_latent_tokens, codebook_dim)`.
    """
    return F.mse_loss(quantized, embeddings.detach())


def commitment_loss(embeddings: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """`‖z^e − sg[e]‖²`, averaged: keeps the embeddings near the codebook (VQ-VAE objective, paper §3).

    Both arguments are of shape `(batch_size, num_latent_tokens, codebook_dim)`.
    """
    return F.mse_loss(embeddings, quantized.detach())


def cycle_logits(embeddings: torch.Tensor, codebook: torch.Tensor, temperature: float) -> torch.Tensor:
    """`−d(ẑ_s^e, e_k) / τ` for every word k, `d` the L2 distance (paper §3.1).

    Args:
        embeddings (`torch.Tensor` of shape `(..., codebook_dim)`): before quantisation.
        codebook (`torch.Tensor` of shape `(codebook_size, codebook_dim)`).
        temperature (`float`): τ.

    Returns:
        `torch.Tensor` of shape `(..., codebook_size)`.
    """
    difference = in_fp32(embeddings.unsqueeze(-2) - codebook)
    # The square root has no gradient at zero distance; the floor keeps it finite.
    return -difference.square().sum(-1).clamp_min(1e-12).sqrt() / temperature


def cycle_consistency_loss(
    embeddings: torch.Tensor, codebook: torch.Tensor, codes: torch.Tensor, temperature: float
) -> torch.Tensor:
    """`L_C = − Σ_k y_k · log softmax_k(−d(ẑ_s^e, e_k) / τ)`, averaged over tokens (paper §3.1, step 3).

    Args:
        embeddings (`torch.Tensor` of shape `(batch_size, num_latent_tokens, codebook_dim)`): `ẑ_s^e = E(o_c, ô_g)`.
        codebook (`torch.Tensor` of shape `(codebook_size, codebook_dim)`).
        codes (`torch.LongTensor` of shape `(batch_size, num_latent_tokens)`): the sampled action.
        temperature (`float`): τ.

    Returns:
        `torch.Tensor`: scalar, in nats.
    """
    logits = cycle_logits(embeddings, codebook, temperature)
    return F.cross_entropy(logits.flatten(0, -2), codes.flatten())


def generator_loss(*logits: torch.Tensor) -> torch.Tensor:
    """`−log Ψ(D(o, z))`, the mean over patches plus the mean over images (paper §3.3).

    Args:
        logits (`torch.Tensor`): One tensor a head of Ψ, for generated frames: local ones of shape
            `(batch_size, num_patches)`, global ones of shape `(batch_size,)`.

    Returns:
        `torch.Tensor`: scalar, in nats.
    """
    return torch.stack([F.softplus(-head).mean() for head in logits]).sum()


def discriminator_loss(real_logits: Sequence[torch.Tensor], generated_logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """`−log Ψ(o) − log(1 − Ψ(D(o, z)))`, over patches plus over images (paper §3.3).

    Args:
        real_logits, generated_logits (`Sequence[torch.Tensor]`): One tensor a head, as in [`generator_loss`].

    Returns:
        `torch.Tensor`: scalar, in nats.
    """
    heads = [F.softplus(-head).mean() for head in real_logits] + [F.softplus(head).mean() for head in generated_logits]
    return torch.stack(heads).sum()


def codebook_perplexity(codes: torch.Tensor, codebook_size: int) -> torch.Tensor:
    """`exp` of the entropy of the words' frequencies in a batch: 1 is collapse, `codebook_size` is even use.

    Args:
        codes (`torch.LongTensor` of any shape): word indices.
        codebook_size (`int`): K.

    Returns:
        `torch.Tensor`: scalar in `[1, codebook_size]`.
    """
    # Not `F.one_hot`: it asks the device whether all words are in range.
    words = torch.arange(codebook_size, device=codes.device)
    frequencies = (codes.flatten()[:, None] == words).float().mean(0)
    return torch.special.entr(frequencies).sum().exp()
