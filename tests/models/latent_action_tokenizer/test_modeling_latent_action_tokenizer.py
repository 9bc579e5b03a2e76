# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, Dinov2Config

from cyclemimic import LatentActionTokenizerForPreTraining, LatentActionTokenizerModel
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import (
    AC3_CHECK_STEPS,
    LatentActionBuffer,
    LatentActionTokenizerDiscriminator,
)
from cyclemimic.models.latent_action_tokenizer.precision_latent_action_tokenizer import unit_length

from .conftest import SIZES, assert_same_state, moving_squares, state_of

AC3_TERMS = ("cycle_loss", "generator_loss", "discriminator_loss", "cycle_accuracy")


def mean_around(values: torch.Tensor, window: int) -> torch.Tensor:
    """Mean over the pixels of a window that are in the frame."""
    kernel = values.new_ones(1, 1, window, window)
    sums, counts = (F.conv2d(x, kernel, padding=window // 2) for x in (values, torch.ones_like(values)))
    return sums / counts


def shake(model: nn.Module) -> None:
    """Away from the start, where the decoder's head is zero and passes nothing back."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)


@pytest.fixture
def model(make_config) -> LatentActionTokenizerModel:
    torch.manual_seed(0)
    model = LatentActionTokenizerModel(make_config())
    shake(model)
    return model.eval()


@pytest.fixture
def load_warnings() -> Iterator[list[str]]:
    """What transformers warns of."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


# The tokenizer: encode, decode, forward.


@pytest.mark.parametrize("vision", ["patches", "dinov2", "siglip"])
def test_shapes(vision, make_config, tiny_dinov2, pairs):
    siglip = {"model_type": "siglip_vision_model", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    vision_config = {"patches": None, "dinov2": tiny_dinov2, "siglip": siglip | {"intermediate_size": 8}}[vision]
    model = LatentActionTokenizerModel(make_config(vision_config=vision_config)).eval()
    action = model.encode(*pairs)
    assert action.codes.shape == (6, 2) and action.codes.dtype == torch.int64
    assert 0 <= action.codes.min() and action.codes.max() < 8
    assert action.quantized.shape == action.embeddings.shape == (6, 2, 4)
    assert model.decode(pairs[0], codes=action.codes).pixel_values.shape == (6, 3, 16, 16)
    output = model(*pairs)
    assert output.pixel_values.shape == (6, 3, 16, 16) and output.codes.shape == (6, 2)
    assert output.loss.shape == () and output.loss.requires_grad


def test_outputs_are_tuples_where_asked_for(model, make_joined_model, pairs):
    for each in (model.eval(), make_joined_model().eval()):
        outputs = []
        for is_named in (True, False):
            torch.manual_seed(0)  # for the draw from the buffer
            outputs.append(each(*pairs, return_dict=is_named))
        named, plain = outputs
        assert type(plain) is tuple and len(plain) == len(named)
        assert all(torch.equal(value, expected) for value, expected in zip(plain, named.to_tuple(), strict=True))


def test_outputs_without_losses(model, make_joined_model, pairs):
    full, bare = model(*pairs), model(*pairs, return_loss=False)
    assert set(full) - set(bare) == {"loss", "reconstruction_loss", "codebook_loss", "commitment_loss"}
    assert torch.equal(bare.pixel_values, full.pixel_values)
    pretraining = make_joined_model()
    steps = int(pretraining.steps)
    assert list(pretraining.train()(*pairs, return_loss=False)) == ["codes"] and int(pretraining.steps) == steps
    codes = pretraining.eval()(*pairs).codes
    assert torch.equal(pretraining(*pairs, return_loss=False).codes, codes)


def test_forward_is_encode_and_decode(model, pairs):
    output, action = model(*pairs), model.encode(*pairs)
    assert torch.equal(output.codes, action.codes) and torch.equal(output.embeddings, action.embeddings)
    decoded = model.decode(pairs[0], quantized=action.quantized).pixel_values
    torch.testing.assert_close(output.pixel_values, decoded)
    torch.testing.assert_close(model.decode(pairs[0], codes=action.codes).pixel_values, decoded)
    weights = model.config
    expected = weights.reconstruction_weight * output.reconstruction_loss
    expected = expected + weights.codebook_weight * output.codebook_loss
    expected = expected + weights.commitment_weight * output.commitment_loss
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_codes_are_the_nearest_words(normalize, make_config, pairs):
    model = LatentActionTokenizerModel(make_config(normalize_codebook=normalize)).eval()
    shake(model)
    action = model.encode(*pairs)
    words = model.quantizer.codebook.detach().numpy()
    if normalize:
        words = words / (words**2).sum(-1, keepdims=True) ** 0.5
        torch.testing.assert_close(action.embeddings.norm(dim=-1), torch.ones(6, 2))
    embeddings = action.embeddings.detach().numpy()
    for sample in range(6):
        for token in range(2):
            distances = ((embeddings[sample, token] - words) ** 2).sum(-1)
            assert action.codes[sample, token] == distances.argmin()
            torch.testing.assert_close(action.quantized[sample, token], torch.from_numpy(words[distances.argmin()]))
    assert torch.equal(action.quantized, model.quantizer.lookup(action.codes))


def test_gradients_pass_the_quantizer_straight_through(model, pairs):
    action = model.encode(*pairs)
    weight = torch.randn_like(action.quantized)
    (gradient,) = torch.autograd.grad((action.quantized * weight).sum(), action.embeddings)
    assert torch.equal(gradient, weight)


def test_action_depends_on_both_frames(model, pairs):
    current, future = pairs
    embeddings = model.encode(current, future).embeddings
    for changed in (model.encode(future, future), model.encode(current, current), model.encode(future, current)):
        assert (changed.embeddings - embeddings).abs().max() > 1e-3


def test_residual_decoder_starts_as_a_copy(make_config, pairs):
    for residual in (True, False):
        model = LatentActionTokenizerModel(make_config(residual_decoder=residual)).eval()
        reconstruction = model(*pairs).pixel_values
        assert ((reconstruction - pairs[0]).abs().max() < 0.02) == residual


@pytest.mark.parametrize("num_motions", [0, 2])
def test_gradients_reach_every_part_from_the_first_step(num_motions, make_config):
    torch.manual_seed(0)
    config = make_config(num_motions=num_motions, cycle_start_copy_ratio=1.0, cycle_ramp_steps=0)
    model = LatentActionTokenizerForPreTraining(config).train()
    current, future = moving_squares(6)
    model(current, future)
    model(current, future).loss.backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_attention_implementations_agree(make_config, pairs):
    outputs = []
    for implementation in ("eager", "sdpa"):
        torch.manual_seed(0)
        config = make_config()
        config._attn_implementation = implementation
        model = LatentActionTokenizerModel(config).eval()
        shake(model)
        outputs.append(model(*pairs))
    torch.testing.assert_close(outputs[0].embeddings, outputs[1].embeddings)
    torch.testing.assert_close(outputs[0].pixel_values, outputs[1].pixel_values)


def test_gradients_reach_every_part(make_config, pairs):
    model = LatentActionTokenizerModel(make_config()).train()
    shake(model)
    model(*pairs).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


# The vision model.


def test_frozen_vision_passes_gradients_on_and_takes_none(make_config, tiny_dinov2, pairs):
    model = LatentActionTokenizerModel(make_config(vision_config=tiny_dinov2)).train()
    shake(model)
    pixel_values = pairs[0].clone().requires_grad_()
    model.vision_features(pixel_values).square().sum().backward()
    assert pixel_values.grad.abs().amax((1, 2, 3)).min() > 0
    model(*pairs).loss.backward()
    for name, parameter in model.named_parameters():
        is_vision = name.startswith("vision_features.vision_model.")
        assert (parameter.grad is None) == is_vision, name


def test_thawed_vision_learns(make_config, tiny_dinov2, pairs):
    model = LatentActionTokenizerModel(make_config(vision_config=tiny_dinov2, freeze_vision=False)).train()
    shake(model)
    model(*pairs).loss.backward()
    assert model.vision_features.vision_model.embeddings.patch_embeddings.projection.weight.grad.any()


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_vision_stays_in_evaluation_mode(freeze, make_config, tiny_dinov2, pairs):
    vision_config = tiny_dinov2 | {"hidden_dropout_prob": 0.5}
    model = LatentActionTokenizerForPreTraining(make_config(vision_config=vision_config, freeze_vision=freeze))
    features = model.tokenizer.vision_features
    for mode in (True, False, True):
        model.train(mode)
        assert features.training == mode
        assert all(module.training == (mode and not freeze) for module in features.vision_model.modules())
    first, second = features(pairs[0]), features(pairs[0])
    assert torch.equal(first, second) == freeze


def test_patch_tokens_are_the_last(make_config, tiny_dinov2, pairs):
    model = LatentActionTokenizerModel(make_config(vision_config=tiny_dinov2)).eval()
    shake(model)
    features = model.vision_features
    hidden_states = features.vision_model(pixel_values=pairs[0]).last_hidden_state
    assert hidden_states.shape == (6, 5, 8)  # the class token, and 2 × 2 patches
    expected = features.projection(hidden_states[:, 1:]) + features.position_embeddings
    torch.testing.assert_close(features(pairs[0]), expected)


def test_vision_model_that_merges_its_patches_is_refused(make_config, pairs):
    swin = {"model_type": "swin", "patch_size": 2, "embed_dim": 4, "depths": [1, 1], "num_heads": [1, 1]}
    model = LatentActionTokenizerModel(make_config(vision_config=swin | {"window_size": 2})).eval()
    with pytest.raises(ValueError, match=r"at least 64 patch tokens .* got features of shape \(12, 16, 8\)"):
        model(*pairs)


@pytest.mark.parametrize("kind", ["dinov2", "siglip_vision_model", "clip_vision_model", "vit"])
def test_vision_model_of_another_image_size(kind, make_config, tiny_dinov2, pairs):
    sizes = tiny_dinov2 | {"model_type": kind, "intermediate_size": 8}
    LatentActionTokenizerModel(make_config(vision_config=sizes)).eval()(*pairs)
    config = make_config(vision_config=sizes | {"image_size": 64})
    if kind == "dinov2":  # which interpolates its positions
        LatentActionTokenizerModel(config).eval()(*pairs)
        return
    with pytest.raises(ValueError, match=f"must have the tokenizer's `image_size`, 16, as {kind} .*, got 64"):
        LatentActionTokenizerModel(config)


def test_vision_model_of_videos_is_refused(make_config):
    sizes = {"patch_size": 4, "crop_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = make_config(vision_config={"model_type": "vjepa2", **sizes})
    with pytest.raises(ValueError, match="`vision_config` must be .* single images.*vjepa2.*`pixel_values_videos`"):
        LatentActionTokenizerModel(config)


# Buffer.


def held(buffer: LatentActionBuffer) -> Counter:
    """The actions in the buffer with their bodies, and how often each is there."""
    codes, ids = buffer.codes[buffer.filled].tolist(), buffer.embodiment_ids[buffer.filled].tolist()
    return Counter(zip(map(tuple, codes), ids))


def test_buffer_holds_exactly_the_previous_batches(make_config):
    model = LatentActionTokenizerForPreTraining(make_config(buffer_batches=3)).train()
    batches = []
    for step in range(6):
        count = 4 + step % 3
        codes = model(*moving_squares(count, first=4 * step), torch.full((count,), step)).codes
        batches.append(Counter((tuple(row), step) for row in codes.tolist()))
        assert held(model.buffer) == sum(batches[-3:], Counter())


def test_sampled_actions_are_of_earlier_batches(make_joined_model, pairs):
    model = make_joined_model()
    before, seen, sample = held(model.buffer), [], model.buffer.sample
    model.buffer.sample = lambda ids: seen.append(held(model.buffer)) or sample(ids)
    model(*pairs)
    assert seen == [before] and held(model.buffer) != before


def test_buffer_keeps_every_body_of_a_batch_that_takes_them_in_turn(make_config):
    buffer = LatentActionBuffer(make_config(codebook_size=100, num_latent_tokens=1, buffer_batch_size=4))
    buffer.add(torch.arange(8)[:, None], torch.arange(8) % 2)
    assert buffer.embodiment_ids[0].bincount().tolist() == [2, 2]
    assert (buffer.codes[0, :, 0] % 2 == buffer.embodiment_ids[0]).all()


def test_larger_batch_is_evenly_subsampled(make_config):
    buffer = LatentActionBuffer(make_config(codebook_size=100, num_latent_tokens=1, buffer_batch_size=4))
    buffer.add(torch.arange(10)[:, None], torch.arange(10))
    # Every 2.5th of ten.
    assert buffer.codes[0].flatten().tolist() == buffer.embodiment_ids[0].tolist() == [0, 2, 5, 7]
    assert buffer.filled.sum() == 4


@pytest.fixture
def two_bodies(make_config):
    """Body 0 did (1, 1) six times and (2, 2) once, body 1 did (1, 1) once and (3, 3) three times."""

    def make(sampling: str) -> LatentActionBuffer:
        buffer = LatentActionBuffer(make_config(buffer_sampling=sampling, buffer_batch_size=16))
        words = torch.tensor([1, 1, 1, 1, 1, 1, 2, 1, 3, 3, 3])
        codes, ids = words[:, None].repeat(1, 2), torch.tensor([0] * 7 + [1] * 4)
        buffer.add(codes[::2], ids[::2])
        buffer.add(codes[1::2], ids[1::2])
        return buffer

    return make


@pytest.mark.parametrize(
    ("sampling", "body", "expected"),
    [
        ("uniform", 0, {1: 1 / 4, 3: 3 / 4}),
        ("uniform", 1, {1: 6 / 7, 2: 1 / 7}),
        ("uniform", 2, {1: 7 / 11, 2: 1 / 11, 3: 3 / 11}),
        ("distinct", 0, {1: 1 / 2, 3: 1 / 2}),
        ("distinct", 1, {1: 1 / 2, 2: 1 / 2}),
        ("distinct", 2, {1: 1 / 3, 2: 1 / 3, 3: 1 / 3}),
    ],
)
def test_sampling_frequencies(sampling, body, expected, two_bodies):
    torch.manual_seed(0)
    sampled = two_bodies(sampling).sample(torch.full((8000,), body))
    assert sampled.dtype == torch.int64 and torch.equal(sampled[:, 0], sampled[:, 1])
    counts = Counter(sampled[:, 0].tolist())
    assert counts.keys() == expected.keys()
    for word, share in expected.items():
        # Five standard deviations.
        assert counts[word] / 8000 == pytest.approx(share, abs=5 * (share * (1 - share) / 8000) ** 0.5)


def test_each_frame_of_a_batch_gets_another_body(two_bodies):
    torch.manual_seed(0)
    ids = torch.arange(400) % 2
    words = two_bodies("distinct").sample(ids)[:, 0]
    assert set(words[ids == 0].tolist()) == {1, 3} and set(words[ids == 1].tolist()) == {1, 2}


def test_one_body_alone_takes_its_own_actions(make_config):
    buffer = LatentActionBuffer(make_config())
    buffer.add(torch.tensor([[1, 2], [3, 4]]), torch.tensor([7, 7]))
    torch.manual_seed(0)
    sampled = buffer.sample(torch.full((50,), 7))
    assert {tuple(row) for row in sampled.tolist()} == {(1, 2), (3, 4)}


# Pretraining: one backward instead of two alternating ones.


def textbook_gradients(
    model: LatentActionTokenizerForPreTraining, pairs: tuple[torch.Tensor, torch.Tensor], ids: torch.Tensor
) -> dict[str, torch.Tensor | None]:
    """The two steps of adversarial training, one after the other, from the equations of paper §3."""
    config, tokenizer = model.config, model.tokenizer
    current, future = pairs
    sampled = model.buffer.sample(ids)
    words = F.normalize(tokenizer.quantizer.codebook + tokenizer.quantizer.codebook_shift, dim=-1)
    norm = tokenizer.encoder.embedding_norm
    before = copy.deepcopy(norm.state_dict())
    action = tokenizer.encode(current, future)
    reconstruction = tokenizer.decode(current, quantized=action.quantized).pixel_values
    generated = tokenizer.decode(current, quantized=words.detach()[sampled]).pixel_values

    # Step of Ψ, with D fixed.
    gradients: dict[str, torch.Tensor | None] = {}
    if config.adversarial_weight > 0:
        (real_local, real_global), (local, overall) = map(model.discriminator, (future, generated.detach()))
        loss_psi = -F.logsigmoid(real_local).mean() - F.logsigmoid(real_global).mean()
        loss_psi = loss_psi - F.logsigmoid(-local).mean() - F.logsigmoid(-overall).mean()
        psi = dict(model.discriminator.named_parameters(prefix="discriminator"))
        gradients |= zip(psi, torch.autograd.grad(loss_psi, list(psi.values())))

    # Step of E, Q and D, with Ψ fixed.
    change = mean_around((future - current).square().mean(1, keepdim=True), config.patch_size | 1)
    weight = 1 + config.motion_weight * change / change.mean()
    loss = (weight / weight.mean() * (reconstruction - future).square()).mean()
    words_used = words[action.codes]
    loss = loss + (action.embeddings.detach() - words_used).square().mean()
    loss = loss + config.commitment_weight * (action.embeddings - words_used.detach()).square().mean()
    seen = generated + torch.randn_like(generated) * config.generated_noise_std
    seen = seen if config.cycle_trains_decoder else seen.detach()
    # Read back by the statistics of the real pairs.
    features, generated_features = map(tokenizer.vision_features, (current, seen))
    read_back = tokenizer.encoder(tokenizer.encoder.read_current(features), generated_features, is_generated=True)
    norm.load_state_dict(before)
    distance = (read_back[..., None, :] - words.detach()).norm(dim=-1)
    log_share = torch.log_softmax(-distance / config.cycle_temperature, dim=-1)
    cycle = -log_share.gather(-1, sampled[..., None]).mean()
    scale = model.ac3_steps / config.cycle_ramp_steps
    loss = loss + scale * (config.cycle_weight * cycle)
    if config.adversarial_weight > 0:
        local, overall = model.discriminator(generated)
        generator = -F.logsigmoid(local).mean() - F.logsigmoid(overall).mean()
        loss = loss + scale * (config.adversarial_weight * generator)
    others = dict(tokenizer.named_parameters(prefix="tokenizer"))
    trained = {name: parameter for name, parameter in others.items() if parameter.requires_grad}
    gradients |= zip(trained, torch.autograd.grad(loss, list(trained.values())))
    return gradients


@pytest.mark.parametrize(
    ("vision", "num_motions", "checkpointing", "cycle_trains_decoder", "adversarial_weight"),
    [
        *[("patches", 0, None, True, 0.3), ("patches", 2, None, True, 0.3), ("dinov2", 0, None, True, 0.3)],
        *[("patches", 2, "plain", True, 0.3), ("dinov2", 0, "plain", True, 0.3)],
        *[("patches", 2, "reentrant", True, 0.3), ("patches", 2, None, False, 0.3)],
        *[("dinov2", 0, "plain", False, 0.3), ("patches", 2, None, False, 0), ("dinov2", 0, "plain", False, 0)],
    ],
)
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated")
def test_one_backward_equals_the_textbook(
    vision, num_motions, checkpointing, cycle_trains_decoder, adversarial_weight, make_joined_model, tiny_dinov2
):
    model = make_joined_model(
        vision_config=tiny_dinov2 if vision == "dinov2" else None,
        num_motions=num_motions,
        dead_code_steps=0,
        cycle_weight=0.7,
        cycle_trains_decoder=cycle_trains_decoder,
        adversarial_weight=adversarial_weight,
        commitment_weight=0.4,
        cycle_temperature=0.5,
    ).double()
    shake(model)
    pairs, ids = tuple(frames.double() for frames in moving_squares(6)), torch.arange(6) % 2
    torch.manual_seed(1)
    expected = textbook_gradients(model, pairs, ids)
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing == "reentrant"})
    torch.manual_seed(1)
    output = model(*pairs, ids)
    assert output.ac3_scale == 0.5
    output.loss.backward()
    actual = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.any(), name
        torch.testing.assert_close(actual[name], gradient, rtol=1e-6, atol=1e-12, msg=lambda text, name=name: name)


@pytest.mark.parametrize("autocast", [False, True])
def test_discriminator_follows_its_own_loss_alone(autocast, make_joined_model, pairs):
    model = make_joined_model()
    shake(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(*pairs)
    psi, others = list(model.discriminator.parameters()), list(model.tokenizer.parameters())
    assert all(parameter.requires_grad for parameter in psi)
    of_own = torch.autograd.grad(output.discriminator_loss, psi, retain_graph=True)
    of_all = torch.autograd.grad(output.loss, psi, retain_graph=True)
    assert all(torch.equal(own, every) for own, every in zip(of_own, of_all))
    for term in (output.generator_loss, output.cycle_loss):
        assert set(torch.autograd.grad(term, psi, retain_graph=True, allow_unused=True)) == {None}
    assert set(torch.autograd.grad(output.discriminator_loss, others, allow_unused=True, retain_graph=True)) == {None}
    # The adversarial gradient passes Ψ on its way to the decoder.
    (gradient,) = torch.autograd.grad(output.generator_loss, [model.tokenizer.decoder.head.weight])
    assert gradient.any()


@pytest.mark.parametrize("num_motions", [0, 2])
def test_weights_in_bf16_beside_buffers_in_fp32(num_motions, make_joined_model, pairs):
    """So DeepSpeed casts a model where a configuration says `mixed_precision: bf16`."""
    model = make_joined_model(num_motions=num_motions)
    shake(model)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    output = model(*(frames.bfloat16() for frames in pairs))
    output.loss.backward()
    assert output.cycle_loss > 0 and output.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert all(value.dtype != torch.bfloat16 for value in model.buffers())


def test_a_model_in_half_precision_reads_frames_as_they_are_prepared(model, pairs):
    expected = model.encode(*pairs)
    model.bfloat16()
    action = model.encode(*pairs)
    assert action.embeddings.dtype == torch.bfloat16
    torch.testing.assert_close(action.embeddings.float(), expected.embeddings, rtol=0, atol=0.1)
    assert model.decode(pairs[0], codes=action.codes).pixel_values.dtype == torch.bfloat16
    assert model(*pairs).loss.isfinite()


def test_terms_without_a_weight_are_not_computed(make_joined_model, pairs):
    model = make_joined_model(adversarial_weight=0)
    assert not hasattr(model, "discriminator")
    output = model(*pairs)
    assert output.cycle_loss > 0 and output.generator_loss == output.discriminator_loss == 0
    model = make_joined_model(cycle_weight=0)
    output = model(*pairs)
    assert output.discriminator_loss > 0 and output.cycle_loss == output.cycle_accuracy == 0


def test_ac3_leaves_the_codebook_alone(make_joined_model, pairs):
    model = make_joined_model()
    shake(model)
    output = model(*pairs)
    codebook = [model.tokenizer.quantizer.codebook]
    for term in (output.cycle_loss, output.generator_loss):
        assert torch.autograd.grad(term, codebook, allow_unused=True, retain_graph=True) == (None,)
    encoder, decoder = model.tokenizer.encoder.projection.weight, model.tokenizer.decoder.head.weight
    assert all(gradient.any() for gradient in torch.autograd.grad(output.cycle_loss, [encoder, decoder]))


def test_a_cycle_that_trains_the_encoder_alone(make_joined_model, pairs, monkeypatch):
    """It is of the same frames as the paper's, no other part learns from it, and a step costs less."""
    fields = {"adversarial_weight": 0, "generated_noise_std": 0, "num_motions": 2, "dead_code_steps": 0}
    whole, alone = (make_joined_model(**fields, cycle_trains_decoder=trains) for trains in (True, False))
    shake(whole)
    alone.load_state_dict(whole.state_dict())
    losses, operations = [], []
    for model, learning in (
        (whole, {"vision_features", "encoder", "decoder"}),
        (alone, {"vision_features", "encoder"}),
    ):
        monkeypatch.setattr(model.buffer, "sample", lambda ids: torch.arange(12).view(6, 2)[: len(ids)] % 8)
        with FlopCounterMode(display=False) as counter:
            output = model(*pairs)
            output.loss.backward(retain_graph=True)
        losses.append(output.cycle_loss)
        operations.append(counter.get_total_flops())
        names, weights = zip(*model.tokenizer.named_parameters(), strict=True)
        gradients = torch.autograd.grad(output.cycle_loss, weights, allow_unused=True)
        learns = {
            name.partition(".")[0] for name, gradient in zip(names, gradients, strict=True) if gradient is not None
        }
        assert learns == learning
    torch.testing.assert_close(losses[1], losses[0], rtol=0, atol=1e-6)
    assert operations[1] < operations[0]


def test_no_frame_is_looked_at_twice(make_joined_model, tiny_dinov2, pairs):
    model = make_joined_model(vision_config=tiny_dinov2)
    seen: dict[str, list[int]] = {}
    parts = {"vision": model.tokenizer.vision_features.vision_model, "encoder": model.tokenizer.encoder.layers[0]}
    parts |= {"patches": model.tokenizer.decoder.patch_embeddings, "decoder": model.tokenizer.decoder.layers[0]}
    parts |= {"discriminator": model.discriminator}
    for name, part in parts.items():
        part.register_forward_pre_hook(
            lambda _, args, kwargs, name=name: seen.setdefault(name, []).append(len([*args, *kwargs.values()][0])),
            with_kwargs=True,
        )
    model(*pairs)
    # Vision: current and future frames, then the generated ones. Encoder: each of the three once, the current one's
    # memory serving both pairs. Decoder: the current frames once, with two actions. Ψ sees the generated frames once a gradient.
    expected = {"vision": [12, 6], "encoder": [6, 6, 6], "patches": [6], "decoder": [12], "discriminator": [12, 6]}
    assert seen == expected


def test_cost_of_an_ac3_step(make_config, make_joined_model):
    # In the proportions of the paper's model: as many layers in E, D and Ψ.
    depths = {f"num_{part}_layers": 4 for part in ("encoder", "decoder", "discriminator")}
    genie = make_config(cycle_weight=0, adversarial_weight=0, hidden_size=32, **depths)
    models = LatentActionTokenizerForPreTraining(genie).train(), make_joined_model(hidden_size=32, **depths)
    operations = []
    for model in models:
        with FlopCounterMode(display=False) as counter:
            model(*moving_squares(6)).loss.backward()
        operations.append(counter.get_total_flops())
    assert 2 < operations[1] / operations[0] <= 2.6


@pytest.mark.parametrize("num_motions", [0, 2])
def test_actions_are_played_on_a_share_of_the_frames(num_motions, make_joined_model, pairs, monkeypatch):
    """What the cycle then sees is a part of what it sees with all; everything else is as it was."""
    seen, outputs, sampled = [], [], torch.arange(12).view(6, 2) % 8
    for share in (1.0, 0.3):
        model = make_joined_model(generated_share=share, num_motions=num_motions, generated_noise_std=0)
        monkeypatch.setattr(model.buffer, "sample", lambda ids: sampled[: len(ids)])
        monkeypatch.setattr(
            model, "_ac3_terms", lambda *given, terms=model._ac3_terms: seen.append(given) or terms(*given)
        )
        outputs.append(model(*pairs))
    (current, real, generated, _), (few_current, few_real, few_generated, _) = seen
    assert few_generated.shape == (2, 3, 16, 16), "0.3 of six, to the nearest"
    torch.testing.assert_close(few_generated, generated[:2], rtol=0, atol=1e-6)
    assert torch.equal(few_real, real[:2])
    for memory, few in zip(current, few_current, strict=True):
        assert all(torch.equal(part, whole[:2]) for part, whole in zip(few, memory, strict=True))
    for name in ("reconstruction_loss", "codebook_loss", "commitment_loss"):
        torch.testing.assert_close(outputs[1][name], outputs[0][name], rtol=0, atol=1e-6)
    outputs[1].loss.backward()


@pytest.mark.parametrize(("training", "trains_decoder"), [(True, True), (False, True), (True, False)])
def test_a_step_is_one_graph_for_batches_of_any_size(training, trains_decoder, make_joined_model):
    encoder_alone = {} if trains_decoder else {"cycle_trains_decoder": False, "adversarial_weight": 0}
    model = make_joined_model(num_motions=2, generated_share=0.5, **encoder_alone).train(training)
    torch.compiler.reset()
    compute = torch.compile(model._compute, fullgraph=True, backend="eager")
    for count in (8, 6, 5):  # the second size makes it a variable
        assert torch.isfinite(compute(*moving_squares(count), torch.arange(count) % 2, True).loss)


def test_cost_of_a_share_of_ac3(make_config, make_joined_model):
    operations = []
    for share in (None, 1.0, 0.25):
        genie = {"cycle_weight": 0, "adversarial_weight": 0}
        model = (
            make_joined_model(generated_share=share)
            if share
            else LatentActionTokenizerForPreTraining(make_config(**genie))
        )
        with FlopCounterMode(display=False) as counter:
            model.train()(*moving_squares(8)).loss.backward()
        operations.append(counter.get_total_flops())
    genie, whole, quarter = operations
    assert (quarter - genie) / (whole - genie) == pytest.approx(0.25, abs=0.01)


def test_discriminator_is_local_and_global(make_config, pairs):
    discriminator = LatentActionTokenizerDiscriminator(make_config())
    local_logits, global_logits = discriminator(pairs[0])
    assert local_logits.shape == (6, 16) and global_logits.shape == (6,)


@pytest.mark.parametrize(("heads", "shapes"), [("local", [(6, 16)]), ("global", [(6,)])])
def test_one_head_of_the_discriminator(heads, shapes, make_joined_model, pairs):
    model = make_joined_model(discriminator_heads=heads)
    assert [tuple(logits.shape) for logits in model.discriminator(pairs[0])] == shapes
    output = model(*pairs)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.discriminator.parameters())
    assert output.generator_loss > 0 and output.discriminator_loss > 0
    # Without an opinion: log 2 for the generator, twice that for Ψ, whichever the head.
    for name, parameter in model.discriminator.named_parameters():
        if "head" in name:
            nn.init.zeros_(parameter)
    output = model(*pairs)
    assert output.generator_loss.item() == pytest.approx(math.log(2), abs=1e-6)
    assert output.discriminator_loss.item() == pytest.approx(2 * math.log(2), abs=1e-6)


def test_genie_objective(make_config, pairs):
    config = make_config(cycle_weight=0, adversarial_weight=0, dead_code_steps=0)
    model = LatentActionTokenizerForPreTraining(config).train()
    shake(model)
    names = [*dict(model.named_parameters()), *dict(model.named_buffers())]
    assert not [name for name in names if name.startswith(("discriminator", "buffer"))]
    output, plain = model(*pairs), model.tokenizer(*pairs)
    assert torch.equal(output.loss, plain.loss) and torch.equal(output.codes, plain.codes)
    for term in ("reconstruction_loss", "codebook_loss", "commitment_loss"):
        assert torch.equal(output[term], plain[term])
    assert all(output[term] == 0 for term in AC3_TERMS)


@pytest.mark.parametrize("motion_weight", [0.0, 3.0])
def test_copy_ratio_is_one_for_a_copy_and_follows_the_loss(motion_weight, make_config, pairs):
    torch.manual_seed(0)
    model = LatentActionTokenizerForPreTraining(make_config(motion_weight=motion_weight)).train()
    nn.init.zeros_(model.tokenizer.decoder.head.weight)
    assert model(*pairs).copy_ratio.item() == pytest.approx(1.0, abs=1e-6)
    nn.init.ones_(model.tokenizer.decoder.head.bias)
    current, future = (frames.double() for frames in pairs)
    change = mean_around((future - current).square().mean(1, keepdim=True), model.config.patch_size | 1)
    weight = 1 + motion_weight * change / change.mean()
    expected = (weight * (current + 1 - future).square()).mean() / (weight * (current - future).square()).mean()
    assert model(*pairs).copy_ratio.item() == pytest.approx(expected.item(), rel=1e-5)


def test_mean_copy_ratio_moves_in_half_precision_too(make_config, tmp_path):
    """A twentieth of what is left to go is nothing in bf16, and AC3 would never join."""
    LatentActionTokenizerForPreTraining(make_config()).save_pretrained(tmp_path)
    model = LatentActionTokenizerForPreTraining.from_pretrained(tmp_path, dtype=torch.bfloat16).train()
    codes, bodies = torch.zeros(2, model.config.num_latent_tokens, dtype=torch.long), torch.zeros(2, dtype=torch.long)
    model._ac3_joins()
    for _ in range(300):
        model._advance(codes, bodies, torch.tensor(0.575, dtype=torch.bfloat16))
    assert model.mean_copy_ratio.item() == pytest.approx(0.575, abs=2e-3)
    # Resumed, it goes on from there, not from the nearest number of bf16.
    resumed = LatentActionTokenizerForPreTraining(make_config()).bfloat16()
    resumed.load_state_dict(model.state_dict())
    assert torch.equal(resumed.mean_copy_ratio, model.mean_copy_ratio)


def test_unit_length_of_nothing_is_finite_in_half_precision():
    for dtype in (torch.float16, torch.bfloat16):
        assert (unit_length(torch.zeros(2, 4, dtype=dtype)) == 0).all()


def test_a_batch_that_stands_still_says_nothing_of_motion(make_config, pairs):
    model = LatentActionTokenizerForPreTraining(make_config()).train()
    for bias in (0.0, 1.0):  # a copy, and worse
        nn.init.constant_(model.tokenizer.decoder.head.bias, bias)
        assert model(pairs[0], pairs[0]).copy_ratio == 1
    assert model.mean_copy_ratio == 1


def test_output_before_ac3_joins(make_config, pairs):
    model = LatentActionTokenizerForPreTraining(make_config(dead_code_steps=0)).train()
    output = model(*pairs)
    assert torch.equal(output.loss, model.tokenizer(*pairs).loss)
    assert output.ac3_scale == 0 and all(output[term] == 0 for term in AC3_TERMS)
    assert output.copy_ratio.item() == pytest.approx(1, abs=1e-3)  # the residual decoder starts as a copy
    counts = torch.bincount(output.codes.flatten(), minlength=8) / 12
    assert output.codebook_perplexity.item() == pytest.approx(torch.special.entr(counts).sum().exp().item())


# Pretraining: when AC3 joins.


def ratio_pairs(ratio_is_low: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """
    For a decoder that adds 1 to every pixel: frames that grow by 2, whose copy ratio is (1 − 2)² / 2² = 0.25, or that
    fall by 1, whose copy ratio is (1 + 1)² / 1² = 4.
    """
    current = torch.rand(4, 3, 16, 16)
    return current, current + (2.0 if ratio_is_low else -1.0)


@pytest.fixture
def make_scheduled_model(make_config):
    def make(**fields) -> LatentActionTokenizerForPreTraining:
        torch.manual_seed(0)
        config = make_config(**({"cycle_start_copy_ratio": 0.6, "cycle_ramp_steps": 10} | fields))
        model = LatentActionTokenizerForPreTraining(config).train()
        nn.init.ones_(model.tokenizer.decoder.head.bias)
        return model

    return make


def step(model: LatentActionTokenizerForPreTraining, ratio_is_low: bool) -> tuple[float, float]:
    """The scale of AC3 and its cycle loss in one training step."""
    with torch.no_grad():
        output = model(*ratio_pairs(ratio_is_low))
    assert output.copy_ratio.item() == pytest.approx(0.25 if ratio_is_low else 4.0, rel=1e-3)
    return output.ac3_scale.item(), output.cycle_loss.item()


def test_ac3_joins_by_the_copy_ratio_ramps_and_never_leaves(make_scheduled_model):
    model = make_scheduled_model()
    for _ in range(2 * AC3_CHECK_STEPS):
        assert step(model, ratio_is_low=False) == (0, 0)
    # No better than a copy counts as a copy.
    assert model.mean_copy_ratio.item() == pytest.approx(1.0, abs=1e-5)
    # 0.25 + 0.75 · 0.95ⁿ falls to 0.6 at n = 15; the ramp has then begun, and the next check finds it and lets AC3 join.
    scales = []
    for index in range(2 * AC3_CHECK_STEPS):
        scale, cycle_loss = step(model, ratio_is_low=True)
        assert scale == pytest.approx(min(1.0, max(0, index - 14) / 10) if index >= AC3_CHECK_STEPS else 0)
        assert (cycle_loss > 0) == (index >= AC3_CHECK_STEPS)
        expected = 0.25 + 0.75 * 0.95 ** (index + 1)
        assert model.mean_copy_ratio.item() == pytest.approx(expected, abs=1e-3)
        scales.append(scale)
    assert scales[19:21] == pytest.approx([0.0, 0.6]) and scales[-1] == 1
    for _ in range(2 * AC3_CHECK_STEPS):
        scale, cycle_loss = step(model, ratio_is_low=False)
        assert scale == 1 and cycle_loss > 0
    assert model.mean_copy_ratio > 0.6


def test_ac3_may_start_at_once(make_scheduled_model):
    model = make_scheduled_model(cycle_start_copy_ratio=1.0)
    joined = [step(model, ratio_is_low=False)[1] > 0 for _ in range(3)]
    # The first step has no buffer yet.
    assert joined == [False, True, True] and model.ac3_steps == 3
    # Nor has one whose first batch overflowed.
    model = make_scheduled_model(cycle_start_copy_ratio=1.0)
    assert not model._ac3_joins()
    model._advance(torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, dtype=torch.long), torch.tensor(float("nan")))
    assert step(model, ratio_is_low=False)[1] == 0 and step(model, ratio_is_low=False)[1] > 0


def test_ac3_joins_anew_where_it_is_restarted(make_scheduled_model):
    model = make_scheduled_model()
    for _ in range(2 * AC3_CHECK_STEPS):
        step(model, ratio_is_low=True)
    assert step(model, ratio_is_low=True)[1] > 0
    model.restart_ac3()
    # As in the test of a new model: the ratio falls to 0.6 at step 15, and the next check finds it.
    scales, cycle_losses = zip(*(step(model, ratio_is_low=True) for _ in range(2 * AC3_CHECK_STEPS)), strict=True)
    assert scales[:20] == (0,) * 20 and scales[20] == pytest.approx(0.6)
    assert [loss > 0 for loss in cycle_losses] == [False] * AC3_CHECK_STEPS + [True] * AC3_CHECK_STEPS


def test_a_loaded_model_does_not_play_actions_of_an_empty_buffer(make_scheduled_model, tmp_path):
    model = make_scheduled_model()
    for _ in range(AC3_CHECK_STEPS + 1):
        step(model, ratio_is_low=True)
    model.config.cycle_weight = model.config.adversarial_weight = 0
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("buffer.")}
    model.save_pretrained(tmp_path, state_dict=state)
    weights = {"cycle_weight": 1.0, "adversarial_weight": 1.0}
    model = LatentActionTokenizerForPreTraining.from_pretrained(tmp_path, **weights).train()
    assert model.ac3_steps > 0 and step(model, ratio_is_low=True)[1] == 0
    assert [step(model, ratio_is_low=True)[1] > 0 for _ in range(AC3_CHECK_STEPS)][-1]


def test_an_evaluation_with_ac3_is_the_same_again_and_draws_nothing_from_the_training(make_scheduled_model):
    model = make_scheduled_model(cycle_start_copy_ratio=1.0)
    step(model, ratio_is_low=True)
    pairs = ratio_pairs(ratio_is_low=True)
    state = torch.get_rng_state()
    losses = [model.eval()(*pairs).loss.item() for _ in range(3)]
    assert losses[0] == losses[1] == losses[2] and torch.equal(torch.get_rng_state(), state)
    assert model.train()(*pairs).cycle_loss > 0 and not torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("used_steps", [3, 45])
def test_a_used_model_goes_on_where_a_loaded_state_was(used_steps, make_scheduled_model):
    """As a Trainer does that has evaluated, or trained, before it resumes."""
    model, used = make_scheduled_model(), make_scheduled_model()
    for index in range(max(17, used_steps)):
        if index < 17:
            step(model, ratio_is_low=True)
        if index < used_steps:
            step(used, ratio_is_low=True)
    used.load_state_dict(state_of(model))
    for index in range(10):
        results = []
        for continued in (model, used):
            torch.manual_seed(index)
            results.append(step(continued, ratio_is_low=True))
        assert results[0] == results[1]
    assert results[0][1] > 0


@pytest.mark.parametrize("steps", [5, 17, 20, 23, 31])
def test_schedule_resumes_at_its_place(steps, make_scheduled_model, tmp_path):
    # AC3 is due from step 15 on and joins at step 20: before, between, at and after.
    model = make_scheduled_model()
    for _ in range(steps):
        step(model, ratio_is_low=True)
    model.save_pretrained(tmp_path)
    reloaded = LatentActionTokenizerForPreTraining.from_pretrained(tmp_path).train()
    assert_same_state(state_of(reloaded), state_of(model))
    for index in range(25):
        results = []
        for continued in (model, reloaded):
            torch.manual_seed(index)
            results.append(step(continued, ratio_is_low=True))
        assert results[0] == results[1]
    assert results[0][1] > 0
    assert_same_state(state_of(reloaded), state_of(model))


def test_evaluation_changes_no_state(make_joined_model, pairs):
    model = make_joined_model().eval()
    before = state_of(model)
    output = model(*pairs)
    assert output.cycle_loss > 0 and torch.isfinite(output.loss)
    assert_same_state(state_of(model), before)


# Learning.


def fit(parameters: Iterable[nn.Parameter], loss: Callable[[], torch.Tensor], steps: int) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def test_a_look_amid_training_changes_no_state(make_config, pairs):
    model = LatentActionTokenizerModel(make_config(dead_code_steps=1, standardize_embeddings=True)).train()
    for _ in range(3):
        model.encode(*pairs)  # with gradients, as a training step: the state moves
    before = state_of(model)
    with torch.no_grad():
        seen = model.encode(*pairs).codes
    assert_same_state(state_of(model), before)
    assert torch.equal(seen, model.eval().encode(*pairs).codes)
    model.train().encode(*pairs)
    assert any(not torch.equal(value, before[name]) for name, value in state_of(model).items())


def test_decoder_learns_what_the_actions_do(make_config):
    torch.manual_seed(0)
    model = LatentActionTokenizerModel(make_config(hidden_size=32)).train()
    codes = torch.arange(8).view(4, 2)
    current = moving_squares(4)[0][:1].repeat(4, 1, 1, 1)
    future = torch.stack([current[0].roll(by, axis) for by, axis in ((4, 1), (-4, 1), (4, 2), (-4, 2))])
    # The frames are the same: only the action tells the futures apart.
    error = lambda: F.mse_loss(model.decode(current, codes=codes).pixel_values, future)  # noqa: E731
    before = error().item()
    fit(model.decoder.parameters(), error, steps=100)
    assert error().item() < 0.1 * before


def test_overfits_one_batch(make_config):
    torch.manual_seed(0)
    config = make_config(hidden_size=32, cycle_weight=0, adversarial_weight=0)
    model = LatentActionTokenizerForPreTraining(config).train()
    pairs = moving_squares(4)
    assert model(*pairs).copy_ratio.item() == pytest.approx(1, abs=1e-3)
    fit(model.parameters(), lambda: model(*pairs).loss, steps=100)
    assert model.eval()(*pairs).copy_ratio < 0.3


# Save and load.


def test_save_and_load_at_zero_tolerance(model, pairs, tmp_path):
    model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors")] == ["model.safetensors"]
    reloaded, info = LatentActionTokenizerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert_same_state(state_of(reloaded), state_of(model))
    first, second = model(*pairs), reloaded(*pairs)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_checkpoint_from_before_words_could_shift(model, pairs, tmp_path, load_warnings):
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert not weights.pop("quantizer.codebook_shift").any()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    reloaded = LatentActionTokenizerModel.from_pretrained(tmp_path)
    assert not load_warnings and torch.equal(reloaded.quantizer.words, model.quantizer.words)
    assert torch.equal(reloaded.eval().encode(*pairs).codes, model.eval().encode(*pairs).codes)


@pytest.fixture
def trained(make_joined_model, pairs):
    """A model after some steps with AC3: nothing in it is as it started."""
    model = make_joined_model(cycle_ramp_steps=200)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for seed in range(3):
        optimizer.zero_grad()
        model(*moving_squares(6, first=6 * seed), torch.arange(6) % 2).loss.backward()
        optimizer.step()
    return model


def test_pretraining_saves_and_loads_at_zero_tolerance(trained, pairs, tmp_path, load_warnings):
    trained.save_pretrained(tmp_path)
    reloaded, info = LatentActionTokenizerForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and not load_warnings
    state = state_of(trained)
    assert {"steps", "ac3_steps", "mean_copy_ratio", "buffer.codes", "buffer.embodiment_ids", "buffer.filled"} < {
        *state
    }
    assert state["steps"] == 3 and state["ac3_steps"] == 103 and state["mean_copy_ratio"] != 1
    assert_same_state(state_of(reloaded), state)
    outputs = []
    for model in (trained, reloaded):
        torch.manual_seed(2)
        outputs.append(model.eval()(*pairs))
    assert outputs[0].cycle_loss > 0
    assert all(torch.equal(outputs[0][name], outputs[1][name]) for name in outputs[0])


@pytest.mark.parametrize("vision", ["patches", "dinov2"])
def test_pretraining_checkpoint_gives_the_tokenizer(vision, make_config, tiny_dinov2, pairs, tmp_path, load_warnings):
    config = make_config(vision_config=tiny_dinov2 if vision == "dinov2" else None)
    model = LatentActionTokenizerForPreTraining(config).eval()
    shake(model)
    model.save_pretrained(tmp_path)
    tokenizer, info = LatentActionTokenizerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()) and not load_warnings
    assert_same_state(state_of(tokenizer), state_of(model.tokenizer))
    assert torch.equal(tokenizer.encode(*pairs).codes, model.tokenizer.encode(*pairs).codes)
    assert torch.equal(tokenizer(*pairs).pixel_values, model.tokenizer(*pairs).pixel_values)


