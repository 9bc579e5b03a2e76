# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cyclemimic.data import PairAugmentation


def augment(frames, seed=0, **settings):
    return PairAugmentation(**settings)(*frames, torch.Generator().manual_seed(seed))


@pytest.fixture
def frames():
    return torch.randn(2, 50, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_by_default_nothing_is_changed(frames):
    assert all(torch.equal(*pair) for pair in zip(augment(frames), frames, strict=True))


@pytest.mark.parametrize(
    "settings", [{"min_crop": 0.5}, {"color_jitter": 0.3}, {"min_crop": 0.7, "color_jitter": 0.1}]
)
def test_both_frames_of_a_pair_meet_the_same_and_pairs_differ(frames, settings):
    same = frames[0].expand(2, -1, -1, -1, -1)
    current, future = augment(same, **settings)
    assert torch.equal(current, future) and not torch.equal(current, frames[0])
    one_scene = frames[:, :1].expand(-1, 50, -1, -1, -1)
    assert len({tuple(image.flatten().tolist()) for image in augment(one_scene, **settings)[0]}) == 50
    assert not torch.equal(augment(same, seed=1, **settings)[0], current)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_reversed_pairs(share):
    frames = torch.stack((torch.zeros(2000, 1, 1, 1), torch.ones(2000, 1, 1, 1)))
    current, future = augment(frames, reversed_share=share)
    # Exchanged whole or not at all.
    torch.testing.assert_close(current + future, torch.ones_like(current), rtol=0, atol=0)
    assert current.mean().item() == pytest.approx(share, abs=5 * (share * (1 - share) / 2000) ** 0.5)


def test_cropping_is_torchs_own_sampling_of_an_affine_map():
    pairs, share = torch.rand(5, 2, 3, 12, 20, dtype=torch.float32), 0.6
    cropped = torch.stack(
        PairAugmentation(min_crop=share)(pairs[:, 0], pairs[:, 1], torch.Generator().manual_seed(3)), 1
    )
    generator = torch.Generator().manual_seed(3)
    shares = 1 - (1 - share) * torch.rand(5, generator=generator)
    centres = (1 - shares)[:, None] * (2 * torch.rand(5, 2, generator=generator) - 1)
    maps = torch.cat((torch.diag_embed(shares[:, None].expand(-1, 2)), centres[:, :, None]), dim=2)
    grid = F.affine_grid(maps, [5, 3, 12, 20], align_corners=False)
    expected = F.grid_sample(pairs.flatten(1, 2), grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(cropped, expected.unflatten(1, (2, 3)), rtol=0, atol=1e-5)


def test_a_crop_is_a_window_of_the_frame_and_no_smaller_than_asked():
    """A frame whose pixels hold their own coordinates tells which window is shown."""
    size = 64
    centres = (torch.arange(size) + 0.5) / size
    ramp = torch.stack((centres.expand(size, size), centres[:, None].expand(size, size))).expand(2, 300, -1, -1, -1)
    shown, _ = augment(ramp, min_crop=0.6)
    low, high = shown.amin((2, 3)), shown.amax((2, 3))
    share = (high - low) * size / (size - 1)
    torch.testing.assert_close(share[:, 0], share[:, 1], rtol=0, atol=0.02)
    assert 0.58 < share.min() < 0.65 and 0.95 < share.max() < 1.01
    assert low.min() < 0.03 and high.max() > 0.97
    # x grows to the right and y downwards, evenly, as before.
    steps = shown.diff(dim=3)[:, 0, 0]
    torch.testing.assert_close(steps[:, 8:-8], (share[:, :1] / size).expand(-1, size - 17), rtol=0, atol=1e-3)


def test_colours_are_mixed_alike_in_all_pixels():
    """Each pair's colours go through one affine map: four colours' images tell a fifth's."""
    colors = torch.cat((torch.zeros(1, 3), torch.eye(3), torch.tensor([[0.5, -1.0, 2.0]])))
    frame = colors.T[None, :, None].expand(20, -1, 2, -1)
    shown, _ = augment((frame, frame), color_jitter=0.5)
    zero, *basis, fifth = shown.unbind(3)
    expected = zero + sum(weight * (image - zero) for weight, image in zip((0.5, -1.0, 2.0), basis, strict=True))
    torch.testing.assert_close(fifth, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reversed_share": 1.5}, r"`reversed_share` must be in \[0, 1\], got 1.5"),
        ({"min_crop": 0.0}, r"`min_crop` must be in \(0, 1\], got 0.0"),
        ({"min_crop": 1.1}, r"`min_crop` must be in \(0, 1\], got 1.1"),
        ({"color_jitter": float("nan")}, r"`color_jitter` must be at least 0, got nan"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        PairAugmentation(**settings)
