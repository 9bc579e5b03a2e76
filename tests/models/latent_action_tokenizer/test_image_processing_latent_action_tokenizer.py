# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from cyclemimic import LatentActionTokenizerImageProcessor

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)


@pytest.fixture
def processor() -> LatentActionTokenizerImageProcessor:
    return LatentActionTokenizerImageProcessor(size=16)


def test_batch(processor):
    batch = processor(list(FRAMES), list(FRAMES[::-1]))
    assert list(batch) == ["pixel_values", "future_pixel_values"]
    for tensor in batch.values():
        assert tensor.shape == (3, 3, 16, 16) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert torch.equal(batch["pixel_values"], batch["future_pixel_values"].flip(0))
    assert list(processor(FRAMES[0])) == ["pixel_values"]
    assert torch.equal(processor.preprocess(FRAMES[0])["pixel_values"], processor(FRAMES[0])["pixel_values"])


def test_values_by_hand():
    frame = np.array([[[255, 0, 51]]], dtype=np.uint8)
    pixel_values = LatentActionTokenizerImageProcessor(size=1)(frame)["pixel_values"].flatten()
    # (1 - 0.485) / 0.229, (0 - 0.456) / 0.224 and (0.2 - 0.406) / 0.225
    assert pixel_values.tolist() == pytest.approx([2.2489083, -2.0357143, -0.9155556], abs=1e-6)


def test_every_kind_of_frame_gives_the_same(processor):
    expected = processor(FRAMES)["pixel_values"]
    images = [Image.fromarray(frame) for frame in FRAMES]
    for frames in (list(FRAMES), tuple(FRAMES), images, torch.from_numpy(FRAMES), list(torch.from_numpy(FRAMES))):
        assert torch.equal(processor(frames)["pixel_values"], expected)
    for frame in (FRAMES[0], images[0], torch.from_numpy(FRAMES[0])):
        assert torch.equal(processor(frame)["pixel_values"], expected[:1])


def test_a_column_of_a_data_set_is_a_sequence_of_frames(processor):
    datasets = pytest.importorskip("datasets")
    images = [Image.fromarray(frame) for frame in FRAMES]
    column = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()}))["image"]
    assert not isinstance(column, list)
    assert torch.equal(processor(column, column)["future_pixel_values"], processor(FRAMES)["pixel_values"])


def test_frames_of_different_sizes_become_one_size(processor):
    frames = [np.full((height, width, 3), 7, np.uint8) for height, width in ((16, 16), (64, 8), (5, 40))]
    resized = processor.resize_frames(frames)
    assert resized.shape == (3, 16, 16, 3) and (resized == 7).all()


@pytest.mark.parametrize("size", [7, 16, 64])
def test_resizing_is_pillow_bicubic_to_a_rounding(size):
    resized = LatentActionTokenizerImageProcessor(size=size).resize_frames(FRAMES)
    pillow = [Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC) for frame in FRAMES]
    assert np.abs(resized - np.stack([np.asarray(image, dtype=np.int16) for image in pillow])).max() <= 2


def test_read_only_frames_are_taken_without_a_warning(processor, recwarn):
    frames = FRAMES.copy()
    frames.flags.writeable = False
    np.testing.assert_array_equal(processor.resize_frames(list(frames)), processor.resize_frames(FRAMES))
    assert not recwarn.list


def test_resizing_twice_is_resizing_once(processor):
    once = processor.resize_frames(FRAMES)
    assert once.dtype == np.uint8 and once.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(processor.resize_frames(once), once)
    assert torch.equal(processor(once)["pixel_values"], processor(FRAMES)["pixel_values"])


def test_post_process_inverts_the_normalisation():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    processor = LatentActionTokenizerImageProcessor(size=16)
    pixel_values = processor(levels)["pixel_values"]
    images = processor.post_process(pixel_values.requires_grad_())
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, levels)
    np.testing.assert_array_equal(processor.post_process(torch.full((1, 3, 2, 2), 99.0)), 255)
    np.testing.assert_array_equal(processor.post_process(torch.full((1, 3, 2, 2), -99.0)), 0)