def test_tokenizer_checkpoint_starts_pretraining(model, pairs, tmp_path):
    model.save_pretrained(tmp_path)
    pretraining, info = LatentActionTokenizerForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert_same_state(state_of(pretraining.tokenizer), state_of(model))
    assert_fresh_ac3(pretraining, info["missing_keys"])
    assert torch.isfinite(pretraining.train()(*pairs).loss)


def test_genie_checkpoint_continues_with_ac3(make_config, tmp_path):
    genie = LatentActionTokenizerForPreTraining(make_config(cycle_weight=0, adversarial_weight=0))
    genie.save_pretrained(tmp_path)
    model, info = LatentActionTokenizerForPreTraining.from_pretrained(
        tmp_path, config=make_config(), output_loading_info=True
    )
    assert_same_state(state_of(model.tokenizer), state_of(genie.tokenizer))
    assert_fresh_ac3(model, info["missing_keys"])


def assert_fresh_ac3(model: LatentActionTokenizerForPreTraining, missing_keys: set[str]) -> None:
    """Only the parts of AC3 were missing, and they are as in a new model, not as whatever memory held."""
    own = {"mean_copy_ratio", "steps", "ac3_steps"}
    assert all(name in own or name.startswith(("discriminator.", "buffer.")) for name in missing_keys)
    assert any(name.startswith("discriminator.") for name in missing_keys)
    assert model.mean_copy_ratio == 1 and model.steps == 0 and model.ac3_steps == 0
    assert not model.buffer.filled.any() and (model.buffer.embodiment_ids == -1).all()
    std = model.config.hidden_size**-0.5
    assert 0.8 * std < model.discriminator.global_convolution.weight.std() < 1.2 * std


