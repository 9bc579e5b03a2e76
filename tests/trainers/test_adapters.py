# SPDX-License-Identifier: Apache-2.0
"""What of a policy is trained through PEFT, and what is saved of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlavaConfig, SiglipVisionConfig, set_seed

from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    CycleMimicTrainer,
    CycleMimicTrainingArguments,
)
from cyclemimic.trainers.adapters import add_adapter, merged_copy

from .small_trainers import small_run

TEXTS = ["open the drawer", "press the button"]


@pytest.fixture
def processor():
    return CycleMimicProcessor.from_texts(TEXTS, image_size=16, patch_size=8, chunk_size=3, action_dim=2)


@pytest.fixture
def batch(processor):
    processor.add_action_statistics("arm", {"q01": [-1.0, -1.0], "q99": [1.0, 1.0]})
    random = np.random.default_rng(0)
    images = list(random.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8))
    return processor(images, TEXTS, [[3, 0, 15, 7], [7, 7, 1, 2]], random.uniform(-1, 1, (2, 3, 2)))


@pytest.fixture
def make_model(processor):
    def make(tied: bool = False, kind=CycleMimicForActionPrediction):
        set_seed(3)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        backbone = LlavaConfig(
            # With its pooling head, which has attention of torch's own.
            vision_config=SiglipVisionConfig(image_size=16, patch_size=8, **sizes),
            text_config=LlamaConfig(vocab_size=len(processor.tokenizer), tie_word_embeddings=tied, **sizes),
            image_token_index=processor.image_token_id,
            vision_feature_layer=-1,
            vision_feature_select_strategy="full",
            tie_word_embeddings=tied,
        )
        return kind(processor.make_config(backbone, action_decoder_hidden_size=16, action_decoder_num_heads=2))

    return make


def new_ids_of(model):
    return model.config.latent_token_ids + model.config.act_token_ids


def step(adapted, batch):
    """One step of an optimizer that decays all it is given; names of what received a gradient."""
    optimizer = torch.optim.AdamW([weight for weight in adapted.parameters() if weight.requires_grad], lr=0.1)
    for _ in range(2):  # the second half of an adapter starts at zero, and gives the first no gradient before
        optimizer.zero_grad()
        adapted(**batch).loss.backward()
        optimizer.step()
    return {name for name, weight in adapted.named_parameters() if weight.grad is not None and weight.grad.any()}


@pytest.mark.parametrize("tied", [False, True])
def test_exactly_adapters_decoder_and_new_rows_are_trained(make_model, batch, tied):
    model = make_model(tied)
    linear = {
        f"backbone.{name}"
        for name, module in model.backbone.named_modules()
        if isinstance(module, nn.Linear) and "lm_head" not in name and "vision_tower.head.attention" not in name
    }
    assert len(linear) == 6 + 2 + 2 + 7  # vision layer, its pooling head, projector, language layer
    decoder = {name for name, _ in model.action_decoder.named_parameters()}
    adapted = add_adapter(model, rank=4)
    prefix, rows = "base_model.model.", ".token_adapter.trainable_tokens_delta.default"
    expected = {f"{prefix}{name}.lora_{half}.default.weight" for name in linear for half in "AB"}
    expected |= {f"{prefix}action_decoder.modules_to_save.default.{name}" for name in decoder}
    expected |= {f"{prefix}backbone.model.language_model.embed_tokens{rows}"}
    expected |= set() if tied else {f"{prefix}backbone.lm_head{rows}"}
    trainable = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
    assert trainable.keys() == expected
    for name, weight in trainable.items():
        assert not name.endswith(rows) or weight.shape == (17, 16)  # K = 16, one ACT
    # The pooling head is not read by the policy.
    unread = {name for name in expected if ".vision_tower.head." in name}
    assert step(adapted, batch) == expected - unread


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rank", [4, None])
def test_other_rows_and_frozen_weights_stay_bit_identical(make_model, batch, tied, rank):
    model = make_model(tied)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids = new_ids_of(model)
    adapted = add_adapter(model, rank)
    step(adapted, batch)
    expected = adapted.eval()(**batch)
    merged = merged_copy(adapted).eval()
    assert type(merged) is CycleMimicForActionPrediction
    others = [token for token in range(len(before["backbone.lm_head.weight"])) if token not in ids]
    for name, value in merged.state_dict().items():
        if "embed_tokens" in name or "lm_head" in name:
            assert torch.equal(value[others], before[name][others])
            assert (value[ids] != before[name][ids]).any(dim=1).all()
        elif name.startswith("action_decoder.") or (rank and f"{name[:-7]}" in adapted_layers(adapted)):
            assert not torch.equal(value, before[name]) or "vision_tower.head" in name, name
        else:
            assert torch.equal(value, before[name]), name
    assert (merged.get_output_embeddings().weight is merged.get_input_embeddings().weight) == tied
    assert torch.allclose(merged(**batch).actions, expected.actions, atol=1e-4)
    assert torch.allclose(merged(**batch).logits, expected.logits, atol=1e-4)
    assert torch.equal(adapted(**batch).actions, expected.actions)


def adapted_layers(adapted):
    return {
        name.removeprefix("base_model.model.").split(".lora_A")[0]
        for name, _ in adapted.named_parameters()
        if ".lora_A." in name
    }


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rank", [4, None])
def test_adapter_is_saved_and_loaded_by_peft(make_model, batch, tied, rank, tmp_path):
    adapted = add_adapter(make_model(tied), rank)
    step(adapted, batch)
    adapted.save_pretrained(tmp_path)
    size = (tmp_path / "adapter_model.safetensors").stat().st_size
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    assert size < 4 * trained + 20_000
    loaded = PeftModel.from_pretrained(make_model(tied), tmp_path).eval()
    expected = adapted.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert [name for name, value in loaded.state_dict().items() if not torch.equal(value, expected[name])] == []
    assert torch.allclose(loaded(**batch).actions, adapted.eval()(**batch).actions, atol=1e-5)


def test_pretraining_has_no_decoder_to_train(make_model, batch):
    adapted = add_adapter(make_model(kind=CycleMimicForLatentActionPrediction))
    trainable = [name for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert len(trainable) == 2 and all("trainable_tokens_delta" in name for name in trainable)


@pytest.fixture
def make_trainer(processor, batch, make_model):
    images = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)

    def collate(indices):
        codes = [[index, 1, 2, 15 - index] for index in indices]
        return dict(
            processor(
                [images[index] for index in indices],
                [TEXTS[index % 2] for index in indices],
                codes,
                np.full((len(indices), 3, 2), 0.1) * np.array(indices)[:, None, None],
            )
        )

    def make(output_dir, **changes):
        arguments = CycleMimicTrainingArguments(**small_run(output_dir, learning_rate=1e-2) | changes)
        model = make_model()
        return CycleMimicTrainer(
            model, arguments, data_collator=collate, train_dataset=list(range(8)), processing_class=processor
        )

    return make


@pytest.mark.parametrize("part", [{"lora_rank": 4, "lora_dropout": 0.1}, {"freeze_backbone": True}])
def test_resumed_equals_uninterrupted_and_the_merged_model_is_saved(make_trainer, part, batch, tmp_path):
    whole = make_trainer(tmp_path / "whole", **part)
    whole.train()
    make_trainer(tmp_path / "parts", max_steps=2, **part).train()
    resumed = make_trainer(tmp_path / "parts", **part)
    resumed.train(resume_from_checkpoint=True)
    expected, actual = whole.model.state_dict(), resumed.model.state_dict()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    assert whole.state.log_history[-2]["loss"] == resumed.state.log_history[-2]["loss"]
    assert not (tmp_path / "parts" / "checkpoint-4" / "model.safetensors").exists()

    whole.save_model(str(tmp_path / "last"))
    reloaded, info = CycleMimicForActionPrediction.from_pretrained(tmp_path / "last", output_loading_info=True)
    assert not any(info.values())
    assert torch.allclose(reloaded.eval()(**batch).actions, whole.model.eval()(**batch).actions, atol=1e-5)
    assert CycleMimicProcessor.from_pretrained(tmp_path / "last").chunk_size == 3
    # The policy was made in memory: there is nothing that an adapter could be put on again.
    assert not (tmp_path / "last" / "adapter").exists()
    # Training may go on: nothing was merged into the model at work.
    assert [name for name, value in whole.model.state_dict().items() if not torch.equal(expected[name], value)] == []


def test_a_compiled_training_is_saved_whole(make_trainer, batch, tmp_path):
    trainer = make_trainer(tmp_path / "run", lora_rank=4)
    trainer.train()
    # As accelerate wraps it with `torch_compile`.
    trainer.model_wrapped = torch.compile(trainer.model, backend="eager")
    trainer.save_model(str(tmp_path / "last"))
    reloaded = CycleMimicForActionPrediction.from_pretrained(tmp_path / "last").eval()
    assert torch.allclose(reloaded(**batch).actions, trainer.model.eval()(**batch).actions, atol=1e-5)


def test_another_part_cannot_be_resumed(make_trainer, tmp_path):
    parts = {
        "in full": {},
        "with `freeze_backbone`": {"freeze_backbone": True},
        "with `lora_rank` 4 and `lora_alpha` 16": {"lora_rank": 4},
        "with `lora_rank` 2 and `lora_alpha` 8": {"lora_rank": 2, "lora_alpha": 8},
    }
    for number, arguments in enumerate(parts.values()):
        make_trainer(tmp_path / str(number), max_steps=1, save_steps=1, **arguments).train()
    for number, found in enumerate(parts):
        for wanted, arguments in parts.items():
            trainer = make_trainer(tmp_path / str(number), max_steps=1, **arguments)
            if wanted == found:
                trainer.train(resume_from_checkpoint=True)
                continue
            with pytest.raises(ValueError) as error:
                trainer.train(resume_from_checkpoint=True)
            message = f"`resume_from_checkpoint` must be of a run {wanted}, as this is, got one {found}."
            assert str(error.value) == message
    trainer = make_trainer(tmp_path / "2", max_steps=1, lora_rank=4, freeze_vision=True)
    with pytest.raises(
        ValueError, match=r"must be of a run with adapters on \d+ layers, as this is \(`freeze_vision`\)"
    ):
        trainer.train(resume_from_checkpoint=True)


def test_learning_rate_of_the_backbone_is_that_of_its_adapters(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, lora_rank=4, backbone_learning_rate=1e-4)
    names = {weight: name for name, weight in trainer.model.named_parameters()}
    optimizer = trainer.create_optimizer()
    for group in optimizer.param_groups:
        are_adapters = {"lora_" in names[weight] for weight in group["params"]}
        assert are_adapters == {group["lr"] == 1e-4}
    others = {names[weight] for group in optimizer.param_groups if group["lr"] != 1e-4 for weight in group["params"]}
    # The rows of new tokens start from nothing, as the decoder does.
    assert {".action_decoder." in name for name in others} == {True, False}
    assert all(".action_decoder." in name or "trainable_tokens" in name for name in others)


def test_adapters_of_ones_own_are_trained_and_saved_whole(make_model, batch, tmp_path):
    model = make_model()
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"], modules_to_save=["action_decoder"]))
    items = [{name: values[row] for name, values in batch.items()} for row in range(2)]
    trainer = CycleMimicTrainer(adapted, CycleMimicTrainingArguments(**small_run(tmp_path)), train_dataset=items)
    trainer.train()
    trainer.save_model(str(tmp_path / "whole"))
    expected = adapted.eval()(**batch).actions
    saved = CycleMimicForActionPrediction.from_pretrained(tmp_path / "whole").eval()
    assert torch.allclose(saved(**batch).actions, expected, atol=1e-5)


@pytest.mark.parametrize("wraps", [True, False])
def test_adapters_are_not_put_on_adapters(make_model, tmp_path, wraps):
    model = make_model()
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    arguments = CycleMimicTrainingArguments(**small_run(tmp_path, lora_rank=4))
    with pytest.raises(ValueError, match="`model` must have no adapters yet where `lora_rank` or `freeze_backbone`"):
        CycleMimicTrainer(adapted if wraps else model, arguments)


def test_adapters_that_could_not_be_saved_are_refused(make_model, tmp_path):
    arguments = CycleMimicTrainingArguments(**small_run(tmp_path))
    model = make_model()
    get_peft_model(model, LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="`model` must be the PeftModel where it has adapters"):
        CycleMimicTrainer(model, arguments)
    with pytest.raises(ValueError, match="`model` must have adapters of LoRA, got IA3"):
        CycleMimicTrainer(
            get_peft_model(make_model(), IA3Config(target_modules=["q_proj"], feedforward_modules=[])), arguments
        )


def test_adapters_of_ones_own_go_on_where_they_were(make_model, batch, tmp_path):
    items = [{name: values[row] for name, values in batch.items()} for row in range(2)]
    states = []
    for steps, resumed in ((4, None), (4, str(tmp_path / "checkpoint-2"))):
        set_seed(5)
        adapted = get_peft_model(make_model(), LoraConfig(target_modules=["q_proj"]))
        trainer = CycleMimicTrainer(
            adapted, CycleMimicTrainingArguments(**small_run(tmp_path, max_steps=steps)), train_dataset=items
        )
        trainer.train(resume_from_checkpoint=resumed)
        states.append({name: weight.clone() for name, weight in adapted.state_dict().items()})
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
