# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from cyclemimic import (
    CycleMimicProcessor,
    CycleMimicTrainer,
    CycleMimicTrainingArguments,
    LatentActionTokenizerTrainer,
)
from cyclemimic.data import CycleMimicCollator, DemonstrationDataset, Episode, FramePairDataset, InMemorySource

from .small_trainers import make_labels, make_policy_trainer, make_sources, make_tokenizer_trainer, small_run


@pytest.mark.parametrize("finetunes", [False, True])
def test_a_run_logs_every_term_and_saves_what_loads(finetunes, tmp_path):
    trainer = make_policy_trainer(tmp_path, finetunes)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert ("latent_action_loss" in line, "action_loss" in line) == (finetunes, finetunes)
        if finetunes:
            assert line["loss"] == pytest.approx(line["latent_action_loss"] + line["action_loss"], abs=1e-3)
        positions = [line[f"latent_token_accuracy_{position}"] for position in range(4)]
        assert line["latent_token_accuracy"] == pytest.approx(np.mean(positions), abs=1e-5)
        assert 0 <= line["latent_action_accuracy"] <= min(positions)
    assert 0 < trainer.evaluate()["eval_loss"] < 20

    trainer.save_model(str(tmp_path / "last"))
    reloaded = type(trainer.model).from_pretrained(tmp_path / "last")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, reloaded.state_dict()[name]), name
    assert CycleMimicProcessor.from_pretrained(tmp_path / "last").chunk_size == 3


def test_actions_are_not_rounded_by_deepspeed(tmp_path, monkeypatch):
    trainer = make_policy_trainer(tmp_path, True)
    batch = next(iter(trainer.get_train_dataloader()))
    plugin = SimpleNamespace(hf_ds_config=SimpleNamespace(dtype=lambda: torch.bfloat16))
    monkeypatch.setattr(trainer, "is_deepspeed_enabled", True)
    monkeypatch.setattr(trainer, "accelerator", SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin)))
    prepared = trainer._prepare_inputs(batch)
    assert torch.equal(prepared["actions"], batch["actions"]) and prepared["actions"].dtype == torch.float32
    assert prepared["pixel_values"].dtype == torch.bfloat16
    assert prepared["input_ids"].dtype == torch.int64 and list(prepared) == list(batch)


def test_backbone_learning_rate(tmp_path):
    trainer = make_policy_trainer(tmp_path, True, backbone_learning_rate=1e-4, weight_decay=0.1)
    optimizer = trainer.create_optimizer()
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    seen = []
    for group in optimizer.param_groups:
        of_backbone = {names[parameter].startswith("backbone.") for parameter in group["params"]}
        assert of_backbone == {group["lr"] == 1e-4} and group["lr"] in (1e-4, 1e-3)
        assert group["weight_decay"] in (0.0, 0.1)
        seen += [names[parameter] for parameter in group["params"]]
    assert sorted(seen) == sorted(names.values())
    assert trainer.create_optimizer() is optimizer and len(optimizer.param_groups) == 4


def test_backbone_stays_where_its_learning_rate_is_zero(tmp_path):
    trainer = make_policy_trainer(tmp_path, True, backbone_learning_rate=0.0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("action_decoder.")), name


@pytest.mark.parametrize("finetunes", [False, True])
def test_resumed_equals_uninterrupted(finetunes, tmp_path):
    # The schedule of the learning rate is constant: the same for a run of four steps and one that stops after two.
    whole = make_policy_trainer(tmp_path / "whole", finetunes)
    whole.train()
    make_policy_trainer(tmp_path / "parts", finetunes, max_steps=2).train()
    resumed = make_policy_trainer(tmp_path / "parts", finetunes)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    expected, actual = whole.model.state_dict(), resumed.model.state_dict()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    assert whole.state.log_history[-2]["loss"] == resumed.state.log_history[-2]["loss"]


@pytest.mark.parametrize("lora_rank", [None, 2])
def test_frozen_vision_stays_bit_identical(lora_rank, tmp_path):
    trainer = make_policy_trainer(tmp_path, freeze_vision=True, lora_rank=lora_rank, save_strategy="no")
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    towers = {name for name in before if "vision_tower" in name}
    assert towers and not towers & changed and not any("lora" in name for name in towers)
    assert any("multi_modal_projector" in name for name in changed) and any("layers.0" in name for name in changed)