# Bad input.


FRAMES = torch.zeros(2, 3, 16, 16)


@pytest.mark.parametrize(
    ("pixel_values", "future_pixel_values", "message"),
    [
        (FRAMES, torch.zeros(2, 3, 16, 12), r"`future_pixel_values` must be .*3, 16, 16\), got \(2, 3, 16, 12\)"),
        (torch.zeros(2, 3, 32, 32), FRAMES, r"`pixel_values` must be .*, got \(2, 3, 32, 32\)"),
        (torch.zeros(2, 1, 16, 16), FRAMES, r"`pixel_values` must be .*, got \(2, 1, 16, 16\)"),
        (FRAMES[0], FRAMES[0], r"`pixel_values` must be .*, got \(3, 16, 16\)"),
        (FRAMES, FRAMES[:1], "must hold as many frames, got 2 and 1"),
        (FRAMES, None, "`future_pixel_values` must be .*, got nothing"),
        (FRAMES.numpy(), FRAMES, "`pixel_values` must be a tensor of .*, got ndarray"),
        (FRAMES, [FRAMES], "`future_pixel_values` must be a tensor of .*, got list"),
        (None, FRAMES, "`pixel_values` must be .*, got nothing"),
        (FRAMES[:0], FRAMES[:0], r"`pixel_values` must be .*, got \(0, 3, 16, 16\)"),
        (FRAMES, FRAMES.byte(), "`future_pixel_values` must be floats, normalised by the image processor, got uint8"),
    ],
)
def test_bad_frames(pixel_values, future_pixel_values, message, model, make_config):
    for call in (model.encode, model, LatentActionTokenizerForPreTraining(make_config())):
        with pytest.raises(ValueError, match=message):
            call(pixel_values, future_pixel_values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of `codes` and `quantized`"),
        ({"codes": torch.zeros(2, 2).long(), "quantized": torch.zeros(2, 2, 4)}, "exactly one of"),
        ({"codes": torch.tensor([[0, 8], [0, 0]])}, r"`codes` must lie in \[0, 8\), got \[0, 8\]"),
        ({"codes": torch.tensor([[0, -1], [0, 0]])}, r"`codes` must lie in \[0, 8\), got \[-1, 0\]"),
        ({"codes": torch.zeros(2, 2)}, "`codes` must be a tensor of int64, got torch.float32"),
        ({"codes": torch.zeros(2, 2).byte()}, "`codes` must be a tensor of int64, got torch.uint8"),
        ({"codes": [[0, 0], [0, 0]]}, "`codes` must be a tensor of int64, got list"),
        ({"codes": torch.zeros(2, 3).long()}, r"`codes` must be of shape \(2, 2\), got \(2, 3\)"),
        ({"codes": torch.zeros(1, 2).long()}, r"`codes` must be of shape \(2, 2\), got \(1, 2\)"),
        ({"quantized": torch.zeros(2, 1, 4)}, r"`quantized` must be of shape \(2, 2, 4\), got \(2, 1, 4\)"),
        ({"quantized": [[1]]}, "`quantized` must be a tensor, got list"),
        ({"quantized": torch.zeros(1, 2, 4)}, r"`quantized` must be of shape \(2, 2, 4\), got \(1, 2, 4\)"),
    ],
)
def test_bad_actions(arguments, message, model):
    with pytest.raises(ValueError, match=message):
        model.decode(FRAMES, **arguments)


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        (torch.zeros(3).long(), r"\(3,\)"),
        (torch.zeros(2, 1).long(), r"\(2, 1\)"),
        (torch.zeros(2), "torch.float32"),
        (torch.zeros(2).cfloat(), "torch.complex64"),
        ([0, 1], "list"),
    ],
)
def test_bad_embodiment_ids(ids, got, make_config):
    model = LatentActionTokenizerForPreTraining(make_config())
    message = rf"`embodiment_ids` must be a tensor of whole numbers, of shape \(2,\), got {got}"
    with pytest.raises(ValueError, match=message):
        model(FRAMES, FRAMES, ids)


