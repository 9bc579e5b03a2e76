# SPDX-License-Identifier: Apache-2.0
"""With a real tokenizer: what the stand-ins of the other tests leave out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.evaluation.tokenizer_quality.control_features import coarse_frames, control_features
from cyclemimic.evaluation.tokenizer_quality.passes import TokenizerPasses
from cyclemimic.evaluation.tokenizer_quality.reconstruction import reconstruction_scores


@pytest.fixture
def passes() -> TokenizerPasses:
    dinov2 = {"model_type": "dinov2", "hidden_size": 40, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LatentActionTokenizerConfig(
        image_size=16,
        patch_size=4,
        vision_config=dinov2 | {"image_size": 16, "patch_size": 4},
        hidden_size=16,
        num_attention_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        codebook_size=8,
        num_latent_tokens=2,
        codebook_dim=4,
    )
    tokenizer = LatentActionTokenizerModel(config).eval()
    return TokenizerPasses(tokenizer, LatentActionTokenizerImageProcessor(16), batch_size=3)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 16, 16, 3), dtype=np.uint8)


def test_batches_do_not_change_the_result(passes, frames):
    current, future = frames, frames[::-1].copy()
    codes = passes.encode(current, future)
    generated = passes.decode(current, codes)
    inputs = passes.image_processor(list(current), list(future))
    with torch.inference_mode():
        expected = passes.tokenizer.encode(**inputs).codes
        decoded = passes.tokenizer.decode(inputs["pixel_values"], codes=expected).pixel_values
    np.testing.assert_array_equal(codes, expected)
    difference = generated.astype(int) - passes.image_processor.post_process(decoded)
    assert generated.dtype == np.uint8 and np.abs(difference).max() <= 1


def test_pairs_of_a_sample(passes, frames, make_sample):
    sample = make_sample([0] * 7, [0] * 7, [])
    object.__setattr__(sample, "frames", frames)
    object.__setattr__(sample, "future", np.arange(7)[::-1].copy())
    encoded = passes.encode_pairs(sample)
    np.testing.assert_array_equal(encoded.codes, passes.encode(frames, frames[::-1].copy()))
    assert encoded.quantized.shape == (7, 2, 4)
    # The middle frame is its own future.
    assert encoded.copy_squared_error[3] == 0
    difference = (frames[0] / 255 - frames[6] / 255) ** 2
    assert encoded.copy_squared_error[0] == pytest.approx(difference.mean(), rel=1e-5)
    scores = reconstruction_scores(encoded, np.array([0]))
    assert scores["copy_psnr"] == pytest.approx(-10 * np.log10(difference.mean()), rel=1e-5)
    assert scores["copy_ratio"] == pytest.approx(encoded.squared_error[0] / difference.mean(), rel=1e-5)
    assert reconstruction_scores(encoded, np.array([3]))["copy_ratio"] is None


def test_vision_features_are_the_vision_models(passes, frames):
    pooled = passes.vision_features(frames, grid_size=4, max_features=1024, seed=0)
    with torch.inference_mode():
        inputs = passes.image_processor(list(frames))["pixel_values"]
        patches = passes.tokenizer.vision_features.vision_model(inputs).last_hidden_state[:, 1:]
    # As many cells as patches: nothing is averaged. Channels first, then rows and columns.
    np.testing.assert_allclose(pooled, patches.transpose(1, 2).flatten(1), atol=1e-5)


def test_control_features(passes, frames, make_sample):
    sample = make_sample([0] * 7, [0] * 7, [])
    object.__setattr__(sample, "frames", frames)
    object.__setattr__(sample, "future", np.roll(np.arange(7), 1))
    features = control_features(sample, passes, seed=0)
    assert {name: values.shape for name, values in features.items()} == {
        "current_frame": (7, 3 * 12 * 12),
        "pixel_difference": (7, 3 * 12 * 12),
        "vision_difference": (7, 512),
    }
    np.testing.assert_allclose(features["pixel_difference"].sum(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(features["vision_difference"].sum(axis=0), 0, atol=1e-4)
    # Random projections keep distances, roughly.
    exact = passes.vision_features(frames, 4, max_features=1024, seed=0)
    exact = exact[np.roll(np.arange(7), 1)] - exact
    ratio = np.linalg.norm(features["vision_difference"], axis=1) / np.linalg.norm(exact, axis=1)
    assert ratio.std() / ratio.mean() < 0.1


def test_coarse_frames_are_means():
    frames = np.zeros((1, 4, 4, 3), np.uint8)
    frames[0, :2, :2, 0] = 255
    frames[0, 2:, :, 1] = 51
    coarse = coarse_frames(frames, 2).reshape(3, 2, 2)
    np.testing.assert_allclose(coarse, [[[1, 0], [0, 0]], [[0, 0], [0.2, 0.2]], [[0, 0], [0, 0]]], atol=1e-6)
    assert coarse_frames(frames, 12).shape == (1, 48)
