# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from cyclemimic.cards.facts import training_facts

from ..trainers.small_trainers import make_policy_trainer


@pytest.fixture
def trainer(tmp_path):
    return make_policy_trainer(tmp_path, False)


def test_time_of_a_resumed_training_is_of_its_last_part(trainer):
    trainer.train()
    trainer.state.log_history[-1]["train_runtime"] = 1800.0
    assert training_facts(trainer)["time"] == "0.50 h"
    trainer._initial_global_step = 3
    assert training_facts(trainer)["time"] == "0.50 h, of the steps from 3 on"


def test_samples_of_a_step_are_those_of_all_its_batches(tmp_path):
    trainer = make_policy_trainer(tmp_path, False, gradient_accumulation_steps=3, max_steps=1)
    trainer.train()
    assert training_facts(trainer)["steps"] == "1, of 12 samples"


def test_parameters_that_zero3_has_shared_out_count(trainer, monkeypatch):
    trainer.train()
    shared = torch.nn.Parameter(torch.empty(0))
    shared.ds_numel = 7_000_000
    weights = [("shared", shared), ("whole", torch.nn.Parameter(torch.ones(100_000)))]
    monkeypatch.setattr(trainer, "model", SimpleNamespace(named_parameters=lambda: weights))
    assert training_facts(trainer)["parameters"] == "7.1 million"


def test_precision_is_what_was_trained_in_whoever_chose_it(trainer, monkeypatch):
    trainer._initial_global_step = 0
    assert training_facts(trainer)["precision"] == "float32"
    monkeypatch.setattr(type(trainer.accelerator), "mixed_precision", "bf16")
    assert training_facts(trainer)["precision"] == "bf16"