def test_identical_frames_are_a_batch_like_others(make_joined_model):
    model = make_joined_model()
    shake(model)
    output = model(FRAMES, FRAMES)
    output.loss.backward()
    assert all(torch.isfinite(output[name]).all() for name in output)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert model.mean_copy_ratio <= 1


def test_a_batch_that_overflowed_leaves_no_trace(make_joined_model, pairs):
    """A loss scaler skips its step for the weights, and cannot for what a forward moves."""
    model = make_joined_model(dead_code_steps=1)
    shake(model)
    future = pairs[1].clone()
    future[2, 0, 5, 5] = float("inf")
    before = state_of(model)
    assert not model(pairs[0], future).loss.isfinite()
    # But for the number of steps, on which the schedule goes on.
    left_alone = before.keys() - {"steps", "ac3_steps"}
    assert_same_state(*({name: state[name] for name in left_alone} for state in (state_of(model), before)))
    output = model(*pairs)
    assert output.loss.isfinite() and output.cycle_loss.isfinite()


def test_nor_does_one_that_overflowed_where_nothing_moves(make_joined_model, pairs):
    model = make_joined_model(dead_code_steps=1)
    shake(model)
    model.tokenizer.decoder.head.bias.data.fill_(float("nan"))
    before = state_of(model.buffer)
    output = model(pairs[0], pairs[0])
    assert not output.loss.isfinite() and not output.copy_ratio.isfinite()
    assert_same_state(state_of(model.buffer), before)


