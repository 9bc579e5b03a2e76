# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cyclemimic.models
from cyclemimic import CycleMimicProcessor, LatentActionTokenizerImageProcessor
from cyclemimic.models.latent_action_tokenizer.rgb_images_latent_action_tokenizer import as_rgb_array

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
IMAGE[0, 0], IMAGE[0, 1] = 0, 255
FLOATS = torch.from_numpy(IMAGE).float() / 255
SAME = {
    "array": IMAGE,
    "channels first": IMAGE.transpose(2, 0, 1),
    "tensor": torch.from_numpy(IMAGE),
    "as torchvision and LeRobot give it": FLOATS.permute(2, 0, 1),
    "float64": IMAGE / 255,
    "half precision": FLOATS.half(),
    "with a gradient": FLOATS.clone().requires_grad_(),
    "PIL": Image.fromarray(IMAGE),
    "PIL, with alpha": Image.fromarray(IMAGE).convert("RGBA"),
}


def test_the_model_folders_have_one_text():
    texts = [path.read_text() for path in Path(cyclemimic.models.__path__[0]).glob("*/rgb_images_*.py")]
    assert len(texts) == 2 and texts[0] == texts[1]


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_is_the_same_image(kind):
    array = as_rgb_array(SAME[kind], "image")
    assert array.dtype == np.uint8 and array.flags.c_contiguous and np.array_equal(array, IMAGE)


def test_every_level_survives_as_a_float():
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for floats in (levels / 255, (levels / 255).astype(np.float32), torch.from_numpy(levels).half() / 255):
        assert np.array_equal(as_rgb_array(floats, "image"), levels)


def test_grey_images_get_three_equal_channels():
    grey = np.arange(96, dtype=np.uint8).reshape(8, 12)
    assert np.array_equal(as_rgb_array(Image.fromarray(grey), "image"), grey[..., None].repeat(3, -1))


def test_where_both_ends_may_be_channels_they_are_last():
    image = IMAGE[:3]
    assert np.array_equal(as_rgb_array(image, "image"), image)
    assert as_rgb_array(IMAGE[:, :3], "image").shape == (8, 3, 3)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (None, "NoneType"),
        ("frame.png", "str"),
        (IMAGE[..., :2], r"uint8 of shape \(8, 12, 2\)"),
        (IMAGE[..., 0], r"uint8 of shape \(8, 12\)"),
        (IMAGE[None], r"uint8 of shape \(1, 8, 12, 3\)"),
        (IMAGE[:0], r"uint8 of shape \(0, 12, 3\)"),
        (IMAGE.astype(np.int64), r"int64 of shape \(8, 12, 3\)"),
        (IMAGE > 0, r"bool of shape \(8, 12, 3\)"),
        (IMAGE.astype(np.float32), "float32 from 0 to 255"),
        (FLOATS - 0.5, "float32 from -0.5 to 0.5"),
        (FLOATS.where(FLOATS < 1, torch.nan), "float32 from nan to nan"),
        (Image.new("I;16", (12, 8)), "a PIL image of mode 'I;16'"),
        (Image.new("F", (12, 8)), "a PIL image of mode 'F'"),
    ],
)
def test_what_is_no_image_is_refused(image, got):
    with pytest.raises(ValueError, match=rf"`image` must hold RGB images, PIL or .*, got {got}\.$"):
        as_rgb_array(image, "image")


@pytest.mark.parametrize("kind", SAME)
def test_both_processors_take_it(kind):
    frames = LatentActionTokenizerImageProcessor(size=8)
    policy = CycleMimicProcessor.from_texts(["reach"], image_size=32, patch_size=16, chunk_size=2, action_dim=2)
    for process, texts in ((frames, None), (policy, ["reach"] * 2)):
        one, two = ({} if texts is None else {"text": texts[:count]} for count in (1, 2))
        expected = process(IMAGE, **one)["pixel_values"]
        assert torch.equal(process(SAME[kind], **one)["pixel_values"], expected)
        assert torch.equal(process([SAME[kind]] * 2, **two)["pixel_values"], expected.repeat(2, 1, 1, 1))
