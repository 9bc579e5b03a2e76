# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cyclemimic import LatentActionTokenizerForPreTraining, LatentActionTokenizerModel
from cyclemimic.models.latent_action_tokenizer.decoder_latent_action_tokenizer import (
    LatentActionTokenizerDecoder,
    LatentActionTokenizerTransport,
    _moved,
)

from .conftest import assert_same_state, moving_squares, state_of


@pytest.fixture
def transport(make_config) -> LatentActionTokenizerTransport:
    """Two motions of up to four pixels, and weights that leave nothing at zero."""
    torch.manual_seed(0)
    module = LatentActionTokenizerTransport(make_config(num_motions=2, motion_reach=0.25)).double()
    assert module.radius == 4
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def follow(transport: LatentActionTokenizerTransport, motion: int, step: tuple[int, int], part: int) -> None:
    """Sets the weights so that `motion` goes `step` rows and columns down and right, and every pixel is of `part`."""
    with torch.no_grad():
        for parameter in transport.parameters():
            parameter.zero_()
        row, column = (transport.radius + offset for offset in step)
        steps = transport.steps[-1].bias.view(transport.num_motions, 2, -1)
        steps[motion, 0, row] = steps[motion, 1, column] = 1e3
        transport.outline_head.bias[part] = 1e3


def test_a_motion_shifts_the_frame(transport):
    """One pixel up, and four to the right; what was beyond the border is not known, what goes beyond it is gone."""
    frames, actions, scene = torch.randn(3, 3, 16, 16).double(), torch.zeros(3, 2, 4), torch.zeros(3, 16, 16)
    follow(transport, motion=1, step=(-1, 4), part=2)
    moved = transport(*transport.read(frames, scene.double()), actions.double())
    torch.testing.assert_close(moved[:, :, :15, 4:], frames[:, :, 1:, :12])
    # Behind the frame there is the frame, as nothing else is painted.
    torch.testing.assert_close(moved[:, :, 15], frames[:, :, 15])
    torch.testing.assert_close(moved[:, :, :, :4], frames[:, :, :, :4])
    follow(transport, motion=1, step=(-1, 4), part=0)
    torch.testing.assert_close(transport(*transport.read(frames, scene.double()), actions.double()), frames)


def test_parts_that_meet_share_the_pixel(transport):
    """One half of each pixel goes a pixel down, the other stays by a motion of no step: at the top only half is left."""
    frames, actions, scene = torch.randn(2, 3, 16, 16).double(), torch.zeros(2, 2, 4), torch.zeros(2, 16, 16)
    follow(transport, motion=0, step=(1, 0), part=1)
    with torch.no_grad():
        transport.steps[-1].bias.view(2, 2, -1)[1, :, transport.radius] = 1e3
        transport.outline_head.bias[2] = 1e3
        transport.outline_head.bias[3:] = 5.0  # painted behind what moves: the frame and 5 more
    moved = transport(*transport.read(frames, scene.double()), actions.double())
    torch.testing.assert_close(moved[:, :, 1:], (frames[:, :, :-1] + frames[:, :, 1:]) / 2)
    torch.testing.assert_close(moved[:, :, 0], (frames[:, :, 0] + frames[:, :, 0] + 5) / 2)


@torch.no_grad()
def test_as_much_is_painted_as_may_move(transport):
    """One third of each pixel stays."""
    frames, scene = torch.randn(2, 3, 16, 16).double(), torch.zeros(2, 16, 16).double()
    for parameter in transport.parameters():
        parameter.zero_()
    transport.outline_head.bias[3:] = 6.0
    moving, behind = transport._parts(frames, scene)
    torch.testing.assert_close(moving, torch.full_like(moving, 1 / 3))
    torch.testing.assert_close(behind, frames + 4)


