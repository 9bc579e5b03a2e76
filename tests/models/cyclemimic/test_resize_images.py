# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from cyclemimic import CycleMimicProcessor

LARGE = np.random.default_rng(0).integers(0, 256, (2, 50, 64, 3), dtype=np.uint8)


def test_form(processor):
    resized = processor.resize_images(LARGE)
    assert resized.shape == (2, 32, 32, 3) and resized.dtype == np.uint8 and resized.flags.c_contiguous
    assert processor.resize_images(LARGE[0]).shape == (1, 32, 32, 3)


def test_batch_of_resized_equals_batch_of_originals(processor, texts):
    expected = processor(list(LARGE), texts[:2])
    batch = processor(list(processor.resize_images(LARGE)), texts[:2])
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"], rtol=0, atol=1e-6)


def test_resizing_twice_is_resizing_once(processor, images):
    once = processor.resize_images(LARGE)
    np.testing.assert_array_equal(processor.resize_images(once), once)
    np.testing.assert_array_equal(processor.resize_images(images), images)


def test_every_kind_of_image_gives_the_same(processor):
    expected = processor.resize_images(LARGE)
    pil = [Image.fromarray(image) for image in LARGE]
    for images in (list(LARGE), pil, torch.from_numpy(LARGE), [pil[0], LARGE[1]]):
        np.testing.assert_array_equal(processor.resize_images(images), expected)


def test_images_of_different_sizes(processor):
    images = [np.full(shape, 9, np.uint8) for shape in ((20, 40, 3), (32, 32, 3), (64, 33, 3))]
    np.testing.assert_array_equal(processor.resize_images(images), np.full((3, 32, 32, 3), 9))


def test_cropping_processor_keeps_what_it_crops_to(processor, texts):
    cropping = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    cropping = CycleMimicProcessor(cropping, processor.tokenizer, num_image_tokens=16)
    resized = cropping.resize_images(LARGE)
    assert resized.shape == (2, 32, 32, 3)
    expected = cropping(list(LARGE), texts[:2])["pixel_values"]
    torch.testing.assert_close(cropping(list(resized), texts[:2])["pixel_values"], expected, rtol=0, atol=1e-5)


def test_bad_images(processor):
    with pytest.raises(ValueError, match="`images` must hold RGB images, .* got float32 from 0 to 255"):
        processor.resize_images(LARGE.astype(np.float32))
    with pytest.raises(ValueError, match="`images` must hold at least one image, got none"):
        processor.resize_images([])


def test_processor_keeps_its_own_normalisation(processor):
    before = processor.image_processor.to_dict()
    processor.resize_images(LARGE)
    assert isinstance(processor.image_processor, SiglipImageProcessorPil)
    assert processor.image_processor.to_dict() == before