def test_a_model_made_by_the_trainer(tmp_path):
    trainer = make_policy_trainer(tmp_path, True)
    parts = {name: getattr(trainer, name) for name in ("args", "train_dataset", "data_collator", "processing_class")}
    made = CycleMimicTrainer(model_init=lambda: trainer.model, **parts)
    made.train()
    assert made.state.global_step == trainer.args.max_steps
    trainer.args.freeze_backbone = True
    with pytest.raises(ValueError, match="`model` must be given with `lora_rank`, `freeze_backbone` or"):
        CycleMimicTrainer(model_init=lambda: trainer.model, **parts)


def test_a_loss_of_ones_own(tmp_path):
    trainer, calls = make_policy_trainer(tmp_path, False), []

    def loss(outputs, labels, num_items_in_batch=None):
        calls.append(labels.shape)
        return outputs.logits.square().mean()

    trainer.compute_loss_func = loss
    trainer.train()
    assert len(calls) == trainer.args.max_steps


def test_the_collator_learns_of_every_epoch(tmp_path, monkeypatch):
    trainer = make_policy_trainer(tmp_path, save_strategy="no")
    epochs: list[int] = []
    monkeypatch.setattr(trainer.data_collator, "set_epoch", epochs.append)
    trainer.train()  # four steps, of which an epoch has three
    assert epochs == [0, 1]


def test_evaluation_sees_images_and_tokens_as_they_are(tmp_path):
    trainer = make_policy_trainer(tmp_path)
    collator = trainer.data_collator
    items = [trainer.eval_dataset[index] for index in range(4)]
    (seen,) = trainer.get_eval_dataloader()
    expected, augmented = collator.for_evaluation()(items), collator(items)
    for name in ("pixel_values", "input_ids"):
        assert torch.equal(seen[name], expected[name]) and not torch.equal(seen[name], augmented[name])
    assert trainer.data_collator is collator


def test_adapters_drop_what_the_arguments_say(tmp_path):
    trainer = make_policy_trainer(tmp_path, lora_rank=4, lora_alpha=8, lora_dropout=0.25)
    config = trainer.model.active_peft_config
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.25)


