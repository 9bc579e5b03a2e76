# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from cyclemimic.models.cyclemimic import CycleMimicForActionPrediction, CycleMimicForLatentActionPrediction

STAGES = [CycleMimicForLatentActionPrediction, CycleMimicForActionPrediction]


@pytest.fixture
def latent_model(config):
    return CycleMimicForLatentActionPrediction(config).eval()


@pytest.fixture
def action_model(config):
    return CycleMimicForActionPrediction(config).eval()


@pytest.fixture
def batch(processor, images, texts, codes, actions):
    return processor(images, texts, codes, actions)


def without_actions(batch):
    return {key: value for key, value in batch.items() if not key.startswith("actions")}


def record_inputs(module, positional=True):
    """What `module` is called with from now on, a call each."""
    calls = []
    module.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(args if positional else kwargs), with_kwargs=True
    )
    return calls


def test_latent_output(latent_model, batch, config):
    output = latent_model(**without_actions(batch), output_hidden_states=True)
    assert output.loss.shape == () and output.loss.requires_grad
    assert output.logits.shape == (3, 4, config.get_text_config().vocab_size)
    assert len(output.hidden_states) == 3
    del batch["labels"]
    output = latent_model(**without_actions(batch))
    assert output.loss is None and output.logits.shape == (3, 1, config.get_text_config().vocab_size)


@pytest.mark.parametrize("model_class", [CycleMimicForLatentActionPrediction, CycleMimicForActionPrediction])
def test_what_the_backbone_looked_at_is_returned(model_class, config, batch):
    model = model_class._from_config(config, attn_implementation="eager").eval()
    inputs = batch if model_class is CycleMimicForActionPrediction else without_actions(batch)
    output = model(**inputs, output_attentions=True, output_hidden_states=True)
    length = output.hidden_states[0].shape[1]
    assert length == batch["input_ids"].shape[1] + (model_class is CycleMimicForActionPrediction) * len(
        config.act_token_ids
    )
    assert len(output.attentions) == 2
    for attention in output.attentions:
        assert attention.shape[0] == 3 and attention.shape[2:] == (length, length)
        torch.testing.assert_close(attention.sum(-1), torch.ones_like(attention.sum(-1)))
    assert model(**inputs).attentions is None


def test_an_offloaded_vocabulary_head_predicts_the_same(latent_model, processor, images, texts, tmp_path):
    inputs = processor(images, texts)
    latent_model.save_pretrained(tmp_path / "model")
    parts = {"backbone.model": "cpu", "backbone.lm_head": "disk"}
    offloaded = CycleMimicForLatentActionPrediction.from_pretrained(
        tmp_path / "model", device_map=parts, offload_folder=tmp_path / "offloaded"
    )
    assert offloaded.get_output_embeddings().weight.is_meta
    assert torch.equal(offloaded.predict_latent_actions(**inputs), latent_model.predict_latent_actions(**inputs))


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_every_attention_predicts_the_same_states(attention, config, processor, images, texts):
    torch.manual_seed(0)
    model = CycleMimicForActionPrediction(config).eval()
    inputs = processor(images[:1], texts[:1])  # without padding
    expected = model.predict_action_chunk(**inputs)
    model.set_attn_implementation(attention)
    torch.testing.assert_close(model.predict_action_chunk(**inputs), expected, rtol=0, atol=1e-5)


def test_what_callers_have_no_say_in(latent_model, batch):
    batch = without_actions(batch)
    assert torch.equal(latent_model(**batch, use_cache=True).loss, latent_model(**batch).loss)
    with pytest.raises(ValueError, match="`position_ids` must be left out"):
        latent_model(**batch, position_ids=torch.zeros_like(batch["input_ids"]))
    prompt = {name: batch[name] for name in ("input_ids", "pixel_values", "attention_mask")}
    codes = latent_model.eval().predict_latent_actions(**prompt)
    assert torch.equal(latent_model.predict_latent_actions(**prompt, use_cache=False, return_dict=False), codes)


