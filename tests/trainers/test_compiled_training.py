# SPDX-License-Identifier: Apache-2.0
"""Training steps as graphs of torch.compile, captured as for any backend and run as they are."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from cyclemimic.trainers import term_logging_trainer
from cyclemimic.trainers.compiled_layers import compile_layers

from .small_trainers import make_policy_trainer, make_tokenizer_trainer


def loss_and_gradients(model, step):
    torch.manual_seed(1)
    model.zero_grad()
    loss = step().loss
    loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_compiles_whole(model, function, step):
    """`step` calls the function it is given, as it is and in one graph: same loss, same gradients of the same weights."""
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_same_step(model, lambda: step(function), lambda: step(compiled))


def assert_same_step(model, step, compiled_step):
    step()  # transformers prepares some of its models in their first call
    state = copy.deepcopy(model.state_dict())
    expected = loss_and_gradients(model, step)
    model.load_state_dict(state)
    torch.compiler.reset()
    loss, gradients = loss_and_gradients(model, compiled_step)
    assert loss == pytest.approx(expected[0], abs=1e-9)
    assert gradients.keys() == expected[1].keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[1][name], atol=1e-9), name


@pytest.mark.parametrize("ac3_joins", [False, True])
def test_a_tokenizers_step_is_one_graph(ac3_joins, tmp_path):
    model = make_tokenizer_trainer(tmp_path).model.double().train()
    frames, bodies = torch.randn(2, 4, 3, 16, 16, dtype=torch.float64), torch.arange(4) % 2
    assert_compiles_whole(model, model._compute, lambda compute: compute(*frames, bodies, ac3_joins))


@pytest.mark.parametrize("finetunes", [False, True])
def test_a_policys_step_is_one_graph(finetunes, tmp_path):
    trainer = make_policy_trainer(tmp_path, finetunes)
    model = trainer.model.double().train()
    batch = dict(next(iter(trainer.get_train_dataloader())))
    batch["pixel_values"] = batch["pixel_values"].double()
    assert_compiles_whole(model, model.forward, lambda forward: forward(**batch))


def test_layers_compiled_by_themselves_make_the_same_step(tmp_path):
    model = make_tokenizer_trainer(tmp_path).model.double().train()
    frames, bodies = torch.randn(2, 4, 3, 16, 16, dtype=torch.float64), torch.arange(4) % 2

    def step():
        return model._compute(*frames, bodies, True)

    def compiled_step():
        compile_layers(model, backend="aot_eager")
        return step()

    assert_same_step(model, step, compiled_step)


@pytest.fixture
def compiled_parts(monkeypatch) -> list[type]:
    """Layers are compiled in seconds, for no processor in particular; gives the classes of those that are."""
    compile_part, parts = torch.nn.Module.compile, []

    def compile_and_note(part, backend):
        parts.append(type(part))
        compile_part(part, backend="aot_eager")

    monkeypatch.setattr(torch.nn.Module, "compile", compile_and_note)
    return parts


@pytest.mark.parametrize("make_trainer", [make_tokenizer_trainer, make_policy_trainer])
def test_a_compiled_training_is_that_training(make_trainer, tmp_path, compiled_parts):
    histories, weights = [], []
    for changes in ({}, {"torch_compile": True, "torch_compile_backend": "aot_eager"}, {"compile_layers": True}):
        torch.compiler.reset()
        assert not compiled_parts
        trainer = make_trainer(tmp_path / str(len(histories)), save_strategy="no", max_steps=20, **changes)
        trainer.train()
        histories.append([line["loss"] for line in trainer.state.log_history if "loss" in line])
        weights.append(list(trainer.model.state_dict()))
    assert histories[1] == pytest.approx(histories[0], abs=1e-4)
    # By then a last digit may decide for another word of the codebook.
    assert histories[2][:6] == pytest.approx(histories[0][:6], abs=1e-4)
    assert weights[2] == weights[0]
    layers = [type(part) for part in trainer.model.modules() if isinstance(part, GradientCheckpointingLayer)]
    assert compiled_parts == layers and layers


def test_no_layer_is_left_out_for_want_of_room(tmp_path, compiled_parts):
    # What is past dynamo's limit of graphs would run uncompiled, with a warning: here, once AC3 joins, and in evaluation.
    vision = {"model_type": "dinov2", "image_size": 16, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 1}
    run = {"save_strategy": "no", "max_steps": 32, "eval_strategy": "steps", "eval_steps": 15, "compile_layers": True}
    trainer = make_tokenizer_trainer(tmp_path, vision | {"num_attention_heads": 2}, **run)
    trainer.model.config.cycle_start_copy_ratio = 1.0
    for count in (trainer.model.steps, trainer.model.ac3_steps):
        count.zero_()
    torch.compiler.reset()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        trainer.train()
    assert compiled_parts and int(trainer.model.ac3_steps) == 32


def test_layers_are_compiled_once(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`compile_layers` must be false with `torch_compile`, got true"):
        make_tokenizer_trainer(tmp_path, compile_layers=True, torch_compile=True, torch_compile_backend="aot_eager")
    monkeypatch.setattr(term_logging_trainer, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ValueError, match="`compile_layers` must be false with ZeRO-3, got true"):
        make_tokenizer_trainer(tmp_path, compile_layers=True)
