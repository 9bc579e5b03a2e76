# SPDX-License-Identifier: Apache-2.0
"""The figures of a demo, as `metrics.json` holds them."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from cyclemimic.data import LatentLabels
from cyclemimic.demo.settings import DemoConfig, DemoSettings

VARIANTS = {"policy": "", "policy_without_pretraining": "_without_latent_pretraining", "random": "_random"}
"""Evaluated policies, and what their figures' names end in."""

_PACKAGES = ("cyclemimic", "torch", "transformers", "accelerate", "numpy", "av", "metaworld", "mujoco")


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
        **codebook_use(labels_dir),
        **_last_tokenizer_figures(done["tokenizer"]["results"]["history"]),
        "reloaded_policy_identical": done["finetune_policy"]["results"]["reloaded_policy_difference"] == 0,
        "quick": config.quick,
        "seed": config.seed,
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": versions(),
    }


def codebook_use(labels_dir: Path) -> dict[str, float | int]:
    """Perplexity of the words and number of distinct actions over all labels (paper §3.2's collapse shows here)."""
    labels = LatentLabels.from_folder(labels_dir)
    codes = np.concatenate([labels.episode(*episode)[1] for episode in labels.episodes])
    frequencies = np.bincount(codes.ravel(), minlength=labels.codebook_size) / codes.size
    used = frequencies[frequencies > 0]
    return {
        "codebook_perplexity": float(np.exp(-(used * np.log(used)).sum())),
        "codebook_size": labels.codebook_size,
        "distinct_latent_actions": len(np.unique(codes, axis=0)),
        "labels": len(labels),
    }


def _last_tokenizer_figures(history: list[dict[str, float]]) -> dict[str, float]:
    last = history[-1]
    return {name: last[name] for name in ("copy_ratio", "cycle_accuracy", "ac3_scale") if name in last}


def hardware() -> str:
    """The machine in words."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        processor = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), processor)
    return f"{os.cpu_count()} cores, {processor}"


def versions() -> dict[str, str]:
    """Installed versions of what the figures depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