@pytest.mark.parametrize("name", ["action", "action_is_pad", "latent_actions"])
def test_a_name_that_nothing_reads_is_refused(name, action_model, batch):
    with pytest.raises(ValueError, match=rf"must have the processor's names, got \['{name}'\], which nothing reads"):
        action_model(**without_actions(batch), **{name: batch["actions"]})


def test_images_that_are_not_normalised_are_refused(action_model, batch):
    batch["pixel_values"] = batch["pixel_values"].to(torch.uint8)
    with pytest.raises(ValueError, match="`pixel_values` must be floats, normalised by the processor, got uint8"):
        action_model(**batch)


@pytest.mark.parametrize("marked", ["all", "one fewer", "one more"])
def test_labels_of_more_or_fewer_tokens_are_refused(marked, action_model, batch):
    labels = batch["labels"].clone()
    if marked == "all":
        labels = batch["input_ids"]
    else:
        place = int((labels[0] != -100).nonzero()[0]) - (marked == "one more")
        labels[0, place] = 5 if marked == "one more" else -100
    with pytest.raises(ValueError, match="`labels` must mark the 4 tokens of a latent action in a row, or none"):
        action_model(**{**batch, "labels": labels})


def test_prediction_amid_checkpointed_training_is_refused(latent_model, processor, images, texts):
    latent_model.gradient_checkpointing_enable()
    inputs = processor(images, texts)
    with pytest.raises(ValueError, match="`gradient_checkpointing` must be in eval mode"):
        latent_model.train().predict_latent_actions(**inputs)
    assert latent_model.eval().predict_latent_actions(**inputs).shape == (3, 4)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_loss_equals_that_of_full_logits(config, processor, images, texts, codes, padding_side):
    model = CycleMimicForLatentActionPrediction(config).double().eval()
    batch = processor(images, texts, codes, padding_side=padding_side)
    batch["pixel_values"] = batch["pixel_values"].double()
    output = model(**batch)
    losses = []
    for row in range(3):  # each sample alone, without its padding, through the backbone's own forward
        kept = batch["attention_mask"][row].bool()
        ids = batch["input_ids"][row][kept]
        logits = model.backbone(input_ids=ids[None], pixel_values=batch["pixel_values"][row][None]).logits[0]
        for step, code in enumerate(codes[row]):
            position = len(ids) - 4 + step
            assert torch.allclose(output.logits[row, step], logits[position - 1], atol=1e-9)
            losses.append(-torch.log_softmax(logits[position - 1], -1)[processor.latent_token_ids[code]])
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-6)


def test_latent_accuracies(latent_model, processor, images, texts):
    codes = latent_model.predict_latent_actions(**processor(images, texts))
    codes[1:, 3] = (codes[1:, 3] + 1) % 16
    output = latent_model(**processor(images, texts, codes))
    assert output.latent_token_accuracy.tolist() == pytest.approx([1, 1, 1, 1 / 3])
    assert output.latent_action_accuracy.item() == pytest.approx(1 / 3)
    batch = processor(images, texts, codes)
    batch["labels"][0] = -100
    output = latent_model(**batch)
    assert output.latent_token_accuracy.tolist() == pytest.approx([1, 1, 1, 0]), (
        "samples without labels are not counted"
    )
    assert output.latent_action_accuracy.item() == 0


def test_a_batch_without_labels_adds_nothing(action_model, batch):
    expected = action_model(**batch).action_loss
    batch["labels"][:] = -100
    output = action_model(**batch)
    assert output.latent_action_loss.item() == 0 and torch.allclose(output.loss, expected)
    output.loss.backward()
    assert all(weight.grad.isfinite().all() for weight in action_model.parameters() if weight.grad is not None)


def test_the_loss_of_latent_tokens_has_its_weight_in_pretraining_too(latent_model, processor, images, texts):
    inputs = processor(images, texts, latent_actions=[[0, 1, 2, 3]] * len(texts))
    loss = latent_model(**inputs).loss
    latent_model.config.latent_action_loss_weight = 4.0
    assert torch.equal(latent_model(**inputs).loss, 4 * loss)