@torch.no_grad()
def test_transport_against_a_reference_pixel_by_pixel(transport):
    frames, actions = torch.randn(2, 3, 16, 16).double(), torch.randn(2, 2, 4).double()
    scene = torch.randn(2, 16, 16).double()
    moving, behind = (tensor.numpy() for tensor in transport._parts(frames, scene))
    chances = transport.steps(actions.flatten(1)).view(2, 2, 2, 9).softmax(-1).numpy()
    content, share = np.zeros((2, 3, 16, 16)), np.zeros((2, 1, 16, 16))
    for sample, motion, y, x in product(range(2), range(2), range(16), range(16)):
        for down, right in product(range(max(-4, -y), min(5, 16 - y)), range(max(-4, -x), min(5, 16 - x))):
            vertical, horizontal = chances[sample, motion]
            arrives = vertical[down + 4] * horizontal[right + 4] * moving[sample, motion, 0, y, x]
            content[sample, :, y + down, x + right] += arrives * frames[sample, :, y, x].numpy()
            share[sample, :, y + down, x + right] += arrives
    crowd = share.clip(min=1)
    expected = content / crowd + (1 - share / crowd) * behind
    torch.testing.assert_close(transport(*transport.read(frames, scene), actions), torch.from_numpy(expected))


def test_motions_are_the_actions_alone_and_parts_the_frames(make_config):
    """No action changes what can move, and no frame how it moves; a change of the action changes the first half of no layer."""
    torch.manual_seed(0)
    decoder = LatentActionTokenizerDecoder(make_config(num_motions=2, num_decoder_layers=2)).double().eval()
    seen = []
    decoder.transport.scene_head.register_forward_hook(lambda module, inputs, output: seen.append(output))
    frames, actions = torch.randn(2, 3, 16, 16).double(), torch.randn(2, 2, 4).double()
    first = decoder(frames, actions)
    second = decoder(frames, actions.flip(0))
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)
    assert (first - second).abs().max() > 1e-6
    assert (decoder.num_scene_layers, len(decoder.layers)) == (1, 2)


