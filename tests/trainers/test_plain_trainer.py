# SPDX-License-Identifier: Apache-2.0
"""What transformers documents of its own `Trainer`, on our models without our trainers, collators or arguments."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EvalPrediction, PreTrainedModel, Trainer, TrainingArguments, set_seed

from .small_trainers import make_policy_trainer, make_tokenizer_trainer, small_run

NUM_SAMPLES = 8
MAKERS: dict[str, Callable[[Path], Trainer]] = {
    "tokenizer": make_tokenizer_trainer,
    "pretraining": lambda folder: make_policy_trainer(folder, finetunes=False),
    "fine-tuning": make_policy_trainer,
}


@pytest.fixture(scope="module", autouse=True)
def quick_garbage_collection() -> Iterator[None]:
    """Every training ends with one; looking through all that is imported would take most of the time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(params=MAKERS)
def make_trainer(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Trainer]:
    """Makes a plain Trainer of always the same model and samples, which need no collator of ours."""
    own = MAKERS[request.param](tmp_path / "own")
    batch = own.data_collator([own.train_dataset[index] for index in range(NUM_SAMPLES)])
    # A column that no model takes is left out.
    samples = [{name: values[row] for name, values in batch.items()} | {"row": row} for row in range(NUM_SAMPLES)]
    weights = {name: value.clone() for name, value in own.model.state_dict().items()}

    def make(folder: str = "run", config_changes: dict[str, Any] | None = None, **changes: Any) -> Trainer:
        config = copy.deepcopy(own.model.config)
        for name, value in (config_changes or {}).items():
            setattr(config, name, value)
        model = type(own.model)(config)
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
        # Left alone, transformers writes the weights of its own LLaVA under older names, which its Trainer does not know
        # when it loads a checkpoint. Our trainers see to it.
        model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
        plain = {"learning_rate": 1e-2, "optim": "sgd", "lr_scheduler_type": "constant"}
        arguments = TrainingArguments(**small_run(tmp_path / folder, **plain) | changes)
        return Trainer(
            model, arguments, train_dataset=samples, eval_dataset=samples[:4], processing_class=own.processing_class
        )

    return make


def train(trainer: Trainer, **arguments: Any) -> None:
    set_seed(0)  # where AC3 draws latent actions
    trainer.train(**arguments)


def losses_of(trainer: Trainer, name: str = "loss") -> dict[int, float]:
    """The logged ones, a step each."""
    return {line["step"]: line[name] for line in trainer.state.log_history if name in line}


def assert_same_weights(model: PreTrainedModel, other: PreTrainedModel, tolerance: float = 0.0) -> None:
    weights = other.state_dict()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, weights[name], rtol=0.0, atol=tolerance), name


def test_training_saves_what_loads(make_trainer):
    trainer = make_trainer(max_steps=30, logging_steps=10, save_strategy="no", optim="adamw_torch", learning_rate=1e-3)
    train(trainer)
    losses = list(losses_of(trainer).values())
    assert losses[-1] < losses[0]
    trainer.save_model()
    assert_same_weights(trainer.model, type(trainer.model).from_pretrained(trainer.args.output_dir))
    processor = type(trainer.processing_class).from_pretrained(trainer.args.output_dir)
    assert processor.to_dict() == trainer.processing_class.to_dict()


def test_evaluation_and_prediction(make_trainer):
    trainer = make_trainer(per_device_eval_batch_size=2)
    rows = trainer.eval_dataset
    batches = [trainer.get_eval_dataloader().collate_fn(rows[start : start + 2]) for start in (0, 2)]
    with torch.no_grad():
        outputs = [trainer.model.eval()(**batch) for batch in batches]
    expected = np.mean([output.loss.item() for output in outputs])
    # The tokenizer's depends, by little, on the latent actions that AC3 draws.
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-3)
    prediction = trainer.predict(rows)
    assert prediction.metrics["test_loss"] == pytest.approx(expected, rel=1e-3)
    left_out = getattr(trainer.model.config, "keys_to_ignore_at_inference", ())
    names = [name for name in list(outputs[0])[1:] if name not in left_out]
    # Of one output alone, Trainer makes no tuple.
    parts = (prediction.predictions,) if len(names) == 1 else prediction.predictions
    predicted = dict(zip(names, parts, strict=True))
    name = next(name for name in ("actions", "codes", "logits") if name in predicted)
    np.testing.assert_allclose(predicted[name], torch.cat([output[name] for output in outputs]), atol=1e-5)
    assert trainer.label_names == ([] if "codes" in predicted else ["labels"])
    if trainer.label_names:
        np.testing.assert_array_equal(prediction.label_ids, torch.stack([row["labels"] for row in rows]))