def test_only_latent_positions_meet_the_vocabulary(action_model, batch):
    calls = record_inputs(action_model.get_output_embeddings())
    action_model(**batch)
    assert [states.shape[:2] for (states,) in calls] == [(3, 4)]


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_greedy_decoding_equals_one_without_a_cache(latent_model, processor, images, texts, padding_side):
    predicted = latent_model.predict_latent_actions(**processor(images, texts, padding_side=padding_side))
    assert predicted.dtype == torch.int64
    allowed = torch.tensor(processor.latent_token_ids)
    for row in range(3):
        inputs = processor(images[row], texts[row])
        expected = []
        for _ in range(4):
            with torch.no_grad():
                logits = latent_model.backbone(**inputs).logits[0, -1]
            expected.append(int(logits[allowed].argmax()))
            inputs["input_ids"] = torch.cat([inputs["input_ids"], allowed[expected[-1:]][None]], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        assert predicted[row].tolist() == expected


def test_the_prompt_is_read_once(action_model, processor, images, texts):
    vision = record_inputs(action_model.backbone.model.vision_tower, positional=False)
    language = record_inputs(action_model.backbone.model.language_model, positional=False)
    inputs = processor(images, texts)
    action_model.predict_action_chunk(**inputs)
    assert len(vision) == 1
    lengths = [call["inputs_embeds"].shape[1] for call in language]
    assert lengths == [inputs["input_ids"].shape[1], 1, 1, 1, 1 + 2]
    # Room for all of them from the start: its memory never moves.
    cache = language[-1]["past_key_values"]
    assert cache.is_compileable and cache.get_max_length() == sum(lengths)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_training_and_prediction_read_the_same_states(action_model, processor, images, texts, padding_side):
    prompt = processor(images, texts, padding_side=padding_side)
    codes = action_model.predict_latent_actions(**prompt)
    calls = record_inputs(action_model.action_decoder)
    predicted = action_model.predict_action_chunk(**prompt)
    other_side = "left" if padding_side == "right" else "right"
    for side in (padding_side, other_side):
        output = action_model(**processor(images, texts, latent_actions=codes, padding_side=side))
        for at_prediction, in_training in zip(calls[0], calls[-1]):
            assert torch.allclose(at_prediction, in_training, atol=1e-4)
        assert torch.allclose(output.actions, predicted, atol=1e-4)
    alone = processor(images[1], texts[1], latent_actions=codes[1:2])
    assert torch.allclose(action_model(**alone).actions, predicted[1:2], atol=1e-4)
    visual, act = calls[0]
    assert visual.shape == (3, 16, 32) and act.shape == (3, 2, 32)


def test_decoder_reads_image_and_act_states_where_they_are(action_model, processor, images, texts, codes):
    calls = record_inputs(action_model.action_decoder)
    action_model(**processor(images[0], texts[0], codes[:1]))
    visual, act = calls[0]
    ids = processor(images[0], texts[0], codes[:1])["input_ids"]
    ids = torch.cat([ids, torch.tensor([processor.act_token_ids])], dim=1)
    pixel_values = processor(images[0], texts[0])["pixel_values"]
    states = action_model.backbone.model(input_ids=ids, pixel_values=pixel_values).last_hidden_state
    assert torch.allclose(visual, states[:, :16], atol=1e-5)
    assert torch.allclose(act, states[:, -2:], atol=1e-5)


def test_decoder_without_image_states(config, processor, images, texts, codes, actions, tmp_path):
    config.action_decoder_context = "act"
    # Nothing of the image's place in the sequence is needed then.
    config.num_image_tokens = None
    model = CycleMimicForActionPrediction(config)
    assert model.action_decoder.context_positions.shape == (2, 32)
    calls = record_inputs(model.action_decoder)
    model(**processor(images, texts, latent_actions=codes, actions=actions)).loss.backward()
    assert calls[0][0] is None and calls[0][1].shape == (3, 2, 32)
    assert not [name for name, weight in model.named_parameters() if weight.grad is None]
    prompt = processor(images, texts)
    expected = model.eval().predict_action_chunk(**prompt)
    model.save_pretrained(tmp_path)
    reloaded = CycleMimicForActionPrediction.from_pretrained(tmp_path).eval()
    assert torch.equal(reloaded.predict_action_chunk(**prompt), expected)
    # The image still counts, through the backbone.
    assert not torch.equal(expected, model.predict_action_chunk(**processor(images[::-1], texts)))


def test_act_tokens_see_the_latent_action(action_model, processor, images, texts, codes):
    first, second = (
        action_model(**processor(images, texts, latent_actions=given)).actions for given in (codes, codes[::-1].copy())
    )
    assert not torch.allclose(first, second, atol=1e-4)


def test_action_output(action_model, batch, config):
    output = action_model(**batch)
    assert output.actions.shape == (3, 5, 4) and output.logits.shape[:2] == (3, 4)
    assert torch.allclose(output.loss, output.latent_action_loss + output.action_loss)
    config.latent_action_loss_weight, config.action_loss_weight = 0.5, 2.0
    assert torch.allclose(action_model(**batch).loss, 0.5 * output.latent_action_loss + 2.0 * output.action_loss)
    only_actions = action_model(**{key: value for key, value in batch.items() if key != "labels"})
    assert torch.allclose(only_actions.loss, 2.0 * output.action_loss) and only_actions.latent_action_loss is None
    assert action_model(**without_actions(batch)).action_loss is None


def test_action_loss_leaves_masked_steps_out(action_model, batch):
    batch["actions_mask"][0, 2:] = False
    batch["actions_mask"][2] = False
    output = action_model(**batch)
    kept = [(0, 0), (0, 1)] + [(1, step) for step in range(5)]
    errors = [(output.actions[at] - batch["actions"][at]).abs().mean().item() for at in kept]
    assert output.action_loss.item() == pytest.approx(np.mean(errors), abs=1e-6)
    batch["actions_mask"][:] = False
    assert action_model(**batch).action_loss.item() == 0


@pytest.mark.parametrize("stage", STAGES)
def test_save_and_load(stage, config, processor, images, texts, tmp_path):
    model = stage(config).eval()
    model.save_pretrained(tmp_path)
    reloaded, info = stage.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, reloaded.state_dict()[name]), name
    inputs = processor(images, texts)
    verb = "predict_latent_actions" if stage is CycleMimicForLatentActionPrediction else "predict_action_chunk"
    assert torch.equal(getattr(model, verb)(**inputs), getattr(reloaded.eval(), verb)(**inputs))


