# SPDX-License-Identifier: Apache-2.0
"""A training goes on from a checkpoint with the settings it began with."""

from __future__ import annotations

import json

import pytest

from cyclemimic import CycleMimicTrainingArguments, LatentActionTokenizerTrainingArguments
from cyclemimic.commands.finetune import FinetuneArguments
from cyclemimic.commands.mixture_arguments import MixtureArguments
from cyclemimic.commands.settings import check_same_settings, settings_of


@pytest.fixture
def settings_with(tmp_path):
    def make(data="/here/kitchen", wanted=None, **training):
        arguments = LatentActionTokenizerTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **training)
        return settings_of(arguments, wanted or MixtureArguments([data, "owner/squares@v1"]))

    return make


@pytest.fixture
def checkpoint(tmp_path, settings_with):
    (tmp_path / "settings.json").write_text(json.dumps(settings_with()))
    return str(tmp_path)


def test_settings_are_what_is_learnt_and_how(settings_with):
    settings = settings_with(interval_s=0.8, gradient_accumulation_steps=3, per_device_train_batch_size=4)
    assert settings["data"] == ["kitchen", "squares@v1"] and settings["camera"] is None
    assert (
        settings["samples_a_step"] == 12
        and settings["interval_s"] == 0.8
        and settings["lr_scheduler_type"] == "linear"
    )
    assert not {"max_steps", "output_dir", "sample_steps", "skip_broken", "compile_layers"} & settings.keys()
    assert json.loads(json.dumps(settings)) == settings


def test_settings_of_the_policys_trainings_have_their_own(tmp_path):
    training = CycleMimicTrainingArguments(output_dir=str(tmp_path), use_cpu=True, lora_rank=4)
    settings = settings_of(
        training, FinetuneArguments("/policies/a", ["d"], labels="labels/"), tokenizer_config={"k": 16}
    )
    assert (
        settings["lora_rank"] == 4
        and settings["policy"] == "a"
        and settings["labels"] == "labels"
        and settings["tokenizer_config"] == {"k": 16}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.5}, "learning_rate 0.5 instead of 0.0001."),
        ({"data": "/here/garage"}, "data ['garage', 'squares@v1'] instead of ['kitchen', 'squares@v1']."),
        ({"per_device_train_batch_size": 4, "seed": 3}, "seed 3 instead of 42, samples_a_step 4 instead of 8."),
        ({"wanted": MixtureArguments(["kitchen", "squares@v1"], fps=5.0)}, "fps 5.0 instead of None."),
        ({"lr_scheduler_type": "cosine"}, "lr_scheduler_type 'cosine' instead of 'linear'."),
        ({"min_crop": 0.5}, "min_crop 0.5 instead of 1.0."),
    ],
)
def test_what_differs_is_refused_by_name(checkpoint, settings_with, changes, words):
    with pytest.raises(ValueError) as error:
        check_same_settings(checkpoint, settings_with(**changes))
    start = f"`resume_from_checkpoint` must be of a training with the same settings, got {checkpoint} with "
    assert str(error.value) == start + words


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "elsewhere/kitchen/"},
        {"max_steps": 7, "save_steps": 3, "sample_steps": 0},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"wanted": MixtureArguments(["kitchen", "squares@v1"], skip_broken=True)},
    ],
)
def test_what_makes_no_other_training_is_let_be(checkpoint, settings_with, changes):
    check_same_settings(checkpoint, settings_with(**changes))


def test_settings_of_another_version(tmp_path, settings_with):
    settings = settings_with()
    check_same_settings(str(tmp_path), settings)  # none
    (tmp_path / "settings.json").write_text(json.dumps({"seed": settings["seed"], "a_field_that_was": 3}))
    check_same_settings(str(tmp_path), settings)
    for text in ("{", "[1]", "null"):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(ValueError, match="must have its settings as JSON in .*settings.json, got"):
            check_same_settings(str(tmp_path), settings)
