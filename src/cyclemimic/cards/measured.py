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


# Of the errors in `errors.json`, in the same way.
_ERRORS = {
    "policy": "error of recorded actions, in half ranges from 1 % to 99 %",
    "mean_action": "that error of the mean action",
    "last_action": "that error of the last action, gone on with",
}


def add_measurements(
    card_path: Path, quality: Path | None = None, rollout: Path | None = None, errors: Path | None = None
) -> str:
    """
    Returns the card's text with the figures of these files; what stood there of earlier ones goes.

    Args:
        card_path (`Path`): The model's `README.md`.
        quality (`Path`, *optional*): `quality.json` of `cyclemimic evaluate-tokenizer`.
        rollout (`Path`, *optional*): `results.json` of `cyclemimic rollout`.
        errors (`Path`, *optional*): `errors.json` of `cyclemimic evaluate-policy`.

    Raises:
        ValueError: a file is not what it should be, or of another model, or the card has no place for figures.
    """
    text = card_path.read_text(encoding="utf-8")
    if not _SECTION.search(text):
        raise ValueError(
            f"`model` must have a card with a section for figures, as training writes it, got {card_path}."
        )
    results = []
    for path, name, key, read in (
        (quality, "quality", "summary", _quality_results),
        (rollout, "rollout", "success", _rollout_results),
        (errors, "errors", "errors", _errors_results),
    ):
        if path is not None:
            values = _read(path, name, key)
            _check_is_of(path, name, _stated_files(values), card_path.parent)
            results += _as_written(read, name, path, values)
    if not results:
        raise ValueError("`quality`, `rollout` and `errors` must hold at least one figure, got none.")
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


def _as_written(
    read: Callable[[dict[str, Any]], list[EvalResult]], name: str, path: Path, values: dict[str, Any]
) -> list[EvalResult]:
    """What `read` finds in a file's values; `ValueError` where they are not as the verb writes them."""
    try:
        return read(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`{name}` must be as `cyclemimic` has written it, got {path}: {type(error).__name__} {error}."
        ) from error


def _quality_results(quality: dict[str, Any]) -> list[EvalResult]:
    data = ", ".join(sorted({name for body in quality["data"]["bodies"].values() for name in body["sources"]}))
    summary = {name: quality["summary"].get(name) for name in _QUALITY}
    values = {name: value["value"] if isinstance(value, dict) else value for name, value in summary.items()}
    return [
        EvalResult("robotics", "latent-actions", data, name, float(value), metric_name=_QUALITY[name])
        for name, value in values.items()
        if value is not None
    ]


def _rollout_results(results: dict[str, Any]) -> list[EvalResult]:
    return [
        EvalResult(
            *("robotics", "simulator", f"{'all tasks' if task == 'mean' else task}, {rate['trials']} trials"),
            *("success_rate", float(rate["rate"])),
            dataset_config=task,  # what tells them apart on the Hub
            metric_name=f"success rate (95 %: {rate['low']:.2f} to {rate['high']:.2f})",
        )
        for task, rate in results["success"].items()
    ]


def _errors_results(measured: dict[str, Any]) -> list[EvalResult]:
    data = (
        f"{Path(measured['arguments']['data']).name}, {measured['frames']} frames of {measured['episodes']} episodes"
    )
    return [
        EvalResult("robotics", "recorded-actions", data, name, float(measured["errors"][name]), metric_name=described)
        for name, described in _ERRORS.items()
    ]


def _read(path: Path, name: str, key: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"`{name}` must be a JSON file, got {path}: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get(key), dict):
        raise ValueError(f"`{name}` must be a file with `{key}`, got {path}, which has none.")
    return value