@pytest.mark.parametrize("make_trainer", ["fine-tuning"], indirect=True)
def test_other_labels_reach_the_metrics(make_trainer):
    trainer = make_trainer(label_names=["labels", "actions"])

    def mean_error(prediction: EvalPrediction) -> dict[str, float]:
        shown = next(part for part in prediction.predictions if np.shape(part) == prediction.label_ids[1].shape)
        return {"error": float(np.abs(shown - prediction.label_ids[1]).mean())}

    trainer.compute_metrics = mean_error
    with torch.no_grad():
        output = trainer.model.eval()(**next(iter(trainer.get_eval_dataloader())))
    # No chunk of these samples ends early.
    assert trainer.evaluate()["eval_error"] == pytest.approx(output.action_loss.item(), abs=1e-5)


def test_resumed_equals_uninterrupted(make_trainer):
    whole = make_trainer("whole")
    train(whole)
    train(make_trainer("parts", max_steps=2))
    resumed = make_trainer("parts")
    train(resumed, resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    assert_same_weights(whole.model, resumed.model)


def test_gradient_accumulation(make_trainer):
    once = {"max_steps": 1, "save_strategy": "no"}
    if hasattr(make_trainer().model.config, "motion_weight"):
        # What a batch of the tokenizer's has of its own: motions by which pixels weigh, statistics, draws of actions.
        of_batch = ("motion_weight", "cycle_weight", "adversarial_weight", "dead_code_steps")
        once["config_changes"] = dict.fromkeys(of_batch, 0) | {"standardize_embeddings": False}
    whole = make_trainer(**once, per_device_train_batch_size=4)
    parts = make_trainer(**once, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    before = copy.deepcopy(whole.model)
    for trainer in (whole, parts):
        train(trainer)
    assert_same_weights(whole.model, parts.model, 1e-6)
    with pytest.raises(AssertionError):
        assert_same_weights(whole.model, before, 1e-6)


def test_gradient_checkpointing_and_mixed_precision(make_trainer):
    changes = ({}, {"gradient_checkpointing": True}, {"bf16": True})
    plain, checkpointed, mixed = (make_trainer(save_strategy="no", **change) for change in changes)
    for trainer in (plain, checkpointed, mixed):
        train(trainer)
    assert_same_weights(plain.model, checkpointed.model, 1e-5)
    assert {parameter.dtype for parameter in mixed.model.parameters()} == {torch.float32}
    for step, loss in losses_of(plain).items():
        assert losses_of(mixed)[step] == pytest.approx(loss, rel=0.05) and losses_of(mixed)[step] != loss


def test_best_checkpoint_is_loaded(make_trainer):
    each_step = {"eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 3}
    # What is asked for is the worst: the first, which the last can be told from.
    trainer = make_trainer(**each_step, load_best_model_at_end=True, greater_is_better=True)
    train(trainer)
    losses = losses_of(trainer, "eval_loss")
    best = max(losses, key=losses.get)
    assert len(losses) == 3 and best < 3
    assert Path(trainer.state.best_model_checkpoint).name == f"checkpoint-{best}"
    assert_same_weights(trainer.model, type(trainer.model).from_pretrained(trainer.state.best_model_checkpoint))


@pytest.mark.parametrize("make_trainer", ["fine-tuning"], indirect=True)
def test_a_batch_size_is_found_that_fits(make_trainer):
    trainer = make_trainer(auto_find_batch_size=True, per_device_train_batch_size=8, save_strategy="no")
    sizes = []

    def refuse_large_batches(module, args, kwargs):
        sizes.append(len(kwargs["pixel_values"]))
        if sizes[-1] > 7:
            raise RuntimeError("CUDA out of memory.")

    trainer.model.register_forward_pre_hook(refuse_large_batches, with_kwargs=True)
    train(trainer)
    assert trainer.state.global_step == 4 and sizes[0] == 8 and max(sizes[1:]) <= 7
