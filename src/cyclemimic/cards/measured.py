# SPDX-License-Identifier: Apache-2.0
"""Figures that were measured of a model, into its card: a table to read and a `model-index` for the Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from ..hub.integrity import hash_files
from .card import plain

_SECTION = re.compile(r"(<!-- measured: [^\n]*-->\n).*?(<!-- to here -->)", flags=re.DOTALL)
# Of the summary in `quality.json`: key → what a reader calls it.
_QUALITY = {
    "linear_r2_within": "R² of a linear probe to the true motion, within a body",
    "linear_r2_across": "R² of a linear probe, fitted on other bodies",
    "mlp_r2_within": "R² of an MLP probe, within a body",
    "transfer_r2_within": "R² of the motion that an action makes in another scene",
    "transfer_r2_across": "R² of the motion that an action makes on another body",
    "mutual_information": "mutual information of codes and motion, nats",
    "embodiment_accuracy": "accuracy of telling the body from the codes",
    "cycle_token_accuracy": "cycle accuracy, a word",
    "perplexity": "perplexity of the codebook",
    "psnr": "PSNR of reconstruction, dB",
}


def add_measurements(card_path: Path, quality: Path | None, rollout: Path | None) -> str:
    """
    Returns the card's text with the figures of these files; what stood there of earlier ones goes.

    Args:
        card_path (`Path`): The model's `README.md`.
        quality (`Path`, *optional*): `quality.json` of `cyclemimic evaluate-tokenizer`.
        rollout (`Path`, *optional*): `results.json` of `cyclemimic rollout`.

    Raises:
        ValueError: a file is not what it should be, or of another model, or the card has no place for figures.
    """
    text = card_path.read_text(encoding="utf-8")
    if not _SECTION.search(text):
        raise ValueError(
            f"`model` must have a card with a section for figures, as training writes it, got {card_path}."
        )
    for path, name, key in ((quality, "quality", "summary"), (rollout, "rollout", "success")):
        if path is not None:
            _check_is_of(path, name, _stated_files(_read(path, name, key)), card_path.parent)
    results = [
        *(_as_written(_quality_results, "quality", quality) if quality else []),
        *(_as_written(_rollout_results, "rollout", rollout) if rollout else []),
    ]
    if not results:
        raise ValueError("`quality` and `rollout` must hold at least one figure, got none.")
    rows = "\n".join(f"| {plain(row.dataset_name)} | {row.metric_name} | {row.metric_value:.4g} |" for row in results)
    table = f"| measured on | figure | value |\n|---|---|---|\n{rows}\n"
    card = ModelCard(_SECTION.sub(lambda found: found[1] + table + found[2], text))
    card.data["model_name"] = card_path.resolve().parent.name
    card.data["eval_results"] = results
    return str(card)


def _stated_files(values: dict[str, Any]) -> dict[str, str]:
    """Hashes of the model's files that a file of figures states."""
    arguments = values.get("arguments")
    stated = arguments.get("policy_files") if isinstance(arguments, dict) else values.get("tokenizer_files")
    return stated if isinstance(stated, dict) else {}


def _check_is_of(path: Path, name: str, stated: dict[str, str], model: Path) -> None:
    """Raises `ValueError` where figures say that they are of a model with other files."""
    own = hash_files(model) if stated else {}
    other = sorted(file for file, digest in stated.items() if own.get(file) != digest)
    if other:
        raise ValueError(f"`{name}` must be of the model in {model}, got {path}, of one with another {other[0]}.")


def _as_written(read: Callable[[Path], list[EvalResult]], name: str, path: Path) -> list[EvalResult]:
    """What `read` finds in a file; `ValueError` where it is not as the verb writes it."""
    try:
        return read(path)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`{name}` must be as `cyclemimic` has written it, got {path}: {type(error).__name__} {error}."
        ) from error


def _quality_results(path: Path) -> list[EvalResult]:
    quality = _read(path, "quality", "summary")
    data = ", ".join(sorted({name for body in quality["data"]["bodies"].values() for name in body["sources"]}))
    summary = {name: quality["summary"].get(name) for name in _QUALITY}
    values = {name: value["value"] if isinstance(value, dict) else value for name, value in summary.items()}
    return [
        EvalResult("robotics", "latent-actions", data, name, float(value), metric_name=_QUALITY[name])
        for name, value in values.items()
        if value is not None
    ]


def _rollout_results(path: Path) -> list[EvalResult]:
    rates = _read(path, "rollout", "success")["success"]
    for task, rate in rates.items():
        if not isinstance(rate, dict) or not {"rate", "low", "high", "trials"} <= set(rate):
            raise ValueError(
                f"`rollout` must have `rate`, `low`, `high` and `trials` of {task}, got {path}, which has not."
            )
    return [
        EvalResult(
            *("robotics", "simulator", f"{'all tasks' if task == 'mean' else task}, {rate['trials']} trials"),
            *("success_rate", float(rate["rate"])),
            dataset_config=task,  # what tells them apart on the Hub
            metric_name=f"success rate (95 %: {rate['low']:.2f} to {rate['high']:.2f})",
        )
        for task, rate in rates.items()
    ]


def _read(path: Path, name: str, key: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"`{name}` must be a JSON file, got {path}: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get(key), dict):
        raise ValueError(f"`{name}` must be a file with `{key}`, got {path}, which has none.")
    return value
