# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cyclemimic import LatentActionTokenizerForPreTraining, LatentActionTokenizerModel
from cyclemimic.models.latent_action_tokenizer.decoder_latent_action_tokenizer import (
    LatentActionTokenizerDecoder,
    LatentActionTokenizerTransport,
)

from .conftest import assert_same_state, moving_squares, state_of


@pytest.fixture
def transport(make_config) -> LatentActionTokenizerTransport:
    """Two motions of up to two steps, two pixels each, and weights that leave nothing at zero."""
    torch.manual_seed(0)
    module = LatentActionTokenizerTransport(make_config(num_motions=2, motion_reach=0.25, motion_steps=2)).double()
    assert (module.stride, module.kernel_size) == (2, 5)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def follow(transport: LatentActionTokenizerTransport, motion: int, step: tuple[int, int], mask: int) -> None:
    """Sets the weights so that `motion` comes from `step` rows and columns away, and every pixel follows `mask`."""
    size = transport.kernel_size
    with torch.no_grad():
        for parameter in transport.parameters():
            parameter.zero_()
        row, column = (transport.steps + offset for offset in step)
        transport.kernels[-1].bias.view(transport.num_motions, size, size)[motion, row, column] = 1e3
        transport.mask_head.bias.view(1 + transport.num_motions, -1)[mask] = 1e3


def test_a_motion_shifts_the_frame(transport):
    """A pixel that comes from one step above and two steps to the right: two pixels, and four."""
    frames, actions, patches = torch.randn(3, 3, 16, 16).double(), torch.zeros(3, 2, 4), torch.zeros(3, 16, 16)
    follow(transport, motion=1, step=(-1, 2), mask=2)
    moved = transport(frames, actions.double(), patches.double())
    torch.testing.assert_close(moved[:, :, 2:, :12], frames[:, :, :14, 4:])
    # From beyond the border comes what stands at it.
    torch.testing.assert_close(moved[:, :, 0, :12], frames[:, :, 0, 4:])
    torch.testing.assert_close(moved[:, :, 2:, 12:], frames[:, :, :14, -1:].expand(-1, -1, -1, 4))
    follow(transport, motion=1, step=(-1, 2), mask=0)
    torch.testing.assert_close(transport(frames, actions.double(), patches.double()), frames)


def test_transport_against_a_reference_pixel_by_pixel(transport):
    frames, actions = torch.randn(2, 3, 16, 16).double(), torch.randn(2, 2, 4).double()
    patches = torch.randn(2, 16, 16).double()
    logits = transport.mask_head(patches).view(2, 4, 4, 3, 4, 4)  # patch row and column, mask, row and column in it
    kernels = transport.kernels(actions.flatten(1)).view(2, 2, 25).softmax(-1).view(2, 2, 5, 5)
    expected = torch.zeros_like(frames)
    for sample in range(2):
        for y in range(16):
            for x in range(16):
                weights = logits[sample, y // 4, x // 4, :, y % 4, x % 4].softmax(0)
                expected[sample, :, y, x] = weights[0] * frames[sample, :, y, x]
                for motion in range(2):
                    for row in range(5):
                        for column in range(5):
                            source = [min(max(at, 0), 15) for at in (y + 2 * (row - 2), x + 2 * (column - 2))]
                            share = weights[1 + motion] * kernels[sample, motion, row, column]
                            expected[sample, :, y, x] += share * frames[sample, :, source[0], source[1]]
    torch.testing.assert_close(transport(frames, actions, patches), expected)


def test_motions_are_the_actions_alone(transport):
    """What any pixel may follow does not depend on the frame: the same shift of every body."""
    actions = torch.randn(1, 2, 4).double()
    frames = torch.randn(2, 3, 16, 16).double()
    apart = transport._moved(frames, actions.expand(2, -1, -1))
    together = transport._moved(frames.sum(0, keepdim=True), actions)
    torch.testing.assert_close(apart.sum(0, keepdim=True), together)


def test_a_new_decoder_nearly_copies(make_config, pairs):
    model = LatentActionTokenizerModel(make_config(num_motions=3)).eval()
    frames = pairs[0]
    output = model.decode(frames, codes=torch.zeros(len(frames), 2, dtype=torch.long)).pixel_values
    # Each pixel keeps e^3 parts of itself and takes one of each of the three motions.
    assert 0 < (frames - output).abs().max() < 3 / (math.exp(3) + 3)


@pytest.mark.parametrize("num_motions", [0, 2])
def test_gradients_reach_every_part(num_motions, make_config):
    torch.manual_seed(0)
    decoder = LatentActionTokenizerDecoder(make_config(num_motions=num_motions))
    actions = torch.randn(6, 2, 4, requires_grad=True)
    frames = moving_squares(6)[0].requires_grad_()
    decoder(frames, actions).square().mean().backward()
    assert actions.grad.any() and frames.grad.any()
    assert [name for name, parameter in decoder.named_parameters() if not parameter.grad.any()] == []
    assert any(name.startswith("transport.") for name, _ in decoder.named_parameters()) == (num_motions > 0)


def test_save_and_load_at_zero_tolerance(make_config, pairs, tmp_path):
    model = LatentActionTokenizerForPreTraining(make_config(num_motions=2)).eval()
    model.save_pretrained(tmp_path)
    loaded = LatentActionTokenizerForPreTraining.from_pretrained(tmp_path).eval()
    assert_same_state(state_of(model), state_of(loaded))
    assert loaded.config.num_motions == 2
    assert (tmp_path / "decoder_latent_action_tokenizer.py").exists()


def test_an_older_checkpoint_is_of_the_papers_decoder(make_config, pairs, tmp_path):
    model = LatentActionTokenizerModel(make_config()).eval()
    assert model.decoder.transport is None
    assert not any("transport" in name for name in model.state_dict())


def test_cost_of_moving_a_frame(transport):
    """Of each pixel and channel, a product a motion and place; the rest is two small heads."""
    frames, actions, patches = torch.randn(6, 3, 16, 16).double(), torch.randn(6, 2, 4), torch.randn(6, 16, 16)
    with FlopCounterMode(display=False) as counter:
        transport(frames, actions.double(), patches.double())
    moving = 2 * (6 * 3 * 16 * 16) * 2 * 25
    heads = 2 * 6 * (8 * 16 + 16 * 2 * 25 + 16 * 16 * 3 * 16)
    assert counter.get_total_flops() == moving + heads


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_motions": -1}, "`num_motions` must be at least 0"),
        (
            {"num_motions": 2, "residual_decoder": False},
            "`num_motions` must be .* 0 where `residual_decoder` is false",
        ),
        ({"motion_reach": 0.0}, r"`motion_reach` must be in \(0, 1\], got 0.0"),
        ({"motion_reach": 1.5}, r"`motion_reach` must be in \(0, 1\], got 1.5"),
        ({"motion_steps": 0}, "`motion_steps` must be at least 1, got 0"),
    ],
)
def test_bad_configurations(fields, message, make_config):
    with pytest.raises(ValueError, match=message):
        make_config(**fields)
