# SPDX-License-Identifier: Apache-2.0
"""The main job, stage after stage: from video to a moving robot."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from cyclemimic.data import DataError, open_source
from cyclemimic.data.atomic import write_atomically
from cyclemimic.data.instructions import instructions_of
from cyclemimic.demo import learning, moving
from cyclemimic.demo.data_split import DemoData, open_demo_data, split_demo_data
from cyclemimic.demo.recording import Shot, record_shots
from cyclemimic.demo.report_pages import write_demo_report
from cyclemimic.demo.settings import DemoConfig, DemoSettings, settings_for
from cyclemimic.demo.stage_records import StageRecords, describe
from cyclemimic.demo.summary import summarise
from cyclemimic.evaluation.environments.metaworld import MetaworldEnvironment
from cyclemimic.models.cyclemimic.processing_cyclemimic import CycleMimicProcessor

logger = logging.getLogger(__name__)

# Variations of the scene: demonstrations, videos and evaluation never meet the same one.
_FIRST_DEMONSTRATION, _FIRST_VIDEO, _FIRST_EVALUATION = 0, 1_000, 650_000
_NEEDED_BYTES = 2 << 30


def run_demo(config: DemoConfig, settings: DemoSettings | None = None) -> Path:
    """
    Runs every stage that is not done yet, and writes the report.

    Args:
        config ([`DemoConfig`]): What the user asked for.
        settings ([`DemoSettings`], *optional*): Sizes, by default those that go with `config`.

    Returns:
        `Path`: The report, `report.html` in the output folder; beside it `metrics.json`, `data/`, `tokenizer/`,
        `labels/` and `policy/`.

    Raises:
        DataError: `config.data` is no data set that can be used.
        SimulatorError: the simulator cannot run here.
        ValueError: the output folder holds another run, or what no demo has written; or its disk is nearly full.
    """
    settings = settings or settings_for(config)
    _check_input(config, settings)
    output = config.output
    records = StageRecords(output / "stages", {**_request(config), "settings": describe(settings)})
    done = {"record": records.run("record", lambda: _record(config, settings))}
    data = split_demo_data(config, settings)

    tokenizer, labels, pretrained = output / "tokenizer", output / "labels", output / "stages" / "pretrained_policy"
    done["tokenizer"] = records.run(
        "tokenizer", lambda: learning.train_tokenizer([data.videos], settings, config.seed, tokenizer)
    )
    done["label"] = records.run("label", lambda: learning.label([data.videos], settings, tokenizer, labels))
    instructions = instructions_of([data.videos], may_be_silent=True)
    processor = learning.make_policy_processor(data.demonstrations, instructions, settings)
    done["pretrain"] = records.run(
        "pretrain",
        lambda: learning.pretrain([data.videos], labels, processor, settings, config.seed, pretrained),
    )
    policies = {"policy": output / "policy", "policy_without_pretraining": output / "stages" / "policy_from_scratch"}
    for name, folder in policies.items():
        start = pretrained if name == "policy" else None
        learn = partial(
            learning.finetune, data.demonstrations, labels, processor, settings, config.seed, folder, start
        )
        done[f"finetune_{name}"] = records.run(f"finetune_{name}", learn)
    # Random actions mean nothing on recorded data, whose units they do not know.
    floor: dict[str, Path | None] = {"random": None} if config.data is None else {}
    for name, acting in {**policies, **floor}.items():
        evaluate = partial(_evaluate, config, settings, data, name, acting)
        done[f"evaluate_{name}"] = records.run(f"evaluate_{name}", evaluate)
    metrics = summarise(config, settings, done, labels)
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=2).encode())
    return write_demo_report(config, settings, data, done, metrics)


def _request(config: DemoConfig) -> dict[str, Any]:
    """What was asked for, wherever the output folder is by now, and what the data held."""
    request = {name: value for name, value in describe(config).items() if name != "output"}
    if config.data is None:
        return request
    digest = hashlib.sha256()
    source = open_demo_data(config)
    for episode in source:
        actions = b"" if episode.actions is None else episode.actions.tobytes()
        digest.update(json.dumps([episode.index, episode.num_frames, episode.instructions]).encode() + actions)
    return request | {"data": source.name, "camera": source.camera, "episodes": digest.hexdigest()}


def _check_input(config: DemoConfig, settings: DemoSettings) -> None:
    """Refuses, before any work, what would fail after minutes of it."""
    if config.output.exists() and not config.output.is_dir():
        raise ValueError(f"`output` must be a folder, got the file {config.output}.")
    # Stages that are not done remove what lies in their place.
    found = _find_foreign(config.output)
    if found is not None:
        raise ValueError(
            f"`output` must be a new or empty folder, or one of an earlier demo, got {config.output}, which holds {found} "
            "and no record of a demo."
        )
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"`seed` must be in [0, 2**32), got {config.seed}.")
    if config.data is None and config.camera is not None:
        raise ValueError(f"`camera` goes with `data`: the simulator has one camera; got {config.camera!r} alone.")
    if config.data is None:
        MetaworldEnvironment(settings.tasks[0]).close()
    else:
        data = split_demo_data(config, settings)
        instructions = instructions_of([data.videos], may_be_silent=True)
        learning.make_policy_processor(data.demonstrations, instructions, settings)
    config.output.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(config.output).free
    if free < _NEEDED_BYTES:
        raise ValueError(
            f"`output` ({config.output}) needs {_NEEDED_BYTES >> 20} MB of free disk, got {free >> 20} MB."
        )


def _find_foreign(output: Path) -> str | None:
    """The first entry of a folder without a demo's record that a demo cannot have written, which starts with its record."""
    stages = output / "stages"
    if (stages / "run.json").is_file():
        return None
    own = {stages} if stages.is_dir() else set()
    foreign = {*output.glob("*")} - own | {*stages.glob("*")} - {*stages.glob(".run.json.*.partial")}
    return min((path.relative_to(output).as_posix() for path in foreign), default=None)


