# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cyclemimic.demo.settings import DemoConfig, DemoSettings
from cyclemimic.demo.summary import _codebook_figures, summarise

from ..label_files import write_labels

HISTORY = [{"loss": 2.0, "copy_ratio": 0.9}, {"loss": 1.0, "copy_ratio": 0.4, "cycle_accuracy": 0.8, "ac3_scale": 1}]


@pytest.fixture
def labels_dir(tmp_path) -> Path:
    columns = {
        "source": ["demo"] * 4,
        "episode_index": [0, 0, 1, 1],
        "frame_index": [0, 1, 0, 1],
        "future_index": [1, 2, 1, 2],
        "instruction": ["push"] * 4,
        "codes": np.array([[0, 0], [0, 0], [1, 2], [1, 2]]),
    }
    write_labels(tmp_path / "labels", columns, 16, 2, "tokenizer")
    return tmp_path / "labels"


def stages(**results) -> dict[str, dict]:
    given = {
        "tokenizer": {"history": HISTORY},
        "finetune_policy": {"reloaded_policy_difference": 0.0},
        "evaluate_policy": {},
        "evaluate_policy_without_pretraining": {},
        "evaluate_random": {},
    } | results
    return {
        name: {"name": name, "seconds": 1.5, "peak_memory_bytes": 100 + index, "results": value}
        for index, (name, value) in enumerate(given.items())
    }


def test_codebook_use(labels_dir):
    # Shares 1/2, 1/4, 1/4: entropy 1.5 log 2.
    assert _codebook_figures(labels_dir) == {
        "codebook_perplexity": pytest.approx(2**1.5),
        "codebook_size": 16,
        "distinct_latent_actions": 2,
        "labels": 4,
    }


def test_with_a_simulator(labels_dir):
    rates = {"mean": {"rate": 0.75}, "reach-v3": {"rate": 0.75}}
    lower, none = {"mean": {"rate": 0.5}}, {"mean": {"rate": 0.0}}
    done = stages(
        evaluate_policy={"rates": rates},
        evaluate_policy_without_pretraining={"rates": lower},
        evaluate_random={"rates": none},
    )
    metrics = summarise(DemoConfig(Path("out"), seed=7), DemoSettings(tasks=("reach-v3",)), done, labels_dir)
    assert metrics["success_rate"] == 0.75 and metrics["success"] == rates
    assert metrics["success_rate_without_latent_pretraining"] == 0.5 and metrics["success_rate_random"] == 0.0
    assert metrics["tasks"] == ["reach-v3"] and metrics["rollouts_per_task"] == 20
    assert metrics["seconds"] == 7.5 and metrics["seconds_per_stage"]["tokenizer"] == 1.5
    assert metrics["peak_memory_bytes"] == 104
    assert (metrics["copy_ratio"], metrics["cycle_accuracy"], metrics["ac3_scale"]) == (0.4, 0.8, 1)
    assert metrics["codebook_perplexity"] == pytest.approx(2**1.5)
    assert metrics["reloaded_policy_identical"] is True and metrics["seed"] == 7 and metrics["quick"] is False
    assert {"python", "torch", "transformers", "numpy"} <= metrics["versions"].keys()
    assert json.loads(json.dumps(metrics)) == metrics


def test_without_a_simulator(labels_dir):
    errors = {"errors": {"policy": 0.2, "mean_action": 0.6}}
    done = stages(evaluate_policy=errors, evaluate_policy_without_pretraining={"errors": {**errors["errors"]}})
    metrics = summarise(DemoConfig(Path("out"), Path("real")), DemoSettings(tasks=()), done, labels_dir)
    rates = [metrics[f"success_rate{suffix}"] for suffix in ("", "_without_latent_pretraining", "_random")]
    assert rates == [None] * 3 and metrics["rollouts_per_task"] == 0
    assert metrics["action_error"] == 0.2 and metrics["action_error_mean_action"] == 0.6
