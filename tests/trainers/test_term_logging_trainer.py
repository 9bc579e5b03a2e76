# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainingArguments
from transformers.utils import ModelOutput

from cyclemimic.trainers.term_logging_trainer import TermLoggingTrainer, _TermMeans

from .small_trainers import small_run

EVALUATED = [{"value": value} for value in (100.0, 200.0, 600.0)]


@dataclass
class ToyOutput(ModelOutput):
    loss: torch.Tensor | None = None
    term: torch.Tensor | None = None
    vector: torch.Tensor | None = None
    absent: torch.Tensor | None = None


class ToyModel(torch.nn.Module):
    """The term is the mean of the batch, the loss three times that, whatever the weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, value: torch.Tensor) -> ToyOutput:
        term = value.mean() + 0 * self.weight
        return ToyOutput(loss=3 * term, term=term, vector=torch.stack([term, 3 * term]))


class ToyTrainer(TermLoggingTrainer):
    logged_terms = ("term", "vector", "absent")


@pytest.fixture
def train(tmp_path):
    def run(**changes) -> ToyTrainer:
        arguments = TrainingArguments(
            **small_run(tmp_path, per_device_train_batch_size=1, save_strategy="no", **changes)
        )
        # In order, so that the batches are known.
        rows = [{"value": float(value)} for value in range(1, 9)]
        trainer = ToyTrainer(ToyModel(), arguments, train_dataset=rows, eval_dataset=EVALUATED)
        trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)
        trainer.train()
        return trainer

    return run


def test_terms_are_means_since_the_last_line(train):
    lines = [line for line in train().state.log_history if "loss" in line]
    # Batches 1, 2 and 3, 4.
    assert [line["term"] for line in lines] == [1.5, 3.5]
    assert [line["loss"] for line in lines] == pytest.approx([4.5, 10.5])
    assert not any("absent" in line for line in lines)


def test_terms_of_models_in_bfloat16_are_not_lost_in_long_sums():
    terms = _TermMeans(["term"])
    for _ in range(3000):
        terms.add(ToyOutput(term=torch.tensor(0.5, dtype=torch.bfloat16)), 8)
    alone = SimpleNamespace(device="cpu", reduce=lambda values: values)
    assert terms.pop(alone) == {"term": 0.5}


def test_terms_may_be_plain_numbers():
    terms = _TermMeans(["term"])
    for value in (0.5, 2):
        terms.add(ToyOutput(loss=torch.tensor(1.0), term=value), 8)
    assert terms.pop(SimpleNamespace(device="cpu", reduce=lambda values: values)) == {"term": 1.25}
    terms.add(ToyOutput(loss=torch.tensor(1.0), term=0.5), 2, lambda rows: rows)
    assert terms.pop(SimpleNamespace(device="cpu", reduce=lambda values: values)) == {"term": 0.5}


def test_evaluated_samples_that_are_repeated_for_another_process_count_once():
    """Two processes, batches of one, three samples: behind the third the second process sees the first once more."""
    gathered = iter([[100.0, 200.0], [600.0]])
    terms = _TermMeans(["term", "absent"])
    for own in (100.0, 600.0):
        terms.add(ToyOutput(term=torch.tensor(own)), 1, lambda rows: torch.tensor(next(gathered)))
    both = SimpleNamespace(device="cpu", reduce=lambda values: 2 * values)
    assert terms.pop(both) == {"term": 300.0}


def test_terms_with_gradient_accumulation(train):
    lines = [line for line in train(gradient_accumulation_steps=2).state.log_history if "loss" in line]
    # Batches 1 to 4 and 5 to 8; the loss of a step is the mean of its batches', not their sum.
    assert [line["term"] for line in lines] == [2.5, 6.5]
    assert [line["loss"] for line in lines] == pytest.approx([7.5, 19.5])


def test_the_pace_is_logged(train):
    for line in train().state.log_history[:2]:
        assert line["samples_per_second"] > 0 and 0 <= line["data_wait"] <= 1 and line["memory_gb"] > 0.01


def test_entries_of_a_vector_are_numbered(train):
    lines = [line for line in train().state.log_history if "loss" in line]
    found = [[line[f"vector{suffix}"] for suffix in ("", "_0", "_1")] for line in lines]
    assert found == [[3.0, 1.5, 4.5], [7.0, 3.5, 10.5]]


def test_evaluation_has_terms_of_its_own_and_leaves_those_of_training(train):
    # The second of its batches is smaller than the first.
    trainer = train(eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=2)
    history = trainer.state.log_history
    assert [line["term"] for line in history if "loss" in line] == [1.5, 3.5]
    evaluations = [line for line in history if "eval_loss" in line]
    assert [line["eval_term"] for line in evaluations] == [300.0] * 4
    assert {line["eval_vector_1"] for line in evaluations} == {900.0}
    assert not any("term" in line or "eval_absent" in line for line in evaluations + history[-1:])
    assert trainer.evaluate(metric_key_prefix="held_out")["held_out_term"] == 300.0
