# SPDX-License-Identifier: Apache-2.0
"""Frames in, normalised tensors out, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

from .rgb_images_latent_action_tokenizer import RGBImage, as_rgb_array

# What other processors, or our configuration, call things that are otherwise here: transformers would keep it unread.
_NOT_OURS = {
    *("image_size", "crop_size", "resample", "rescale_factor"),
    *("do_resize", "do_rescale", "do_normalize", "do_center_crop"),
}
_AUTO_MAP = {"AutoImageProcessor": "image_processing_latent_action_tokenizer.LatentActionTokenizerImageProcessor"}


class LatentActionTokenizerImageProcessor(BaseImageProcessor):
    r"""
    Prepares pairs of frames for the latent action tokenizer.

    Args:
        size (`int`, *optional*, defaults to 224): Height and width of the output, in pixels. Frames of another shape are
            squeezed to it, so that nothing at the border is lost.
        image_mean, image_std (`float` or `list[float]`, *optional*, defaults to those of ImageNet, as DINOv2 wants them).
        kwargs: Further settings of a base class of transformers.

    Example:

    ```python
    >>> import numpy as np
    >>> from cyclemimic import LatentActionTokenizerImageProcessor

    >>> processor = LatentActionTokenizerImageProcessor(size=64)
    >>> frame = np.zeros((128, 128, 3), dtype=np.uint8)
    >>> processor(frame, frame, return_tensors="pt")["future_pixel_values"].shape
    torch.Size([1, 3, 64, 64])
    ```"""

    model_input_names = ["pixel_values", "future_pixel_values"]

    def __init__(
        self,
        size: int | Mapping[str, int] = 224,
        image_mean: float | Sequence[float] = (0.485, 0.456, 0.406),
        image_std: float | Sequence[float] = (0.229, 0.224, 0.225),
        **kwargs: Any,
    ) -> None:
        kwargs.pop("auto_map", None)
        if unknown := sorted(kwargs.keys() & _NOT_OURS):
            raise ValueError(f"Unknown argument(s) {unknown}; allowed: ['size', 'image_mean', 'image_std'].")
        super().__init__(**kwargs)
        if isinstance(size, Mapping) and size.keys() == {"height", "width"} and size["height"] == size["width"]:
            size = size["height"]  # as other processors say it
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"`size` must be a whole number of at least 1, for height and width, got {size!r}.")
        self.size = size
        self.image_mean = _checked_channels("image_mean", image_mean, -math.inf)
        self.image_std = _checked_channels("image_std", image_std, 0)

    @property
    def auto_map(self) -> dict[str, str]:
        """The code beside the settings, for the Auto class where the package is not installed."""
        # A copy: transformers takes the class for a tokenizer's, by its name, and writes a pair of classes into it.
        return dict(_AUTO_MAP)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "auto_map": self.auto_map}

    def __call__(  # type: ignore[override]  # two frames, where others take one
        self,
        current: RGBImage | Sequence[RGBImage],
        future: RGBImage | Sequence[RGBImage] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """
        Args:
            current (a frame or a sequence of frames): `o_t`; PIL images, or arrays or tensors, uint8 or floats from 0 to
                1, `(height, width, 3)` or `(3, height, width)`. A column of a `datasets.Dataset` is a sequence, too.
            future (the same, *optional*): `o_{t+H}`, as many as `current`.
            return_tensors (`str`): only `"pt"`.

        Returns:
            `BatchFeature` with `pixel_values` and, if given, `future_pixel_values`: float32 tensors of shape
            `(batch_size, 3, size, size)`.

        Raises:
            ValueError: no frame, a frame of another kind, unequal numbers of frames, another `return_tensors`.
        """
        if return_tensors != "pt":
            raise ValueError(f'`return_tensors` must be "pt", got {return_tensors!r}.')
        features = {"pixel_values": self.normalize_frames(self.resize_frames(current, "current"))}
        if future is not None:
            features["future_pixel_values"] = self.normalize_frames(self.resize_frames(future, "future"))
            counts = [len(tensor) for tensor in features.values()]
            if counts[0] != counts[1]:
                raise ValueError(f"`future` must hold as many frames as `current` ({counts[0]}), got {counts[1]}.")
        return BatchFeature(features)

    def preprocess(
        self,
        current: RGBImage | Sequence[RGBImage],
        future: RGBImage | Sequence[RGBImage] | None = None,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """The same as calling the processor: `current`, `future` and `return_tensors` go there."""
        return self(current, future, return_tensors)

    def resize_frames(self, frames: RGBImage | Sequence[RGBImage], name: str = "frames") -> np.ndarray:
        """Checked frames at the processor's size: uint8 `(batch_size, size, size, 3)`.

        Data sets apply it once when they decode; frames that already have the size pass unchanged.

        Args:
            frames (a frame or a sequence of frames): As in calling the processor.
            name (`str`, *optional*): What errors call them.

        Raises:
            ValueError: no frame, or one of another kind.
        """
        is_sequence = isinstance(frames, Sequence) and not isinstance(frames, str | bytes)
        is_several = is_sequence or getattr(frames, "ndim", None) == 4
        several: Any = frames if is_several else [frames]
        arrays = [as_rgb_array(frame, name) for frame in several]
        if not arrays:
            raise ValueError(f"`{name}` must hold at least one frame, got none.")
        if len({array.shape for array in arrays}) == 1:
            return self._resized(np.stack(arrays))
        return np.concatenate([self._resized(array[None]) for array in arrays])

    def normalize_frames(self, frames: np.ndarray) -> torch.Tensor:
        """`frames`, uint8 `(batch_size, height, width, 3)` → float32 `(batch_size, 3, height, width)`, mean 0, deviation 1."""
        channels_first = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
        # Channels apart first, then one multiplication and one subtraction in place: ten times as fast as the formula.
        pixel_values = torch.empty(channels_first.shape).copy_(channels_first)
        mean, std = self._moments(pixel_values)
        return pixel_values.mul_(1 / (255 * std)).sub_(mean / std)

    def post_process(self, pixel_values: torch.Tensor) -> np.ndarray:
        """A model's `pixel_values` `(batch_size, 3, height, width)` → images, uint8 `(batch_size, height, width, 3)`."""
        shape = tuple(getattr(pixel_values, "shape", ()))
        if not isinstance(pixel_values, torch.Tensor) or len(shape) != 4 or shape[1] != 3:
            got = f"{type(pixel_values).__name__} of shape {shape}"
            raise ValueError(f"`pixel_values` must be a tensor of shape (batch_size, 3, height, width), got {got}.")
        pixel_values = pixel_values.detach().float().cpu()
        mean, std = self._moments(pixel_values)
        images = (pixel_values * std + mean).mul(255).round().clamp(0, 255).to(torch.uint8)
        return images.permute(0, 2, 3, 1).numpy()

    def _moments(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return like.new_tensor(self.image_mean).view(3, 1, 1), like.new_tensor(self.image_std).view(3, 1, 1)

    def _resized(self, frames: np.ndarray) -> np.ndarray:
        if frames.shape[1:3] == (self.size, self.size):
            return frames
        # The same filter as Pillow's, to a rounding, in a fifth of its time.
        channels_last = torch.from_numpy(np.require(frames, requirements=["C", "W"])).permute(0, 3, 1, 2)
        resized = F.interpolate(channels_last, (self.size, self.size), mode="bicubic", antialias=True)
        return np.ascontiguousarray(resized.permute(0, 2, 3, 1).numpy())


def _checked_channels(name: str, values: float | Sequence[float], above: float) -> list[float]:
    given = values
    values = list(values) if isinstance(values, Sequence | np.ndarray) else [values] * 3
    values = [value.item() if isinstance(value, np.generic) else value for value in values]
    if len(values) != 3 or not all(isinstance(value, int | float) and above < value < math.inf for value in values):
        kind = "finite numbers" if above == -math.inf else f"numbers above {above:g}"
        raise ValueError(f"`{name}` must be three {kind}, one a channel, or one for all, got {given}.")
    return values


# With this, `save_pretrained` puts this module and its siblings beside the settings.
LatentActionTokenizerImageProcessor.register_for_auto_class("AutoImageProcessor")

__all__ = ["LatentActionTokenizerImageProcessor"]
