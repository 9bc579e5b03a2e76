# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic import LatentActionTokenizerTrainingArguments
from cyclemimic.data import PairAugmentation


def test_defaults_are_the_papers(tmp_path):
    arguments = LatentActionTokenizerTrainingArguments(output_dir=str(tmp_path))
    assert (arguments.learning_rate, arguments.weight_decay) == (1e-4, 1e-2)
    assert arguments.optim.startswith("adamw")
    assert (arguments.interval_s, arguments.min_interval_s) == (1.0, 0.5)
    assert arguments.augmentation == PairAugmentation()
    assert not arguments.remove_unused_columns


def test_augmentation_of_the_flags(tmp_path):
    flags = {"reversed_share": 0.5, "min_crop": 0.8, "color_jitter": 0.2}
    arguments = LatentActionTokenizerTrainingArguments(output_dir=str(tmp_path), **flags)
    assert arguments.augmentation == PairAugmentation(**flags)


def test_the_best_model_is_not_the_last_before_the_loss_has_more_terms(tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "output_dir": str(tmp_path)}
    arguments = LatentActionTokenizerTrainingArguments(**best)
    assert (arguments.metric_for_best_model, arguments.greater_is_better) == ("reconstruction_loss", False)
    arguments = LatentActionTokenizerTrainingArguments(**best, metric_for_best_model="loss")
    assert arguments.metric_for_best_model == "loss"
    assert LatentActionTokenizerTrainingArguments(output_dir=str(tmp_path)).metric_for_best_model is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_interval_s": 0.0}, r"`min_interval_s` must be above 0 and at most `interval_s` \(1\), got 0\."),
        ({"interval_s": 0.4}, r"`min_interval_s` must be .* at most `interval_s` \(0.4\), got 0.5"),
        ({"interval_s": float("nan")}, "`min_interval_s` must be"),
        ({"reversed_share": 1.5}, r"`reversed_share` must be in \[0, 1\], got 1.5"),
        ({"min_crop": 0.0}, r"`min_crop` must be in \(0, 1\], got 0.0"),
        ({"color_jitter": -0.1}, r"`color_jitter` must be at least 0, got -0.1"),
        ({"interval_s": float("inf")}, "`min_interval_s` must be"),
        ({"label_smoothing_factor": 0.1}, "`label_smoothing_factor` must be 0, got 0.1"),
        ({"sample_steps": -1}, "`sample_steps` must be at least 0, got -1"),
    ],
)
def test_bad_arguments(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        LatentActionTokenizerTrainingArguments(output_dir=str(tmp_path), **arguments)