def test_pretraining_checkpoint_lacks_only_the_action_decoder(latent_model, processor, images, texts, tmp_path):
    latent_model.save_pretrained(tmp_path)
    model, info = CycleMimicForActionPrediction.from_pretrained(tmp_path, output_loading_info=True)
    expected = {name for name in model.state_dict() if name.startswith("action_decoder.")}
    assert set(info["missing_keys"]) == expected
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    inputs = processor(images, texts)
    assert torch.equal(model.eval().predict_latent_actions(**inputs), latent_model.predict_latent_actions(**inputs))
    # The new parts start as in a model made from scratch, not as whatever memory held.
    assert 0.1 < model.action_decoder.context_positions[:16].std() < 1.0
    assert model.action_decoder.layers[0].q_proj.weight.std().item() == pytest.approx(1 / 32**0.5, rel=0.2)


def test_auto_class_loads_the_deployed_policy(action_model, tmp_path):
    action_model.save_pretrained(tmp_path)
    assert type(AutoModel.from_pretrained(tmp_path)) is CycleMimicForActionPrediction


def test_tied_embeddings(config, tmp_path):
    config.backbone_config.tie_word_embeddings = config.backbone_config.text_config.tie_word_embeddings = True
    model = CycleMimicForLatentActionPrediction(config)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    reloaded, info = CycleMimicForLatentActionPrediction.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert reloaded.get_output_embeddings().weight is reloaded.get_input_embeddings().weight


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_reach_all_that_trains(stage, config, batch):
    model = stage(config)
    inputs = batch if stage is CycleMimicForActionPrediction else without_actions(batch)
    model(**inputs).loss.backward()
    without = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert not without