def test_save_and_load(tmp_path):
    processor = LatentActionTokenizerImageProcessor(size=12, image_mean=(0.1, 0.2, 0.3), image_std=(1.0, 2.0, 3.0))
    processor.save_pretrained(tmp_path)
    reloaded = LatentActionTokenizerImageProcessor.from_pretrained(tmp_path)
    assert (reloaded.size, reloaded.image_mean, reloaded.image_std) == (12, [0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
    assert torch.equal(reloaded(FRAMES)["pixel_values"], processor(FRAMES)["pixel_values"])
    assert reloaded.to_dict() == processor.to_dict()
    module = LatentActionTokenizerImageProcessor.__module__.split(".")[-1]
    assert reloaded.auto_map == {"AutoImageProcessor": f"{module}.LatentActionTokenizerImageProcessor"}


def test_sizes_and_means_as_other_processors_have_them():
    processor = LatentActionTokenizerImageProcessor({"height": 32, "width": 32}, image_mean=0.5, image_std=0.25)
    assert (processor.size, processor.image_mean, processor.image_std) == (32, 3 * [0.5], 3 * [0.25])
    assert LatentActionTokenizerImageProcessor(image_mean=np.float32(0.5)).image_mean == 3 * [0.5]
    with pytest.raises(ValueError, match="`image_mean` must be three finite numbers, .* or one for all, got None"):
        LatentActionTokenizerImageProcessor(image_mean=None)
    for size in ({"height": 32, "width": 16}, {"shortest_edge": 32}, {}, (32, 32)):
        message = f"`size` must be a whole number of at least 1, for height and width, got {size!r}."
        with pytest.raises(ValueError, match=re.escape(message)):
            LatentActionTokenizerImageProcessor(size)
    for name in ("image_size", "do_normalize", "resample"):
        with pytest.raises(ValueError, match=rf"Unknown argument\(s\) \['{name}'\]"):
            LatentActionTokenizerImageProcessor(**{name: 32})


@pytest.mark.parametrize("pixel_values", [torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), np.zeros((1, 3, 8, 8))])
def test_what_is_no_batch_of_frames_is_not_made_a_picture(pixel_values):
    with pytest.raises(ValueError, match=r"`pixel_values` must be a tensor of shape \(batch_size, 3, height, width\)"):
        LatentActionTokenizerImageProcessor().post_process(pixel_values)


@pytest.mark.parametrize(
    ("current", "future", "message"),
    [
        ([], None, "`current` must hold at least one frame, got none"),
        (FRAMES[:0], None, "`current` must hold at least one frame, got none"),
        (FRAMES.astype(np.float32), None, "`current` must hold RGB images, .* got float32 from 0 to 255"),
        (FRAMES[..., :1], None, r"`current` must hold RGB images.* got uint8 of shape \(20, 30, 1\)"),
        (FRAMES[0, :, :, 0], None, r"`current` must hold RGB images.* got uint8 of shape \(20, 30\)"),
        (np.array(3, np.uint8), None, r"`current` must hold RGB images.* got uint8 of shape \(\)"),
        (FRAMES[:, :0], None, r"`current` must hold RGB images.* got uint8 of shape \(0, 30, 3\)"),
        (Image.new("I;16", (30, 20)), None, r"`current` must hold RGB images.* got a PIL image of mode 'I;16'"),
        (Image.new("F", (30, 20)), None, r"`current` must hold RGB images.* got a PIL image of mode 'F'"),
        (None, None, "`current` must hold RGB images.* got NoneType"),
        (b"current.png", None, "`current` must hold RGB images.* got bytes"),
        (FRAMES, "future.png", "`future` must hold RGB images.* got str"),
        (FRAMES, FRAMES[:2], r"`future` must hold as many frames as `current` \(3\), got 2"),
        (FRAMES, [FRAMES[0], None, FRAMES[1]], "`future` must hold RGB images"),
    ],
)
def test_bad_frames(processor, current, future, message):
    with pytest.raises(ValueError, match=message):
        processor(current, future)


def test_other_bad_arguments(processor):
    with pytest.raises(ValueError, match="`return_tensors` must be \"pt\", got 'np'"):
        processor(FRAMES, return_tensors="np")
    for size in (0, 1.5):
        with pytest.raises(
            ValueError, match=f"`size` must be a whole number of at least 1, for height and width, got {size}"
        ):
            LatentActionTokenizerImageProcessor(size=size)
    with pytest.raises(
        ValueError, match=r"`image_mean` must be three finite numbers, one a channel, or one for all, got \[0.5\]"
    ):
        LatentActionTokenizerImageProcessor(size=16, image_mean=[0.5])
    with pytest.raises(ValueError, match="`image_std` must be three numbers above 0, one a channel"):
        LatentActionTokenizerImageProcessor(size=16, image_std=[0.5, 0.5, 0])