def test_a_batch_of_one_is_standardised_by_what_came_before(make_joined_model, pairs):
    model = make_joined_model(dead_code_steps=0)
    shake(model)
    for _ in range(3):
        model(*pairs)
    norm = model.tokenizer.encoder.embedding_norm
    before = state_of(norm)
    output = model(*(frames[:1] for frames in pairs))
    assert_same_state(state_of(norm), before)
    output.loss.backward()
    assert model.tokenizer.encoder.projection.weight.grad.any()
    model.eval()
    assert torch.equal(output.codes, model(*(frames[:1] for frames in pairs)).codes)


def test_nan_pixels_show_in_the_loss_and_stay_in_their_sample(model, pairs):
    current, future = (frames.clone() for frames in pairs)
    expected = model(current, future)
    current[2, 0, 5, 5] = float("nan")
    output = model(current, future)
    assert output.loss.isnan() and output.embeddings[2].isnan().any()
    others = [0, 1, 3, 4, 5]
    assert torch.equal(output.codes[others], expected.codes[others])
    torch.testing.assert_close(output.pixel_values[others], expected.pixel_values[others])


@pytest.mark.parametrize("freeze_vision", [False, True])
def test_a_loaded_vision_model_is_as_frozen_as_a_new_one(freeze_vision, make_config, tiny_dinov2, tmp_path):
    config = make_config(vision_config=tiny_dinov2, freeze_vision=freeze_vision)
    LatentActionTokenizerForPreTraining(config).save_pretrained(tmp_path)
    loaded = LatentActionTokenizerForPreTraining.from_pretrained(tmp_path)
    trained = {name for name, value in loaded.named_parameters() if value.requires_grad}
    assert any("vision_model" in name for name in trained) == (not freeze_vision)
    assert "tokenizer.vision_features.projection.weight" in trained


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_takes_frames_of_full(dtype, make_joined_model):
    model = make_joined_model().to(dtype)
    output = model(*moving_squares(4))
    output.loss.backward()
    assert output.loss.isfinite() and output.ac3_scale > 0


