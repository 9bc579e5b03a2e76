# SPDX-License-Identifier: Apache-2.0
"""Images as users have them → RGB arrays. Either model's folder holds this text: each is shipped without the other."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

RGBImage = Image.Image | np.ndarray | torch.Tensor
_ALLOWED = "hold RGB images, PIL or arrays of uint8 or of floats from 0 to 1, of shape (height, width, 3) or (3, height, width)"


def as_rgb_array(image: RGBImage, name: str) -> np.ndarray:
    """
    One image → uint8 `(height, width, 3)`.

    Args:
        image: A PIL image, or an array or tensor with its channels last or first: uint8, or floats from 0 to 1, which is
            how torchvision and LeRobot give them. Where both ends of its shape are 3, the last is the channels.
        name (`str`): What errors call it.

    Raises:
        ValueError: another kind or shape, values outside of 0 to 1, a PIL image of more than 8 bits a channel.
    """
    if isinstance(image, Image.Image):
        # Of one of more than 8 bits, Pillow makes white of all that is above 255.
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"`{name}` must {_ALLOWED}, got a PIL image of mode {image.mode!r}.")
        return np.asarray(image.convert("RGB"))
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(f"`{name}` must {_ALLOWED}, got {type(image).__name__}.")
    is_known = image.dtype == np.uint8 or image.dtype.kind == "f"
    if not is_known or image.ndim != 3 or 3 not in (image.shape[0], image.shape[2]) or 0 in image.shape:
        raise ValueError(f"`{name}` must {_ALLOWED}, got {image.dtype} of shape {image.shape}.")
    if image.dtype != np.uint8:
        low, high = image.min(), image.max()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"`{name}` must {_ALLOWED}, got {image.dtype} from {low:.6g} to {high:.6g}.")
        image = (image * 255).round().astype(np.uint8)
    return image if image.shape[2] == 3 else np.ascontiguousarray(image.transpose(1, 2, 0))


__all__ = ["RGBImage", "as_rgb_array"]