@pytest.mark.parametrize(("num_layers", "num_scene_layers"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_the_first_half_of_the_layers_sees_the_frame_alone(num_layers, num_scene_layers, make_config):
    config = make_config(num_motions=2, num_decoder_layers=num_layers)
    assert LatentActionTokenizerDecoder(config).num_scene_layers == num_scene_layers


@pytest.mark.parametrize(("num_motions", "num_scene_layers"), [(0, 0), (2, 1)])
def test_several_actions_a_frame_share_what_depends_on_the_frame(num_motions, num_scene_layers, make_config):
    torch.manual_seed(0)
    decoder = LatentActionTokenizerDecoder(make_config(num_motions=num_motions, num_decoder_layers=2)).double()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    rows = []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    frames, first, second = torch.randn(3, 3, 16, 16).double(), *torch.randn(2, 3, 2, 4).double()
    together = decoder(frames, torch.cat((first, second)))
    assert rows == [3] * num_scene_layers + [6] * (2 - num_scene_layers)
    torch.testing.assert_close(together, torch.cat((decoder(frames, first), decoder(frames, second))))


@pytest.mark.parametrize(("num_motions", "num_scene_layers"), [(0, 0), (2, 1)])
@pytest.mark.parametrize("num_fixed", [2, 3])
def test_fixed_actions_come_without_gradients(num_fixed, num_motions, num_scene_layers, make_config):
    torch.manual_seed(0)
    decoder = LatentActionTokenizerDecoder(make_config(num_motions=num_motions, num_decoder_layers=2)).double()
    for parameter in decoder.parameters():
        nn.init.normal_(parameter, std=0.1)
    frames = torch.randn(3, 3, 16, 16).double()
    actions = torch.randn(3 + num_fixed, 2, 4).double().requires_grad_()
    learnt, fixed = decoder(frames, actions).split((3, num_fixed))
    rows = []
    for layer in decoder.layers:
        layer.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    alike, without = decoder(frames, actions, num_fixed).split((3, num_fixed))
    assert rows == [3] * num_scene_layers + [3] * (2 - num_scene_layers) + [num_fixed] * (2 - num_scene_layers)
    torch.testing.assert_close(torch.cat((alike, without)), torch.cat((learnt, fixed)))
    for part, is_learnt in ((alike, True), (without, False)):
        gradients = torch.autograd.grad(part.square().sum(), [actions, *decoder.parameters()], retain_graph=True)
        assert [bool(gradient.any()) for gradient in gradients] == [is_learnt] * len(gradients)


def test_moving_is_exact_on_a_body_it_never_saw(transport):
    """A square cut out exactly arrives exactly, over what is painted behind it."""
    frames, actions = torch.zeros(1, 3, 16, 16).double(), torch.zeros(1, 2, 4).double()
    frames[:, :, 5:8, 5:8] = 1.0
    follow(transport, motion=0, step=(3, -2), part=0)
    with torch.no_grad():
        # What is bright is the part of the first motion; behind it, it is as dark as elsewhere.
        first, last = transport.outlines[0], transport.outline_head
        first.weight[0, 8, 1, 1] = 1e2
        last.bias[0], last.weight[1, 0, 1, 1] = 1e2, 1e2
        last.weight[3:, 0, 1, 1] = -1e-2
    moved = transport(*transport.read(frames, torch.zeros(1, 16, 16).double()), actions)
    expected = torch.zeros_like(frames)
    expected[:, :, 8:11, 3:6] = 1.0
    torch.testing.assert_close(moved, expected)


def test_a_new_decoder_nearly_copies(make_config, pairs):
    model = LatentActionTokenizerModel(make_config(num_motions=3)).eval()
    frames = pairs[0]
    output = model.decode(frames, codes=torch.zeros(len(frames), 2, dtype=torch.long)).pixel_values
    # Each pixel keeps e^2 parts of itself and gives one to each of the three motions.
    given = 3 / (math.exp(2) + 3)
    spread = frames.amax((1, 2, 3)) - frames.amin((1, 2, 3))
    difference = (frames - output).abs().amax((1, 2, 3))
    assert (0 < difference).all() and (difference < given * spread).all()


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
    """Two products of a part with a matrix, for three channels and the share, a motion; the rest is small heads."""
    frames, actions, scene = torch.randn(6, 3, 16, 16).double(), torch.randn(6, 2, 4), torch.randn(6, 16, 16)
    with FlopCounterMode(display=False) as counter:
        transport(*transport.read(frames, scene.double()), actions.double())
    moving = 6 * 2 * 4 * 2 * (2 * 16**3)
    heads = 2 * 6 * (8 * 16 + 16 * 2 * 2 * 9 + 16 * 16 * 8 * 16)
    outlines = 2 * 6 * 16 * 16 * 9 * (11 * 16 + 16 * 6)
    assert counter.get_total_flops() == moving + heads + outlines


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
        ({"motion_steps": 3}, r"Unknown argument\(s\) \['motion_steps'\]"),
    ],
)
def test_bad_configurations(fields, message, make_config):
    with pytest.raises(ValueError, match=message):
        make_config(**fields)


@pytest.mark.parametrize("num_actions", [3, 6, 5], ids=["one-each", "two-each", "two-of-some"])
def test_parts_are_moved_as_each_by_its_own_two_products(num_actions):
    torch.manual_seed(0)
    batch_size, num_motions, channels, size = 3, 2, 4, 5
    parts = torch.randn(batch_size, num_motions, channels, size, size, dtype=torch.float64)
    down, right = torch.randn(2, num_actions, num_motions, size, size, dtype=torch.float64)
    expected = torch.zeros(num_actions, channels, size, size, dtype=torch.float64)
    for action in range(num_actions):
        for motion in range(num_motions):
            part = parts[action % batch_size, motion]
            expected[action] += down[action, motion].T @ part @ right[action, motion]
    torch.testing.assert_close(_moved(parts, down, right), expected, rtol=0, atol=1e-12)
