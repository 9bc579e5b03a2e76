# SPDX-License-Identifier: Apache-2.0
"""Pictures of what a tokenizer in training has learned so far."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cyclemimic.data.atomic import write_atomically
from cyclemimic.evaluation_mode import evaluating
from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import LatentActionTokenizerModel

GAP = 2  # pixels, white


@torch.inference_mode()
def draw_sample_grid(
    tokenizer: LatentActionTokenizerModel,
    image_processor: LatentActionTokenizerImageProcessor,
    pixel_values: torch.Tensor,
    future_pixel_values: torch.Tensor,
) -> np.ndarray:
    """
    A column a pair, and five rows: current frame, future frame, its reconstruction; the current frame of the next pair, and
    this pair's action there.

    Args:
        tokenizer ([`LatentActionTokenizerModel`]): In whichever mode; it is left in that mode.
        image_processor ([`LatentActionTokenizerImageProcessor`]): The tokenizer's.
        pixel_values, future_pixel_values (`torch.FloatTensor` of shape `(num_pairs, channels, height, width)`).

    Returns:
        `np.ndarray`: uint8 RGB.
    """
    with evaluating(tokenizer):
        frames, futures = (part.to(tokenizer.device) for part in (pixel_values, future_pixel_values))
        quantized = tokenizer.encode(frames, futures).quantized
        others = frames.roll(-1, 0)
        reconstructed, transferred = (
            tokenizer.decode(current, quantized=quantized).pixel_values for current in (frames, others)
        )
    rows = [image_processor.post_process(row) for row in (frames, futures, reconstructed, others, transferred)]
    size = rows[0].shape[1]
    grid = np.full((len(rows), len(frames), size + GAP, size + GAP, 3), 255, np.uint8)
    grid[:, :, :size, :size] = np.stack(rows)
    return grid.transpose(0, 2, 1, 3, 4).reshape(len(rows) * (size + GAP), len(frames) * (size + GAP), 3)


def read_pairs(path: Path, image_processor: LatentActionTokenizerImageProcessor) -> dict[str, torch.Tensor] | None:
    """The frames of the pairs that a picture of [`draw_sample_grid`] shows, normalised again; `None` of another picture."""
    try:
        with Image.open(path) as picture:
            grid = np.asarray(picture)
    except OSError:
        return None
    side = image_processor.size + GAP
    if grid.ndim != 3 or grid.shape[0] != 5 * side or grid.shape[1] % side or grid.shape[2] != 3:
        return None
    rows = grid.reshape(len(grid) // side, side, -1, side, 3)[:2, :-GAP, :, :-GAP].transpose(0, 2, 1, 3, 4)
    names = ("pixel_values", "future_pixel_values")
    return {name: image_processor.normalize_frames(row) for name, row in zip(names, rows, strict=True)}


def write_picture(picture: np.ndarray, path: Path) -> None:
    """As a PNG, in a folder that is made where it is missing; the file appears whole."""
    png = io.BytesIO()
    Image.fromarray(picture).save(png, format="png")
    write_atomically(path, png.getvalue())
