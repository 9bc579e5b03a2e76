# SPDX-License-Identifier: Apache-2.0
"""Images as a backbone's image processor makes them, batch first, and without it where that is all one affine map."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

from .rgb_images_cyclemimic import as_rgb_array

# What image processors make that a backbone reads; they make more, such as counts of tiles, that it does not.
IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "image_grid_thw", "image_position_ids", "image_sizes")


class ImageBatches:
    """
    Batches of images for a backbone.

    Args:
        image_processor ([`BaseImageProcessor`]): The backbone's.
        square_size (`int`, *optional*): Images are resized to squares of so many pixels first.
    """

    def __init__(self, image_processor: Any, square_size: int | None = None) -> None:
        self.image_processor, self.square_size = image_processor, square_size
        self._settings = str(image_processor.to_dict())  # in which arrays compare, too
        self._affine_maps: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor] | None] = {}

    def is_of(self, image_processor: Any, square_size: int | None) -> bool:
        """Whether it was made of these, and the image processor is as it was then."""
        is_same = self.image_processor is image_processor and self.square_size == square_size
        return is_same and self._settings == str(image_processor.to_dict())

    @staticmethod
    def check(images: Any) -> list[np.ndarray]:
        """
        One image or several as a list of uint8 arrays of shape `(height, width, 3)`.

        Args:
            images: PIL images, or arrays or tensors, uint8 or floats from 0 to 1, with their channels last or first.

        Raises:
            ValueError: one of another kind, or none.
        """
        if is_image(images) or images is None:
            images = [images]
        images = [as_rgb_array(image, "images") for image in images]
        if not images:
            raise ValueError("`images` must hold at least one image, got none.")
        return images

    def resize(self, images: Any) -> np.ndarray:
        """
        Images as the image processor resizes and crops them, before it normalises.

        Args:
            images: As for [`~ImageBatches.check`], of one size.

        Returns:
            `np.ndarray`: uint8 `(B, new_height, new_width, 3)`; the images as they are where the image processor would
            change resized ones again, because it resizes to more than it crops.
        """
        images = self._squared(self.check(images))
        # The first tells whether the others are worth it.
        first = self._resized_once(images[:1])
        if first is None:
            return np.stack([np.asarray(image) for image in images])
        others = self._resized_once(images[1:]) if len(images) > 1 else None
        return first if others is None else np.concatenate((first, others))

    def encode(self, images: list[np.ndarray], **kwargs: Any) -> dict[str, torch.Tensor]:
        """
        What a backbone reads of B images.

        Args:
            images (`list`): As [`~ImageBatches.check`] gives them.
            kwargs: Further arguments of the image processor.

        Returns:
            `dict`: those of `IMAGE_INPUTS` that the image processor makes, B first.

        Raises:
            ValueError: it makes tensors of several shapes of them.
        """
        images = self._squared(images)
        if len({image.shape for image in images}) == 1 and not kwargs:
            affine_map = self._affine_map(images[0].shape)
            if affine_map is not None:
                scale, offset = affine_map
                pixel_values = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
                return {"pixel_values": pixel_values.float().mul_(scale).add_(offset)}
        return self._run(images, **kwargs)

    def _resized_once(self, images: Any) -> np.ndarray | None:
        """Images resized and cropped, uint8 `(B, height, width, 3)`; `None` where that would change them once more."""
        resized = self._run(images, do_rescale=False, do_normalize=False)["pixel_values"]
        if resized.ndim != 4:
            return None
        frames = np.ascontiguousarray(resized.to(torch.uint8).permute(0, 2, 3, 1).numpy())
        return None if self._affine_map(frames.shape[1:]) is None else frames

    def _squared(self, images: list[np.ndarray]) -> list[np.ndarray]:
        if self.square_size is None:
            return images
        size = (self.square_size, self.square_size)
        return [
            image
            if image.shape[:2] == size
            else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
            for image in images
        ]

    def _run(self, images: list[np.ndarray], **kwargs: Any) -> dict[str, torch.Tensor]:
        """What the image processor makes, batch first: some take a list of images for those of one prompt."""
        if any(image.shape[0] in (1, 3) for image in images):
            # Else so low an image would be taken for one with its channels first.
            kwargs = {"input_data_format": "channels_last", **kwargs}
        made = self.image_processor(images, return_tensors="pt", **kwargs)
        data = {name: made[name] for name in IMAGE_INPUTS if name in made}
        batch_size = len(images)
        if "image_grid_thw" in data:
            grids = data["image_grid_thw"].unique(dim=0).tolist()
            if len(grids) > 1:
                raise ValueError(
                    f"`square_size` must be given for images of unequal shapes, got grids {grids} of them."
                )
            data["pixel_values"] = data["pixel_values"].unflatten(0, (batch_size, -1))
        for name, values in data.items():
            data[name] = values.transpose(0, 1) if values.shape[:2] == (1, batch_size) else values
            if values.ndim < 2 or len(data[name]) != batch_size:
                raise ValueError(
                    f"`image_processor` must give one tensor of one shape an image as {name!r}, got "
                    f"{tuple(values.shape)} for {batch_size}."
                )
        return data

    def _affine_map(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor] | None:
        """
        Scale and offset a channel, each of shape (3, 1, 1), where all that the image processor does to images of
        `shape` is an affine map of the pixel values; `None` where it does more (resizes, crops …). Measured rather
        than read from its settings: black and white give the map, and noise shows whether it is the whole truth.
        """
        if shape not in self._affine_maps:
            noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            probes = [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise]
            made = self._run(probes)
            if len(made) > 1 or made["pixel_values"].ndim != 4:
                self._affine_maps[shape] = None
                return None
            black, white, expected = made["pixel_values"]
            offset = black[:, :1, :1].clone()
            scale = (white[:, :1, :1] - offset) / 255.0
            channels_first = torch.from_numpy(noise).permute(2, 0, 1)
            same = channels_first.shape == expected.shape and torch.allclose(
                channels_first * scale + offset, expected, rtol=0.0, atol=1e-5
            )
            self._affine_maps[shape] = (scale, offset) if same else None
        return self._affine_maps[shape]


def is_image(value: Any) -> bool:
    """Whether this is one image, and not several."""
    return isinstance(value, Image.Image) or (isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 3)


__all__ = ["IMAGE_INPUTS", "ImageBatches", "is_image"]