def _record(config: DemoConfig, settings: DemoSettings) -> dict[str, Any]:
    """Films the experts; for recorded data, decodes one frame of each episode, so that a broken video shows now."""
    if config.data is not None:
        source = open_demo_data(config)
        try:
            for episode in source:
                episode.read_frames([0])
        except DataError as error:
            # What it says to do about it is a flag of verbs.
            raise DataError(f"{str(error).split(';')[0]}; take it out of the data set") from error
        return {"episodes": len(source), "frames": sum(episode.num_frames for episode in source)}
    shots = [
        Shot(task, _FIRST_DEMONSTRATION + index, noise=settings.demonstration_noise, labelled=True)
        for task in settings.tasks
        for index in range(settings.demonstrations_per_task)
    ] + [
        Shot(task, _FIRST_VIDEO + index, push_rate=settings.push_rate, noise=settings.video_noise)
        for task in settings.tasks
        for index in range(settings.videos_per_task)
    ]
    shutil.rmtree(config.output / "data", ignore_errors=True)
    source = open_source(
        record_shots(config.output / "data", shots, settings.policy_image_size, action_repeat=settings.action_repeat)
    )
    return {"episodes": len(source), "frames": sum(episode.num_frames for episode in source)}


def _evaluate(
    config: DemoConfig, settings: DemoSettings, data: DemoData, name: str, policy_dir: Path | None
) -> dict[str, Any]:
    processor = CycleMimicProcessor.from_pretrained(config.output / "policy")
    policy = moving.load_policy(policy_dir, processor, data.name, config.seed)
    if data.held_out is None:
        films = config.output / "stages" / "films" / name
        return moving.evaluate_in_simulator(policy, processor, settings, _FIRST_EVALUATION, films)
    return moving.evaluate_open_loop(policy, processor, data.demonstrations, data.held_out)
