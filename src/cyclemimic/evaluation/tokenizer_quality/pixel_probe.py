# SPDX-License-Identifier: Apache-2.0
"""Reads the motion between two frames from their pixels. It is fitted on real frames only, and knows no codes: marks
that a decoder leaves for its encoder mean nothing to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from .pair_sample import PairSample

# Networks whose readings are averaged. Real frames they read alike, generated ones, which they have not seen, not: with one, R²
# of transfer varied more with its seed than with the episodes.
_NUM_NETWORKS = 3
# Larger frames are averaged down to this many pixels a side: a probe of larger ones takes longer than all the rest.
_SIZE = 32
_BATCH_SIZE = 64
# Frames at a time where nothing is trained.
_BLOCK = 256
# Passes over the training pairs, at most: more only learn few pairs by heart.
_MAX_EPOCHS = 100
_LEARNING_RATE = 2e-3
# Standard deviation of the noise on its input, of pixels in [0, 1]: what it reads shall be visible.
_NOISE_STD = 0.01
_MAX_SHIFT = 1
# Share of training pairs whose colours are mixed by a matrix about the identity: scenes have other colours elsewhere.
_MIXED_SHARE, _COLOUR_STD = 0.5, 0.3
# Differences are small beside the frame: scaled up, both weigh alike.
_GAIN = 4.0
# Share of training pairs shown backwards, with the motion reversed, and of a frame with itself, without motion. Where
# experts always do the same, the current frame gives the motion away; a probe that knew that would see motions in
# frames in which nothing has moved.
_REVERSED_SHARE, _STILL_SHARE = 0.45, 0.1


def _make_network(height: int, width: int, num_dims: int) -> nn.Module:
    """Current frame and difference `(n, 6, height, width)` → motion `(n, num_dims)`. One network for all bodies, which it
    can tell apart by the current frame: it learns more from all pairs than from one body's."""
    return nn.Sequential(
        nn.Conv2d(6, 16, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(32, 48, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(48 * -(-height // 8) * -(-width // 8), 64),
        nn.GELU(),
        nn.Linear(64, num_dims),
    )


class PixelProbe:
    """A fitted probe.

    Args:
        networks (`Sequence[nn.Module]`): Fitted.
        device (`torch.device`): Where they compute.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        self.networks, self.device = networks, device

    @torch.inference_mode()
    def predict(self, current: np.ndarray, future: np.ndarray) -> np.ndarray:
        """The motion between frames, mean over the networks.

        Args:
            current, future (`np.ndarray` of shape `(n, height, width, 3)`): uint8.

        Returns:
            `np.ndarray` of shape `(n, num_dims)`: float64, standardised as that of the sample that it was fitted on.
        """
        parts = []
        for start in range(0, len(current), _BLOCK):
            rows = slice(start, start + _BLOCK)
            inputs = _inputs(_shrunk(current[rows]), _shrunk(future[rows])).to(self.device)
            parts.append(torch.stack([network(inputs) for network in self.networks]).mean(dim=0).cpu().numpy())
        return np.concatenate(parts).astype(np.float64)


def fit_pixel_probe(sample: PairSample, num_steps: int, device: torch.device, seed: int = 0) -> PixelProbe:
    """
    Fits the probe's networks on the real frames of the training episodes.

    Args:
        sample ([`PairSample`]): `n` pairs.
        num_steps (`int`): Steps of AdamW for each, 64 pairs a step; fewer where that is a hundred passes over the pairs.
        device (`torch.device`): Where to compute.
        seed (`int`, *optional*, defaults to 0): Seed of initial weights, batches and noise.
    """
    num_steps = min(num_steps, -(-_MAX_EPOCHS * len(sample.training_rows()) // _BATCH_SIZE))
    frames, random = _shrunk(sample.frames), np.random.default_rng(seed)
    with (
        torch.random.fork_rng(devices=[]),
        tqdm(total=_NUM_NETWORKS * num_steps, desc="transfer probe", unit="step") as progress,
    ):
        torch.manual_seed(seed)
        networks = [_fitted_network(sample, frames, num_steps, device, random, progress) for _ in range(_NUM_NETWORKS)]
    return PixelProbe(networks, device)


def _fitted_network(
    sample: PairSample,
    frames: np.ndarray,
    num_steps: int,
    device: torch.device,
    random: np.random.Generator,
    progress: tqdm,
) -> nn.Module:
    """A network that has learnt the training pairs; `frames` are the sample's, shrunk."""
    rows, motion = sample.training_rows(), torch.from_numpy(sample.standardised).float()
    height, width = frames.shape[1:3]
    network = _make_network(height, width, motion.shape[1]).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=0.05, fused=True)
    # It rises for two steps at least: of none, it could not say how far each is.
    total_steps = max(num_steps, 4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=total_steps, pct_start=max(0.1, 2 / total_steps)
    )
    for _ in range(num_steps):
        batch = rows[random.integers(len(rows), size=_BATCH_SIZE)]
        current, future, direction = _directed(sample, batch, random)
        inputs = _augmented(_inputs(frames[current], frames[future]), random)
        decoded = network(inputs.to(device))
        loss = F.mse_loss(decoded, (motion[batch] * direction).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.update()
    return network.requires_grad_(False).eval()


def _directed(
    sample: PairSample, rows: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Some pairs as they are, some backwards, some of a frame with itself: positions of the frames, and the factor
    `(len(rows), 1)` of the motion, 1, -1 or 0."""
    shares = [1 - _REVERSED_SHARE - _STILL_SHARE, _REVERSED_SHARE, _STILL_SHARE]
    direction = random.choice([1, -1, 0], size=len(rows), p=shares)
    first = np.where(direction < 0, sample.future[rows], sample.current[rows])
    second = np.where(direction < 0, sample.current[rows], np.where(direction > 0, sample.future[rows], first))
    return first, second, torch.from_numpy(direction[:, None]).float()


def _shrunk(frames: np.ndarray) -> np.ndarray:
    """Frames of at most `_SIZE` pixels a side, averaged down; uint8 `(n, height, width, 3)`."""
    size = tuple(min(_SIZE, side) for side in frames.shape[1:3])
    if size == frames.shape[1:3]:
        return frames
    blocks = []
    for start in range(0, len(frames), _BLOCK):
        block = torch.from_numpy(frames[start : start + _BLOCK]).permute(0, 3, 1, 2).float()
        blocks.append(F.adaptive_avg_pool2d(block, size).round().byte().permute(0, 2, 3, 1).numpy())
    return np.concatenate(blocks)


def _inputs(current: np.ndarray, future: np.ndarray) -> torch.Tensor:
    """uint8 frames → current frame and difference to the future one, float32 `(n, 6, height, width)`."""
    frames = torch.from_numpy(np.concatenate([current, future])).permute(0, 3, 1, 2).float().div_(255)
    first, second = frames.chunk(2)
    return torch.cat([first - 0.5, _GAIN * (second - first)], dim=1)


def _augmented(inputs: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """What no motion depends on: other colours, a shift of the whole batch by a pixel at most, noise."""
    # Each pair's colours are mixed alike in the frame and in the difference.
    mixtures = torch.eye(3) + _COLOUR_STD * torch.randn(len(inputs), 1, 3, 3)
    mixed = (mixtures @ inputs.unflatten(1, (2, 3)).flatten(3)).reshape(inputs.shape)
    is_mixed = (torch.rand(len(inputs)) < _MIXED_SHARE).view(-1, 1, 1, 1)
    padded = F.pad(torch.where(is_mixed, mixed, inputs), (_MAX_SHIFT,) * 4, mode="replicate")
    top, left = random.integers(2 * _MAX_SHIFT + 1, size=2).tolist()
    scale = torch.tensor([1.0] * 3 + [_GAIN] * 3).view(1, 6, 1, 1)
    noise = _NOISE_STD * scale * torch.randn(inputs.shape)
    return padded[..., top : top + inputs.shape[2], left : left + inputs.shape[3]] + noise