def test_arguments_are_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = make_policy_trainer(tmp_path)
    for trainer_class, model in ((CycleMimicTrainer, parts.model), (LatentActionTokenizerTrainer, None)):
        with pytest.raises(ValueError, match=f"`args` must be {trainer_class.arguments_class.__name__}, got Training"):
            trainer_class(model, TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"))
    given = {"train_dataset": parts.train_dataset, "data_collator": parts.data_collator}
    trainer = CycleMimicTrainer(parts.model, **given)
    assert isinstance(trainer.args, CycleMimicTrainingArguments)
    assert trainer.create_optimizer() is trainer.optimizer


def test_a_learning_rate_that_nobody_would_read_is_refused(tmp_path):
    parts = make_policy_trainer(tmp_path)
    arguments = CycleMimicTrainingArguments(**small_run(tmp_path, backbone_learning_rate=0.0))
    optimizer = torch.optim.AdamW(parts.model.parameters())
    with pytest.raises(ValueError, match="`backbone_learning_rate` must be left out with an optimizer of your own"):
        CycleMimicTrainer(
            parts.model, arguments, parts.data_collator, parts.train_dataset, optimizers=(optimizer, None)
        )


def test_what_is_collected_in_prediction_has_a_row_a_sample(tmp_path):
    trainer = make_policy_trainer(tmp_path, True)
    found = trainer.predict(trainer.eval_dataset).predictions
    assert [len(each) for each in found] == [4, 4] and found[0].shape == (4, 3, 2)


@pytest.mark.parametrize("changes", [{"freeze_vision": True}, {"backbone_learning_rate": 1e-4}])
def test_a_run_of_other_weights_or_rates_is_not_gone_on_with(tmp_path, changes):
    make_policy_trainer(tmp_path).train()
    other = make_policy_trainer(tmp_path, max_steps=6, **changes)
    with pytest.raises(ValueError, match="`resume_from_checkpoint` must be of a run that trained the same weights"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def parts_of(trainer):
    return {name: getattr(trainer, name) for name in ("model", "args", "train_dataset", "processing_class")}


def test_the_collator_follows_from_the_arguments(tmp_path):
    parts = parts_of(make_policy_trainer(tmp_path))
    made = CycleMimicTrainer(**parts)
    assert made.data_collator == CycleMimicCollator(parts["processing_class"], None, 2, 0.3)
    made.train()


@pytest.mark.parametrize("name", ["image_shift", "corrupted_share"])
def test_what_the_collator_does_not_do_is_refused(name, tmp_path):
    trainer = make_policy_trainer(tmp_path)
    collator = replace(trainer.data_collator, **{name: 0})
    with pytest.raises(
        ValueError, match=f"`data_collator` must have the `{name}` that `args` ask for, [0-9.]+, got 0"
    ):
        CycleMimicTrainer(**parts_of(trainer), data_collator=collator)


def test_a_processor_of_another_policy_is_refused(tmp_path):
    trainer = make_policy_trainer(tmp_path)
    # Another vocabulary, so that the words of a latent action have other ids.
    other = CycleMimicProcessor.from_texts(["task 0"], image_size=16, patch_size=8, chunk_size=3, action_dim=2)
    with pytest.raises(ValueError, match="processor must have the model's `latent_token_ids`, "):
        CycleMimicTrainer(**parts_of(trainer) | {"processing_class": other})
    with pytest.raises(ValueError, match="processor must have the model's `latent_token_ids`, "):
        CycleMimicTrainer(**parts_of(trainer), data_collator=CycleMimicCollator(other, "arm", 2, 0.3))


@pytest.mark.parametrize(("chunk_size", "found"), [(None, "no actions"), (5, "5")])
def test_a_policy_does_not_learn_to_act_without_chunks_of_its_length(chunk_size, found, tmp_path):
    trainer, sources = make_policy_trainer(tmp_path), make_sources()
    frames = DemonstrationDataset(sources[:1], make_labels(sources), chunk_size=chunk_size)
    allowed = f"`train_dataset` must have chunks of actions of the model's `chunk_size`, 3, got {found}"
    for given in (frames, torch.utils.data.Subset(frames, range(4))):
        with pytest.raises(ValueError, match=allowed):
            CycleMimicTrainer(**parts_of(trainer) | {"train_dataset": given})
    trainer.args.freeze_backbone = True
    with pytest.raises(ValueError, match=allowed):
        CycleMimicTrainer(**parts_of(trainer) | {"train_dataset": frames})


def filmed_by(camera):
    frames = np.zeros((8, 16, 16, 3), np.uint8)
    episodes = [Episode.from_arrays(frames, 10.0, "task 0", source="arm", camera=camera, index=i) for i in range(2)]
    return InMemorySource(episodes)


@pytest.mark.parametrize(
    ("cameras", "swapped"),
    [
        (["front", "wrist"], None),
        (["observation.images.front", "observation.images.wrist"], None),
        (["image", "image_1"], None),
        (["wrist", "front"], "wrist as number 1"),
        (["observation.images.top", "observation.images.front"], "observation.images.front as number 2"),
    ],
)
def test_cameras_are_in_the_order_of_the_models(cameras, swapped, tmp_path):
    parts = parts_of(make_policy_trainer(tmp_path, False))
    model, processor = parts["model"], parts["processing_class"]
    model.config.camera_names = processor.camera_names = ["front", "wrist"]
    main, other = map(filmed_by, cameras)
    frames = DemonstrationDataset([main], make_labels([main]), further_cameras=[[other]])
    for name in ("train_dataset", "eval_dataset"):
        given = parts | {"train_dataset": None, name: frames}
        if swapped is None:
            CycleMimicTrainer(**given)
            continue
        message = (
            rf"`{name}` must have the cameras of .* `camera_names` in their order, \['front', 'wrist'\], got {swapped}"
        )
        with pytest.raises(ValueError, match=message):
            CycleMimicTrainer(**given)


def test_what_makes_no_batches_is_refused(tmp_path):
    parts = parts_of(make_policy_trainer(tmp_path))
    pairs = FramePairDataset(make_sources(), 0.3, 0.1)
    image_processor = make_tokenizer_trainer(tmp_path).processing_class
    allowed = "must be a DemonstrationDataset or LabelledMixture, or come with a `data_collator`, got FramePair"
    for changes, message in (
        ({"train_dataset": pairs}, f"`train_dataset` {allowed}"),
        ({"eval_dataset": pairs}, f"`eval_dataset` {allowed}"),
        (
            {"processing_class": None},
            "`processing_class` must be given where `train_dataset` is a Demonstr.*, got None",
        ),
        ({"processing_class": image_processor}, "`processing_class` must be a CycleMimicProcessor, got LatentAction"),
    ):
        with pytest.raises(ValueError, match=message):
            CycleMimicTrainer(**parts | changes)
