# SPDX-License-Identifier: Apache-2.0
"""The stages in which a policy acts: closed loop in the simulator, open loop on recorded data."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cyclemimic.data import DemonstrationDataset, EpisodeSource, decode_frames, encode_video
from cyclemimic.demo.settings import DemoSettings
from cyclemimic.evaluation.environments.metaworld import CONTROL_RATE_HZ, MAX_STEPS, MetaworldEnvironment
from cyclemimic.evaluation.intervals import success_rates
from cyclemimic.evaluation.open_loop import errors_by_statistics
from cyclemimic.evaluation.policy import ChunkPolicy, RandomPolicy, RolloutPolicy
from cyclemimic.evaluation.rollout import Trial, TrialResult, run_rollouts
from cyclemimic.models.cyclemimic.modeling_cyclemimic import CycleMimicForActionPrediction
from cyclemimic.models.cyclemimic.processing_cyclemimic import CycleMimicProcessor


def load_policy(policy_dir: Path | None, processor: CycleMimicProcessor, dataset: str, seed: int) -> RolloutPolicy:
    """The policy saved in `policy_dir`, or random actions where there is none."""
    if policy_dir is None:
        return RandomPolicy(processor.action_dim, processor.chunk_size, seed)
    return ChunkPolicy(CycleMimicForActionPrediction.from_pretrained(policy_dir), processor, dataset)


def evaluate_in_simulator(
    policy: RolloutPolicy, processor: CycleMimicProcessor, settings: DemoSettings, first_state: int, films_dir: Path
) -> dict[str, Any]:
    """Success rates on variations of the scene that nothing was trained on; films of the first trials of each task."""
    trials = [
        Trial(task, first_state + index, filmed=index < settings.clips_per_task)
        for task in settings.tasks
        for index in range(settings.rollouts_per_task)
    ]
    results = run_rollouts(
        policy,
        trials,
        partial(MetaworldEnvironment, image_size=settings.policy_image_size, action_repeat=settings.action_repeat),
        max_steps=MAX_STEPS // settings.action_repeat,
        num_action_steps=max(1, round(settings.executed_share * processor.chunk_size)),
        film_every=1,
    )
    return {
        "rates": success_rates(results),
        "steps": [result.num_steps for result in results],
        "films": _save_films(
            [result for result in results if result.trial.filmed], films_dir, CONTROL_RATE_HZ / settings.action_repeat
        ),
    }


def evaluate_open_loop(
    policy: RolloutPolicy, processor: CycleMimicProcessor, demonstrations: EpisodeSource, held_out: EpisodeSource
) -> dict[str, Any]:
    """Errors of the actions on held-out episodes, in units of half their q01 to q99 range."""
    statistics = processor.action_statistics[demonstrations.name]
    frames = DemonstrationDataset([held_out], chunk_size=processor.chunk_size, transform=processor.resize_images)
    return {"errors": errors_by_statistics(policy, frames, statistics), "frames": len(frames)}


def _save_films(results: list[TrialResult], folder: Path, fps: float) -> list[dict[str, Any]]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    films = []
    for index, result in enumerate(results):
        path = folder / f"{index:03d}.mp4"
        encode_video(path, result.frames, fps=fps)
        films.append(
            {
                "path": f"{folder.name}/{path.name}",
                "task": result.trial.task,
                "initial_state": result.trial.initial_state,
                "success": result.success,
                "num_frames": len(result.frames),
                "fps": fps,
            }
        )
    return films


def load_film(folder: Path, film: dict[str, Any]) -> np.ndarray:
    """The frames of a film that `evaluate_in_simulator` listed, uint8 `(n, height, width, 3)`."""
    return decode_frames(folder / film["path"], film["fps"], film["num_frames"])