def test_action_loss_reaches_the_first_convolution(action_model, batch):
    action_model(**batch).action_loss.backward()
    first = action_model.backbone.model.vision_tower.convolutions[0]
    assert first.weight.grad.abs().sum() > 0


def test_gradient_checkpointing_changes_nothing(config, batch):
    model = CycleMimicForActionPrediction(config).train()
    plain = model(**batch).loss
    model.gradient_checkpointing_enable()
    loss = model(**batch).loss
    loss.backward()
    assert torch.allclose(plain, loss)


def overfit(model, batch, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.train()(**batch).loss
        loss.backward()
        optimizer.step()
    return loss.item()


def test_overfit_latent_actions(config, processor, images, texts, codes):
    model = CycleMimicForLatentActionPrediction(config)
    assert overfit(model, processor(images, texts, codes), steps=60) < 0.05
    assert model.eval().predict_latent_actions(**processor(images, texts)).tolist() == codes.tolist()


def test_overfit_actions(config, processor, images, codes, actions):
    model = CycleMimicForActionPrediction(config)
    texts = ["reach"] * 3  # only the image tells the samples apart
    overfit(model, processor(images, texts, codes, actions), steps=150)
    predicted = model.eval().predict_action_chunk(**processor(images, texts))
    physical = processor.post_process_actions(predicted, "arm")
    assert np.abs(physical - actions).mean() < 0.1


def test_tanh_bounds_the_actions(config, batch):
    config.action_activation = "tanh"
    model = CycleMimicForActionPrediction(config)
    torch.nn.init.constant_(model.action_decoder.head[2].bias, 9.0)
    assert model(**batch).actions.abs().max() <= 1.0


def test_trainer(config, processor, images, texts, codes, actions, tmp_path):
    samples = [
        {"image": image, "text": text, "latent": latent, "chunk": chunk}
        for image, text, latent, chunk in zip(images, texts, codes, actions)
    ]

    def collate(items):
        columns = [[item[key] for item in items] for key in ("image", "text", "latent", "chunk")]
        return dict(processor(*columns))

    seen = {}
    arguments = TrainingArguments(
        tmp_path,
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = Trainer(
        CycleMimicForActionPrediction(config),
        arguments,
        data_collator=collate,
        train_dataset=samples,
        eval_dataset=samples,
        processing_class=processor,
        compute_metrics=lambda prediction: seen.update(shapes=[np.shape(part) for part in prediction[0]]) or {},
    )
    trainer.train()
    vocab_size = config.get_text_config().vocab_size
    assert 0 < trainer.evaluate()["eval_loss"] < 20
    assert {(3, 5, 4), (3, 4, vocab_size)} <= set(seen["shapes"])
    trainer.save_model(tmp_path / "last")
    CycleMimicForActionPrediction.from_pretrained(tmp_path / "last")


def test_from_backbone(config, processor, images, texts, codes, tmp_path):
    config.backbone_config.text_config.vocab_size -= 10
    backbone = AutoModelForImageTextToText.from_config(config.backbone_config)
    backbone.save_pretrained(tmp_path)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = CycleMimicForActionPrediction.from_backbone(str(tmp_path), processor, action_decoder_hidden_size=64)
    assert model.config.get_text_config().vocab_size == len(processor.tokenizer)
    new_ids = processor.latent_token_ids + processor.act_token_ids
    old_ids = [token for token in range(len(processor.tokenizer)) if token not in new_ids]
    for name, value in model.backbone.state_dict().items():
        if "embed_tokens" in name or "lm_head" in name:
            assert torch.equal(value[old_ids], before[name][old_ids])
            spread = value[old_ids].std(dim=0).mean()
            rows = value[new_ids] - value[old_ids].mean(dim=0)
            assert 0.05 * spread < rows.std() < 0.2 * spread
            assert len(value[new_ids].unique(dim=0)) == len(new_ids)
        else:
            assert torch.equal(value, before[name]), name
    assert torch.isfinite(model(**processor(images, texts, codes)).latent_action_loss)
    assert model.backbone.config._attn_implementation == "sdpa"
    model.save_pretrained(tmp_path / "policy")
    reloaded = CycleMimicForActionPrediction.from_pretrained(tmp_path / "policy").eval()
    prompt = processor(images, texts)
    assert torch.equal(model.eval().predict_action_chunk(**prompt), reloaded.predict_action_chunk(**prompt))


@pytest.mark.parametrize("tied", [False, True])
def test_from_backbone_pads_the_vocabulary(config, processor, images, texts, codes, tied, tmp_path):
    text = config.backbone_config.text_config
    text.vocab_size -= 10
    config.backbone_config.tie_word_embeddings = text.tie_word_embeddings = tied
    backbone = AutoModelForImageTextToText.from_config(config.backbone_config)
    before = backbone.get_input_embeddings().weight.detach().clone()
    model = CycleMimicForLatentActionPrediction.from_backbone(backbone, processor, pad_to_multiple_of=64)
    size = -(-len(processor.tokenizer) // 64) * 64
    fresh = sorted({*processor.latent_token_ids, *processor.act_token_ids, *range(len(before), size)})
    known = [token for token in range(size) if token not in fresh]
    for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert len(weight) == size
        spread = weight[known].std(dim=0).mean()
        rows = weight[fresh] - weight[known].mean(dim=0)
        assert 0.05 * spread < rows.std() < 0.2 * spread and len(weight[fresh].unique(dim=0)) == len(fresh)
    assert torch.equal(model.get_input_embeddings().weight[known], before[known])
    assert model.config.get_text_config().vocab_size == size
    assert torch.isfinite(model(**processor(images, texts, codes)).loss)
    model.save_pretrained(tmp_path)
    assert not any(type(model).from_pretrained(tmp_path, output_loading_info=True)[1].values())


def test_what_sees_no_images_is_no_backbone(config, processor):
    backbone = AutoModelForImageTextToText.from_config(config.backbone_config)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    blind = LlamaForCausalLM(LlamaConfig(vocab_size=len(processor.tokenizer), **sizes))
    for given, message in (
        ((blind, processor), "`backbone` must be a model of images and text.* got LlamaForCausalLM"),
        ((torch.nn.Linear(2, 2), processor), "`backbone` must be a model of images and text.* got Linear"),
        ((backbone, processor.tokenizer), "`processor` must be a CycleMimicProcessor, got GPT2Tokenizer"),
    ):
        with pytest.raises(ValueError, match=message):
            CycleMimicForLatentActionPrediction.from_backbone(*given)


def test_from_backbone_keeps_the_precision(config, processor):
    backbone = AutoModelForImageTextToText.from_config(config.backbone_config).to(torch.bfloat16)
    model = CycleMimicForActionPrediction.from_backbone(backbone, processor, action_decoder_hidden_size=64)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.latent_token_ids.dtype == torch.int64


@pytest.mark.parametrize("attention", [None, "eager"])
def test_from_backbone_keeps_the_attention_and_its_mask(config, processor, images, texts, codes, attention, tmp_path):
    backbone = AutoModelForImageTextToText.from_config(config.backbone_config, attn_implementation=attention)
    model = CycleMimicForLatentActionPrediction.from_backbone(backbone, processor).eval()
    language_model = model.backbone.model.language_model
    assert {model.config._attn_implementation, language_model.config._attn_implementation} == {attention or "sdpa"}
    logits = model(**processor(images, texts, codes)).logits
    other_codes = codes.copy()
    other_codes[:, -1] = (codes[:, -1] + 1) % 16
    # No prediction sees the token that it is of.
    assert torch.equal(model(**processor(images, texts, other_codes)).logits, logits)
    model.save_pretrained(tmp_path)
    loaded = CycleMimicForLatentActionPrediction.from_pretrained(tmp_path)
    assert torch.allclose(loaded(**processor(images, texts, codes)).logits, logits, atol=1e-5)


def test_bad_arguments(config, processor, batch, action_model):
    with pytest.raises(
        ValueError, match="without latent actions or actions, got \\['actions', 'actions_mask', 'labels'\\]"
    ):
        action_model.predict_action_chunk(**batch)
    prompt = {name: batch[name] for name in ("input_ids", "pixel_values", "attention_mask")}
    assert action_model(**prompt).actions.shape == (3, 5, 4), "with the latent action, as in training"
    prompt["input_ids"] = torch.where(batch["labels"] == -100, prompt["input_ids"], 0)
    with pytest.raises(
        ValueError, match=r"must hold the 4 tokens of a latent action, got \[0, 0, 0\] a row.*predict_action"
    ):
        action_model(**prompt)
    backbone = AutoModelForImageTextToText.from_config(config.backbone_config)
    with pytest.raises(ValueError, match="`pad_to_multiple_of` must be at least 1, got 0"):
        CycleMimicForActionPrediction.from_backbone(backbone, processor, pad_to_multiple_of=0)
    backbone.config.image_token_id = 3
    with pytest.raises(ValueError, match="must use the backbone's image token \\(id 3\\), got '<image>'"):
        CycleMimicForActionPrediction.from_backbone(backbone, processor)
    config.num_image_tokens = None
    with pytest.raises(ValueError, match="must hold `num_image_tokens`"):
        CycleMimicForActionPrediction(config)
    config.latent_token_ids = None
    with pytest.raises(ValueError, match="`latent_token_ids` and `act_token_ids`"):
        CycleMimicForLatentActionPrediction(config)


def test_from_backbone_keeps_the_action_decoder_out_of_float16(config, processor):
    backbone = AutoModelForImageTextToText.from_config(config.backbone_config).to(torch.float16)
    model = CycleMimicForActionPrediction.from_backbone(backbone, processor, action_decoder_hidden_size=64)
    assert {weight.dtype for weight in model.action_decoder.parameters()} == {torch.float32}
    assert {weight.dtype for weight in model.backbone.parameters()} == {torch.float16}


def test_each_step_looks_by_its_own_query_and_the_act_states(action_model, batch):
    decoder = action_model.action_decoder
    given, asked = record_inputs(decoder), record_inputs(decoder.layers[0])
    action_model(**batch)
    (visual, act), (queries, context) = given[0], asked[0]
    act = decoder.act_proj(decoder.act_norm(act))
    torch.testing.assert_close(queries, decoder.step_queries + act.mean(dim=1, keepdim=True))
    seen = torch.cat([decoder.visual_proj(decoder.visual_norm(visual)), act], dim=1)
    torch.testing.assert_close(context, seen + decoder.context_positions)


@pytest.mark.parametrize("shape", [(3, 1, 2), (3, 6, 1), (3, 5, 2), (1, 5, 4)])
def test_actions_of_another_shape_are_refused(action_model, batch, shape):
    sizes = action_model.config.chunk_size, action_model.config.action_dim
    assert (3, *sizes) != shape
    message = rf"`actions` must have shape \(3, {sizes[0]}, {sizes[1]}\), got \({shape[0]}, {shape[1]}, {shape[2]}\)"
    with pytest.raises(ValueError, match=message):
        action_model(**{**batch, "actions": torch.zeros(shape)})


@pytest.mark.parametrize("shape", [(1, 5), (3, 5, 1), (3, 1), (5,)])
def test_masks_of_another_shape_are_refused(shape, action_model, batch):
    with pytest.raises(ValueError, match=r"`actions_mask` must have shape \(3, 5\), got"):
        action_model(**{**batch, "actions_mask": torch.ones(shape, dtype=torch.bool)})


def test_a_new_action_decoder_is_kept_out_of_float16_too(latent_model, tmp_path):
    latent_model.save_pretrained(tmp_path)
    model = CycleMimicForActionPrediction.from_pretrained(tmp_path, dtype=torch.float16)
    assert {weight.dtype for weight in model.action_decoder.parameters()} == {torch.float32}
    assert {weight.dtype for weight in model.backbone.parameters()} == {torch.float16}