def test_absolute_errors(make_config):
    model = LatentActionTokenizerModel(make_config(reconstruction_distance="l1", motion_weight=0)).eval()
    current, future = moving_squares(4)
    output = model(current, future)
    torch.testing.assert_close(output.reconstruction_loss, (output.pixel_values - future).abs().mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_saved", [False, True])
def test_a_tokenizer_on_a_pretrained_vision_model(is_saved, dtype, tiny_dinov2, tmp_path):
    vision_model = AutoModel.from_config(Dinov2Config(**tiny_dinov2)).to(dtype)
    vision_model.set_attn_implementation("eager")
    if is_saved:
        vision_model.save_pretrained(tmp_path)
    fields = {name: size for name, size in SIZES.items() if name != "vision_config"}
    tokenizer = LatentActionTokenizerForPreTraining.from_vision_model(tmp_path if is_saved else vision_model, **fields)
    own = tokenizer.tokenizer.vision_features.vision_model
    # In the tokenizer's own type, whatever the vision model was saved in.
    assert {weight.dtype for weight in tokenizer.parameters()} == {torch.float32}
    assert_same_state(state_of(own), state_of(vision_model.float()))
    assert tokenizer(*moving_squares(4)).loss.isfinite()
    assert own is not vision_model and not any(weight.requires_grad for weight in own.parameters())
    # The model that was given is as it was.
    assert vision_model.config._attn_implementation == "eager"
    assert all(weight.requires_grad for weight in vision_model.parameters())


def test_reconstruction_leaves_the_codebook_alone(make_config):
    torch.manual_seed(0)
    model = LatentActionTokenizerForPreTraining(make_config(dead_code_steps=0)).train()
    shake(model)
    output = model(*moving_squares(6))
    quantizer, projection = model.tokenizer.quantizer, model.tokenizer.encoder.projection.weight
    wanted = [quantizer.codebook, projection]
    words, encoder = torch.autograd.grad(output.reconstruction_loss, wanted, allow_unused=True, retain_graph=True)
    assert words is None and encoder.any()
    words, encoder = torch.autograd.grad(output.codebook_loss, wanted, allow_unused=True, retain_graph=True)
    assert words.any() and encoder is None
    words, encoder = torch.autograd.grad(output.commitment_loss, wanted, allow_unused=True)
    assert words is None and encoder.any()


def test_generated_frames_are_measured_by_the_statistics_of_real_pairs(make_joined_model):
    model = make_joined_model()
    shake(model)
    norm, by_batch = model.tokenizer.encoder.embedding_norm, []
    norm.register_forward_pre_hook(lambda _, args, kwargs: by_batch.append(kwargs["by_batch"]), with_kwargs=True)
    model(*moving_squares(6))
    assert by_batch == [True, False]
    model.eval()(*moving_squares(6))
    assert by_batch[2:] == [False, False]
