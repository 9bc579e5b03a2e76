# SPDX-License-Identifier: Apache-2.0
"""Fills the report of a demo from its artefacts."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclemimic.data import DataError, FramePairDataset, LatentLabels
from cyclemimic.demo.data_split import DemoData
from cyclemimic.demo.moving import open_films
from cyclemimic.demo.report_pictures import reconstructions_of, shared_actions_of
from cyclemimic.demo.settings import DemoConfig, DemoSettings
from cyclemimic.demo.summary import VARIANTS
from cyclemimic.evaluation.action_page.labelled_pairs import LabelledPairs
from cyclemimic.evaluation.charts import Series
from cyclemimic.evaluation.report import (
    Clip,
    CurveGroup,
    DemoReport,
    Headline,
    Provenance,
    StageTiming,
    write_report,
)
from cyclemimic.evaluation.success_table import SuccessRow, SuccessTable

logger = logging.getLogger(__name__)

_VARIANT_NAMES = {
    "policy": "Latent pretraining, then demonstrations",
    "policy_without_pretraining": "The same fine-tuning alone",
    "random": "Random actions",
}
_NO_SIMULATOR = "Recorded data has no simulator to roll out in: see the action errors at the top."


def write_demo_report(
    config: DemoConfig,
    settings: DemoSettings,
    data: DemoData,
    done: dict[str, dict[str, Any]],
    metrics: dict[str, Any],
) -> Path:
    """Writes `report.html` into the output folder."""
    output = config.output
    labels = LatentLabels.from_folder(output / "labels")
    pairs = FramePairDataset([data.videos], settings.interval_s, settings.min_interval_s)
    report = DemoReport(
        title="CycleMimic: from video to a moving robot",
        subtitle=_subtitle(settings, done),
        provenance=Provenance(
            date=metrics["date"],
            seed=config.seed,
            hardware=metrics["hardware"],
            seconds=metrics["seconds"],
            peak_memory_bytes=metrics["peak_memory_bytes"],
            versions=metrics["versions"],
            command=_command(config),
        ),
        headlines=_headlines(metrics),
        success=_success_table(settings, metrics),
        clips=_clips(output, settings, done),
        gallery=shared_actions_of(LabelledPairs.from_labels(pairs, labels, settings.interval_s), config.seed),
        gallery_note="Pairs drawn at random among those with one latent action, across tasks where it has them.",
        reconstructions=reconstructions_of(pairs, output / "tokenizer", config.seed),
        curves=_curves(done),
        timing=_timing(settings, done),
        notes=_notes(config, metrics),
        missing={} if settings.tasks else {"success": _NO_SIMULATOR, "clips": _NO_SIMULATOR},
    )
    return write_report(output / "report.html", report)


def _subtitle(settings: DemoSettings, done: dict[str, dict[str, Any]]) -> str:
    recorded = done["record"]["results"]
    demonstrations = settings.demonstrations_per_task * max(1, len(settings.tasks))
    return (
        f"{recorded['episodes']} videos, {recorded['frames']} frames; at most {demonstrations} of them with robot actions. "
        "The policy sees one camera image and an instruction, and no simulator state."
    )


def _timing(settings: DemoSettings, done: dict[str, dict[str, Any]]) -> tuple[StageTiming, ...]:
    details = {
        "record": f"{done['record']['results']['episodes']} episodes",
        "tokenizer": f"{settings.tokenizer_steps} steps",
        "label": f"{done['label']['results']['labels']} pairs",
        "pretrain": f"{settings.pretraining_steps} steps",
        "finetune": f"{settings.finetuning_steps} steps",
        "evaluate": f"{settings.rollouts_per_task * len(settings.tasks)} rollouts"
        if settings.tasks
        else "held-out frames",
    }
    return tuple(
        StageTiming(name.replace("_", " "), record["seconds"], details[name.split("_")[0]])
        for name, record in done.items()
    )


def _command(config: DemoConfig) -> str:
    parts = ["cyclemimic", "demo", "--seed", str(config.seed)]
    parts += ["--data", config.data.name] if config.data else []
    parts += ["--camera", config.camera] if config.camera else []
    return shlex.join(parts + (["--quick"] if config.quick else []))


def _headlines(metrics: dict[str, Any]) -> tuple[Headline, ...]:
    headlines = []
    for name, suffix in VARIANTS.items():
        rates = metrics[f"success{suffix}"]
        if rates:
            mean = rates["mean"]
            detail = f"95 % interval {mean['low']:.2f} to {mean['high']:.2f}"
            headlines.append(Headline(_VARIANT_NAMES[name], f"{mean['rate']:.0%}", detail))
        elif f"action_error{suffix}" in metrics:
            headlines.append(Headline(f"Action error: {_VARIANT_NAMES[name]}", metrics[f"action_error{suffix}"]))
    if "action_error_mean_action" in metrics:
        headlines.append(Headline("Action error: always the mean action", metrics["action_error_mean_action"]))
    words = f"of {metrics['codebook_size']} words"
    headlines.append(Headline("Codebook perplexity", metrics["codebook_perplexity"], words))
    return tuple(headlines)


def _success_table(settings: DemoSettings, metrics: dict[str, Any]) -> SuccessTable | None:
    if not settings.tasks:
        return None
    rows = tuple(
        SuccessRow.of_rates(_VARIANT_NAMES[name], metrics[f"success{suffix}"]) for name, suffix in VARIANTS.items()
    )
    return SuccessTable(settings.tasks, rows)


def _clips(output: Path, settings: DemoSettings, done: dict[str, dict[str, Any]]) -> tuple[Clip, ...]:
    filmed = [trial for trial in done["evaluate_policy"]["results"].get("trials", []) if "film" in trial]
    if not filmed:
        return ()
    folder = open_films(output / "stages" / "films" / "policy", settings)
    clips = []
    for trial in filmed:
        try:
            clips.append(folder.load_clip(trial))
        except DataError as error:
            # The stage is done, and is not done again for a film.
            logger.warning("left out of the report: %s", str(error).split(";")[0])
    return tuple(clips)


def _curves(done: dict[str, dict[str, Any]]) -> tuple[CurveGroup, ...]:
    tokenizer = done["tokenizer"]["results"]["history"]
    scratch = done["finetune_policy_without_pretraining"]["results"]["history"]
    policy = done["finetune_policy"]["results"]["history"]
    return (
        CurveGroup(
            "Tokenizer: reconstruction",
            _series(tokenizer, {"copy_ratio": "error / error of a copy", "ac3_scale": "weight of AC3"}),
            "The error falls below that of copying the current frame once the codes carry motion; then AC3 joins.",
        ),
        CurveGroup(
            "Tokenizer: use of the codebook",
            _series(tokenizer, {"codebook_perplexity": "perplexity"}),
            "16 is even use of all words, 1 is collapse.",
        ),
        CurveGroup(
            "Tokenizer: AC3",
            _series(
                tokenizer,
                {"cycle_loss": "cycle", "generator_loss": "generator", "discriminator_loss": "discriminator"},
            ),
            "Zero until AC3 joins.",
        ),
        CurveGroup(
            "Policy: pretraining on latent actions",
            _series(done["pretrain"]["results"]["history"], {"loss": "cross-entropy a token (nats)"}),
            "ln 16 = 2.77 is guessing.",
        ),
        CurveGroup(
            "Policy: fine-tuning on demonstrations",
            _series(policy, {"action_loss": "with latent pretraining"}) + _series(scratch, {"action_loss": "without"}),
            "L1 error of normalised actions on the training demonstrations.",
            log_scale=True,
        ),
    )


def _series(history: Sequence[dict[str, float]], names: dict[str, str]) -> tuple[Series, ...]:
    steps = [entry["step"] for entry in history]
    return tuple(
        Series(label, steps, [entry.get(name, float("nan")) for entry in history]) for name, label in names.items()
    )


def _notes(config: DemoConfig, metrics: dict[str, Any]) -> tuple[str, ...]:
    notes = [
        "Cycle accuracy alone says nothing: a watermark or a collapsed codebook wins it too. Look at the transferred "
        "frames and at the success rates.",
        f"The reloaded policy acts identically to the one in memory: {metrics['reloaded_policy_identical']}.",
    ]
    if config.quick:
        notes.insert(0, "A quick run proves that every stage works; nothing is trained long enough to succeed.")
    if metrics.get("ac3_scale") == 0:
        notes.append("AC3 did not join: the reconstruction error never fell below its starting ratio.")
    return tuple(notes)
