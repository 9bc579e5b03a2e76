# SPDX-License-Identifier: Apache-2.0
"""A tokenizer run over many frames: uint8 in, uint8 out, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import LatentActionTokenizerModel

from .pair_sample import PairSample


@dataclass(frozen=True, eq=False)
class EncodedPairs:
    """What the tokenizer makes of each pair of a sample of `n`.

    Args:
        codes (`np.ndarray` of shape `(n, num_latent_tokens)`): int64 words.
        quantized (`np.ndarray` of shape `(n, num_latent_tokens, codebook_dim)`): float32, the words' vectors.
        squared_error (`np.ndarray` of shape `(n,)`): Mean squared error of the reconstruction, pixels in [0, 1].
        copy_squared_error (`np.ndarray` of shape `(n,)`): The same of the current frame in the future frame's place.
    """

    codes: np.ndarray
    quantized: np.ndarray
    squared_error: np.ndarray
    copy_squared_error: np.ndarray


class TokenizerPasses:
    """Encoding and decoding of uint8 frames. What the decoder makes is rounded to 8 bits before anything reads it: a
    mark finer than a picture can hold is no motion.

    Args:
        tokenizer ([`LatentActionTokenizerModel`]): On the device to use.
        image_processor ([`LatentActionTokenizerImageProcessor`]): The tokenizer's.
        batch_size (`int`): Pairs a forward.
    """

    def __init__(
        self,
        tokenizer: LatentActionTokenizerModel,
        image_processor: LatentActionTokenizerImageProcessor,
        batch_size: int,
    ) -> None:
        self.tokenizer, self.image_processor, self.batch_size = tokenizer, image_processor, batch_size

    @torch.inference_mode()
    def encode_pairs(self, sample: PairSample) -> EncodedPairs:
        """Codes of every pair, and how well the future frame comes back from them."""
        codes, quantized, errors, copy_errors = [], [], [], []
        for rows in self._batches(len(sample), "encode"):
            current, future = sample.frames[sample.current[rows]], sample.frames[sample.future[rows]]
            pixel_values = self._pixel_values(current)
            action = self.tokenizer.encode(pixel_values, self._pixel_values(future))
            reconstruction = self.tokenizer.decode(pixel_values, codes=action.codes).pixel_values
            codes.append(action.codes.cpu().numpy())
            quantized.append(action.quantized.float().cpu().numpy())
            errors.append(_squared_error(self.image_processor.post_process(reconstruction), future))
            copy_errors.append(_squared_error(current, future))
        return EncodedPairs(*(np.concatenate(parts) for parts in (codes, quantized, errors, copy_errors)))

    @torch.inference_mode()
    def encode(self, current: np.ndarray, future: np.ndarray) -> np.ndarray:
        """Codes `(n, num_latent_tokens)` of two times `n` frames, uint8 `(n, height, width, 3)`."""
        codes = [
            self.tokenizer.encode(self._pixel_values(current[rows]), self._pixel_values(future[rows])).codes
            for rows in self._batches(len(current))
        ]
        return torch.cat(codes).cpu().numpy()

    @torch.inference_mode()
    def decode(self, current: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Frames that actions `(n, num_latent_tokens)` make of `n` frames; both uint8 `(n, height, width, 3)`."""
        generated = []
        for rows in self._batches(len(current)):
            words = torch.from_numpy(codes[rows]).to(self.tokenizer.device)
            frames = self.tokenizer.decode(self._pixel_values(current[rows]), codes=words).pixel_values
            generated.append(self.image_processor.post_process(frames))
        return np.concatenate(generated)

    @torch.inference_mode()
    def vision_features(self, frames: np.ndarray, grid_size: int, max_features: int, seed: int) -> np.ndarray:
        """Patch features of the tokenizer's vision model, averaged over a coarse grid.

        Args:
            frames (`np.ndarray` of shape `(n, height, width, 3)`): uint8.
            grid_size (`int`): Cells along each side.
            max_features (`int`): Where a frame has more, they are brought to as many by a random projection that keeps distances.
            seed (`int`): Seed of the projection.

        Returns:
            `np.ndarray` of shape `(n, min(grid_size * grid_size * vision_hidden_size, max_features))`: float32.
        """
        vision = self.tokenizer.vision_features
        # Batch by batch, as those of all frames would take gigabytes.
        project = _random_projection(grid_size**2 * vision.projection.in_features, max_features, seed)
        pooled = []
        for rows in self._batches(len(frames), "vision features"):
            pixel_values = self._pixel_values(frames[rows]).to(vision.vision_model.dtype)
            # From before the projection, which the tokenizer has learned. Class and register tokens stand first.
            patches = vision.vision_model(pixel_values=pixel_values).last_hidden_state[:, -vision.num_patches :]
            side = round(vision.num_patches**0.5)
            grid = patches.transpose(1, 2).unflatten(2, (side, side))
            cells = torch.nn.functional.adaptive_avg_pool2d(grid, grid_size).flatten(1).float().cpu().numpy()
            pooled.append(cells if project is None else cells @ project)
        return np.concatenate(pooled)

    def _pixel_values(self, frames: np.ndarray) -> torch.Tensor:
        return self.image_processor.normalize_frames(frames).to(self.tokenizer.device)

    def _batches(self, count: int, description: str | None = None) -> Iterator[slice]:
        starts = range(0, count, self.batch_size)
        for start in tqdm(starts, desc=description, unit="batch", disable=description is None):
            yield slice(start, start + self.batch_size)


def _random_projection(num_features: int, max_features: int, seed: int) -> np.ndarray | None:
    if num_features <= max_features:
        return None
    projection = np.random.default_rng(seed).standard_normal((num_features, max_features))
    return (projection / np.sqrt(num_features)).astype(np.float32)


def _squared_error(frames: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Mean squared error of each frame, pixels in [0, 1]: `(n, height, width, 3)` → `(n,)`."""
    differences = (np.subtract(*pair, dtype=np.float32).ravel() for pair in zip(frames, wanted, strict=True))
    return np.array([float(difference @ difference) / difference.size for difference in differences]) / 255**2
