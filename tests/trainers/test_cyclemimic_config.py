# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic import CycleMimicTrainingArguments


def test_defaults_are_the_papers(tmp_path):
    arguments = CycleMimicTrainingArguments(output_dir=str(tmp_path))
    assert arguments.learning_rate == 2e-5 and arguments.lr_scheduler_type == "constant"
    assert arguments.image_shift == 0 and not arguments.remove_unused_columns


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="`image_shift` must be at least 0, got -1"):
        CycleMimicTrainingArguments(output_dir=str(tmp_path), image_shift=-1)
    with pytest.raises(ValueError, match="`backbone_learning_rate` must be at least 0, got -0.1"):
        CycleMimicTrainingArguments(output_dir=str(tmp_path), backbone_learning_rate=-0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor` must be 0, got 0.1"),
        ({"lora_rank": 0}, "`lora_rank` must be at least 1, got 0"),
        ({"lora_rank": 4, "lora_alpha": 0}, "`lora_alpha` must be at least 1, got 0"),
        ({"lora_rank": 4, "lora_dropout": 1.0}, "`lora_dropout` must be in \\[0, 1\\), got 1.0"),
        ({"freeze_vision": True, "freeze_backbone": True}, "`freeze_vision` must be false with `freeze_backbone`"),
        (
            {"lora_dropout": 0.5},
            "`lora_alpha` and `lora_dropout` must be left out without `lora_rank`.* got 16 and 0.5",
        ),
        ({"lora_alpha": 64}, "`lora_alpha` and `lora_dropout` must be left out without `lora_rank`.* got 64 and 0.0"),
        (
            {"freeze_backbone": True, "backbone_learning_rate": 1e-5},
            "`backbone_learning_rate` must be left out with `freeze_backbone`, .*, got 1e-05",
        ),
        ({"lora_rank": 4, "freeze_backbone": True}, "`freeze_backbone` must not come with `lora_rank`, got rank 4"),
    ],
)
def test_bad_adapters(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CycleMimicTrainingArguments(output_dir=str(tmp_path), **arguments)
