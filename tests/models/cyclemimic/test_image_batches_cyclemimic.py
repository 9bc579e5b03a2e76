# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from cyclemimic.models.cyclemimic.image_batches_cyclemimic import ImageBatches

SIGLIP = SiglipImageProcessorPil(size={"height": 32, "width": 32})
CLIP = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
CROPPING = CLIPImageProcessorPil(do_resize=False, crop_size={"height": 24, "width": 24})


class Counted:
    """An image processor that keeps of how many images it is asked."""

    def __init__(self, image_processor):
        self.image_processor, self.counts = image_processor, []

    def to_dict(self):
        return self.image_processor.to_dict()

    def __call__(self, images, **options):
        self.counts.append(len(images))
        return self.image_processor(images, **options)


def check_path(image_processor, images, is_fast, **tolerances):
    """Encodes twice: the image processor's own result, and after the first time, when it was probed, with or without it."""
    counted = Counted(image_processor)
    batches = ImageBatches(counted)
    expected = image_processor(images, return_tensors="pt")["pixel_values"]
    for _ in range(2):
        counted.counts.clear()
        actual = batches.encode(images)["pixel_values"]
        torch.testing.assert_close(actual, expected, rtol=0, **tolerances)
    assert counted.counts == ([] if is_fast else [len(images)])
    assert actual.is_contiguous()
    assert batches.encode(images, do_normalize=False)["pixel_values"].shape == expected.shape
    assert len(counted.counts) == (1 if is_fast else 2)


def test_fast_path_equals_the_image_processors(images):
    check_path(SIGLIP, images, is_fast=True, atol=1e-6)


@pytest.mark.parametrize("side", [20, 48])
def test_other_sizes_take_the_image_processors_path(side):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    check_path(SIGLIP, [image], is_fast=False, atol=0)


def test_fast_path_holds_a_mean_and_deviation_a_channel(images):
    check_path(CLIP, images, is_fast=True, atol=1e-5)
    check_path(CROPPING, images, is_fast=False, atol=0)


def test_images_that_stay_as_they_are_are_not_resized_for_nothing(images):
    counted = Counted(CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 24, "width": 24}))
    np.testing.assert_array_equal(ImageBatches(counted).resize(images), np.stack(images))
    # The first image, and the probes of what is done to images of its new size.
    assert counted.counts == [1, 3]


@pytest.mark.parametrize("height", [1, 3])
def test_low_images_have_their_channels_last(height):
    image = np.random.default_rng(0).integers(0, 256, (height, 48, 3), dtype=np.uint8)
    batches = ImageBatches(SiglipImageProcessorPil(size={"height": 32, "width": 32}))
    expected = batches.image_processor([Image.fromarray(image)], return_tensors="pt")["pixel_values"]
    assert torch.equal(batches.encode([image])["pixel_values"], expected)
