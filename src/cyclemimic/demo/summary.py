# SPDX-License-Identifier: Apache-2.0
"""The figures of a demo, as `metrics.json` holds them."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np

from cyclemimic.data import LatentLabels
from cyclemimic.demo.settings import DemoConfig, DemoSettings
from cyclemimic.evaluation.tokenizer_quality.codebook import codebook_use
from cyclemimic.machine import PACKAGES, hardware, versions

VARIANTS = {"policy": "", "policy_without_pretraining": "_without_latent_pretraining", "random": "_random"}
"""Evaluated policies, and what their figures' names end in."""


def summarise(
    config: DemoConfig, settings: DemoSettings, done: dict[str, dict[str, Any]], labels_dir: Path
) -> dict[str, Any]:
    """All figures of a run, from the records of its stages. Rates are `None` where there was no simulator."""
    metrics: dict[str, Any] = {}
    for name, suffix in VARIANTS.items():
        results = done[f"evaluate_{name}"]["results"] if f"evaluate_{name}" in done else {}
        rates = results.get("rates")
        metrics[f"success_rate{suffix}"] = rates["mean"]["rate"] if rates else None
        metrics[f"success{suffix}"] = rates
        if "errors" in results:
            metrics[f"action_error{suffix}"] = results["errors"]["policy"]
            metrics["action_error_mean_action"] = results["errors"]["mean_action"]
    return metrics | {
        "tasks": list(settings.tasks),
        "rollouts_per_task": settings.rollouts_per_task if settings.tasks else 0,
        "demonstrations_per_task": settings.demonstrations_per_task,
        "seconds": sum(record["seconds"] for record in done.values()),
        "seconds_per_stage": {name: record["seconds"] for name, record in done.items()},
        "peak_memory_bytes": max(record["peak_memory_bytes"] for record in done.values()),
        **_codebook_figures(labels_dir),
        **_last_tokenizer_figures(done["tokenizer"]["results"]["history"]),
        "reloaded_policy_identical": done["finetune_policy"]["results"]["reloaded_policy_difference"] == 0,
        "quick": config.quick,
        "seed": config.seed,
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": versions(PACKAGES),
    }


def _codebook_figures(labels_dir: Path) -> dict[str, float | int]:
    """How the words are used over all labels (paper §3.2's collapse shows here)."""
    labels = LatentLabels.from_folder(labels_dir)
    codes = np.concatenate([labels.episode(*episode)[1] for episode in labels.episodes])
    use = codebook_use(codes, labels.codebook_size)
    return {
        "codebook_perplexity": use["perplexity"],
        "codebook_size": labels.codebook_size,
        "distinct_latent_actions": use["distinct_actions"],
        "labels": len(labels),
    }


def _last_tokenizer_figures(history: list[dict[str, float]]) -> dict[str, float]:
    last = history[-1]
    return {name: last[name] for name in ("copy_ratio", "cycle_accuracy", "ac3_scale") if name in last}
