# SPDX-License-Identifier: Apache-2.0
"""The paper's baselines: actions from the states of the latent action, and actions as words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cyclemimic import CycleMimicConfig, CycleMimicForActionPrediction, CycleMimicForLatentActionPrediction
from cyclemimic.models.cyclemimic import CycleMimicProcessor, make_tiny_backbone_config
from cyclemimic.models.cyclemimic.action_bins_cyclemimic import bin_centres, to_bins
from cyclemimic.trainers.adapters import add_adapter

from .conftest import STATISTICS, TEXTS

NUM_BINS = 8


@pytest.fixture(params=["latent", "discrete"])
def decoding(request) -> str:
    return request.param


@pytest.fixture
def make_model():
    def make(decoding: str, **changes) -> tuple[CycleMimicForActionPrediction, CycleMimicProcessor]:
        processor = CycleMimicProcessor.from_texts(
            TEXTS,
            image_size=32,
            patch_size=8,
            chunk_size=5,
            action_dim=4,
            num_act_tokens=2,
            action_statistics=STATISTICS,
            num_action_bins=NUM_BINS if decoding == "discrete" else None,
        )
        backbone = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=32, num_text_layers=2)
        torch.manual_seed(0)
        sizes = {"action_decoder_hidden_size": 32, "action_decoder_num_heads": 2}
        config = processor.make_config(backbone, action_decoding=decoding, **sizes, **changes)
        return CycleMimicForActionPrediction(config).eval(), processor

    return make


def test_bins_by_hand():
    values = torch.tensor([-1.5, -1.0, -0.76, -0.75, -0.01, 0.0, 0.74, 0.75, 1.0, 1.5])
    assert to_bins(values, 8).tolist() == [0, 0, 0, 1, 3, 4, 6, 7, 7, 7]
    assert bin_centres(torch.tensor([0, 3, 4, 7]), 8).tolist() == [-0.875, -0.125, 0.125, 0.875]


def test_a_bins_centre_is_at_most_half_a_bin_away():
    values = torch.linspace(-1, 1, 1001)
    for num_bins in (2, 7, 256):
        centres = bin_centres(to_bins(values, num_bins), num_bins)
        assert (centres - values).abs().max() <= 1 / num_bins + 1e-6
        assert torch.equal(to_bins(centres, num_bins), to_bins(values, num_bins))


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_latent_states_are_the_same_in_training_and_prediction(make_model, images, texts, padding_side):
    model, processor = make_model("latent")
    prompt = processor(images, texts, padding_side=padding_side)
    codes = model.predict_latent_actions(**prompt)
    calls = []
    model.action_decoder.register_forward_pre_hook(lambda _, args: calls.append(args))
    predicted = model.predict_action_chunk(**prompt)
    assert calls[0][1].shape == (3, 4, 32)
    for side in ("left", "right"):
        output = model(**processor(images, texts, latent_actions=codes, padding_side=side))
        for at_prediction, in_training in zip(calls[0], calls[-1]):
            assert torch.allclose(at_prediction, in_training, atol=1e-4)
        assert torch.allclose(output.actions, predicted, atol=1e-4)
    # They are those at the latent tokens themselves, in order.
    alone = processor(images[1], texts[1], latent_actions=codes[1:2])
    inputs = {name: alone[name] for name in ("input_ids", "pixel_values")}
    states = model.backbone.base_model(**inputs).last_hidden_state
    assert torch.allclose(calls[0][1][1], states[0, -4:], atol=1e-4)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_words_are_predicted_as_with_the_true_ones_before_them(make_model, images, texts, padding_side):
    model, processor = make_model("discrete")
    prompt = processor(images, texts, padding_side=padding_side)
    codes = model.predict_latent_actions(**prompt)
    predicted = model.predict_action_chunk(**prompt)
    assert set(predicted.flatten().tolist()) <= set(bin_centres(torch.arange(NUM_BINS), NUM_BINS).tolist())
    for side in ("left", "right"):
        batch = processor(images, texts, codes, np.zeros((3, 5, 4)), padding_side=side)
        batch["actions"] = predicted
        assert torch.equal(model(**batch).actions, predicted)
    assert torch.equal(model.predict_action_chunk(**processor(images[1], texts[1])), predicted[1:2])
    assert model(**processor(images, texts, codes)).actions is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("decoding", ["act", "latent", "discrete"])
def test_prediction_under_autocast(dtype, decoding, make_model, images, texts):
    model, processor = make_model(decoding)
    inputs = processor(images, texts)
    codes, expected = model.predict_latent_actions(**inputs), model.predict_action_chunk(**inputs)
    with torch.autocast("cpu", dtype):
        assert torch.equal(model.predict_latent_actions(**inputs), codes)
        actions = model.predict_action_chunk(**inputs)
    # Of words, near ties may fall the other way.
    torch.testing.assert_close(actions.float(), expected, rtol=0, atol=2 if decoding == "discrete" else 0.05)


@pytest.mark.parametrize("decoding", ["act", "discrete"])
def test_a_mask_of_numbers_is_one_of_truths(decoding, make_model, images, texts, codes, actions):
    model, processor = make_model(decoding)
    batch = processor(images, texts, codes, actions, dataset="arm")
    batch["actions_mask"] = torch.ones(3, 5, dtype=torch.bool)
    batch["actions_mask"][0, 2:] = False
    kinds = (torch.bool, torch.int64, torch.float32)
    losses = [model(**{**batch, "actions_mask": batch["actions_mask"].to(kind)}).loss for kind in kinds]
    assert losses[0] == losses[1] == losses[2]


def test_loss_of_words_equals_an_independent_one(make_model, images, texts, codes, actions):
    model, processor = make_model("discrete", action_loss_weight=0.5)
    model = model.double()
    mask = np.ones((3, 5), dtype=bool)
    mask[1, 3:] = False
    batch = processor(images, texts, codes, actions, mask)
    batch["pixel_values"] = batch["pixel_values"].double()
    output = model(**batch)
    bin_ids = torch.tensor(processor.action_bin_token_ids)
    losses = []
    for row in range(3):
        kept = batch["attention_mask"][row].bool()
        words = torch.floor((batch["actions"][row].flatten() + 1) / 2 * NUM_BINS).clamp(0, NUM_BINS - 1).long()
        ids = torch.cat([batch["input_ids"][row][kept], bin_ids[words]])[None]
        logits = model.backbone(input_ids=ids, pixel_values=batch["pixel_values"][row][None]).logits[0]
        chances = torch.log_softmax(logits[-21:-1][:, bin_ids], dim=-1)
        losses += [-chances[step, word] for step, word in enumerate(words) if mask[row, step // 4]]
    assert len(losses) == 2 * 20 + 12
    assert output.action_loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-6)
    expected = output.latent_action_loss + 0.5 * output.action_loss
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-9)


def test_masked_words_have_no_gradient(make_model, images, texts, codes, actions):
    model, processor = make_model("discrete")
    batch = processor(images, texts, codes, actions, np.zeros((3, 5), dtype=bool))
    assert model(**batch).action_loss.item() == 0


def test_gradients_reach_all_that_trains(make_model, decoding, images, texts, codes, actions):
    model, processor = make_model(decoding)
    model.train()(**processor(images, texts, codes, actions)).loss.backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert unused == []


def test_overfits_and_comes_back_from_disk(make_model, decoding, images, codes, actions, tmp_path):
    model, processor = make_model(decoding)
    same = ["reach"] * 3
    batch = processor(images, same, codes, actions)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = model.train()(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prompt = processor(images, same)
    predicted = model.eval().predict_action_chunk(**prompt)
    error = (predicted - batch["actions"]).abs().mean().item()
    assert error < (1 / NUM_BINS if decoding == "discrete" else 0.15)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    reloaded = CycleMimicForActionPrediction.from_pretrained(tmp_path).eval()
    again = CycleMimicProcessor.from_pretrained(tmp_path)(images, same)
    assert torch.equal(reloaded.predict_action_chunk(**again), predicted)
    model.reset()
    assert torch.equal(model.select_action(**prompt), predicted[:, 0])


def test_a_pretrained_backbone_learns_the_words(make_model, images, texts, codes, actions):
    pretrained = CycleMimicForLatentActionPrediction(make_model("act")[0].config)
    known = {name: value.clone() for name, value in pretrained.backbone.state_dict().items()}
    _, processor = make_model("discrete")
    ids = processor.action_bin_token_ids
    model = CycleMimicForActionPrediction.from_backbone(
        pretrained.backbone, processor, new_token_ids=ids, action_decoding="discrete"
    )
    for name, value in model.backbone.state_dict().items():
        if value.shape == known[name].shape:
            assert torch.equal(value, known[name]), name
        else:  # longer by the words
            assert len(value) == len(known[name]) + NUM_BINS and torch.equal(value[:-NUM_BINS], known[name])
    adapted = add_adapter(model, rank=4)
    adapted(**processor(images, texts, codes, actions)).loss.backward()
    trained = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trained and not any("action_decoder" in name for name in trained)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"action_decoding": "words"}, "action_decoding"),
        ({"action_decoding": "discrete"}, "`num_action_bins` and `action_bin_token_ids` must come with"),
        ({"num_action_bins": 1, "action_bin_token_ids": [3]}, "`num_action_bins` must be at least 2, got 1"),
        ({"num_action_bins": 3, "action_bin_token_ids": [3, 4]}, "`action_bin_token_ids` must be 3 distinct ids"),
        (
            {"action_decoding": "discrete", "num_action_bins": 2, "action_bin_token_ids": [3, 4], "state_dim": 2},
            "`state_dim` must be left out with `action_decoding` 'discrete'",
        ),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(Exception, match=message):
        CycleMimicConfig(**changes)


def test_bad_number_of_bins(processor):
    with pytest.raises(ValueError, match="`num_action_bins` must be an integer of at least 1, got 0"):
        CycleMimicProcessor(processor.image_processor, processor.tokenizer, num_action_bins=0)


def test_actions_beyond_the_bins_are_refused(make_model, images, texts, codes, actions):
    _, processor = make_model("discrete")
    actions[0, 4, 3] = 100.0  # of the dimension that the statistics leave alone
    with pytest.raises(
        ValueError, match="`actions` must be in \\[-1, 1\\] for `num_action_bins`, got 100 where `mask`"
    ):
        processor(images, texts, codes, actions)
    mask = np.ones((3, 5), dtype=bool)
    mask[0, 4] = False
    assert processor(images, texts, codes, actions, mask)["actions"][0, 4, 3] == 100
    _, processor = make_model("latent")
    assert processor(images, texts, codes, actions)["actions"][0, 4, 3] == 100
