# SPDX-License-Identifier: Apache-2.0
"""The stages in which a policy acts: closed loop in the simulator, open loop on recorded data."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from cyclemimic.checkpoints import choose_device, load_finetuned
from cyclemimic.data import DemonstrationDataset, EpisodeSource
from cyclemimic.demo.settings import DemoSettings
from cyclemimic.evaluation.environments.metaworld import CONTROL_RATE_HZ, MAX_STEPS, MetaworldEnvironment
from cyclemimic.evaluation.intervals import success_rates
from cyclemimic.evaluation.open_loop import errors_by_statistics
from cyclemimic.evaluation.policy import ChunkPolicy, RandomPolicy, RolloutPolicy
from cyclemimic.evaluation.rollout import Trial, run_rollouts
from cyclemimic.evaluation.rollout_folder import RolloutFolder
from cyclemimic.models.cyclemimic.processing_cyclemimic import CycleMimicProcessor


def load_policy(policy_dir: Path | None, processor: CycleMimicProcessor, dataset: str, seed: int) -> RolloutPolicy:
    """The policy saved in `policy_dir`, or random actions where there is none."""
    if policy_dir is None:
        return RandomPolicy(processor.action_dim, processor.chunk_size, seed)
    return ChunkPolicy(load_finetuned(policy_dir, choose_device(None)), processor, dataset)


def evaluate_in_simulator(
    policy: RolloutPolicy, processor: CycleMimicProcessor, settings: DemoSettings, first_state: int, films_dir: Path
) -> dict[str, Any]:
    """Success rates on variations of the scene that nothing was trained on; films of the first trials of each task."""
    trials = [
        Trial(task, first_state + index, filmed=index < settings.clips_per_task)
        for task in settings.tasks
        for index in range(settings.rollouts_per_task)
    ]
    # Not gone on with: what random actions come next depends on all before.
    shutil.rmtree(films_dir, ignore_errors=True)
    folder = open_films(films_dir, settings)
    folder.start()
    results = run_rollouts(
        policy,
        trials,
        partial(MetaworldEnvironment, image_size=settings.policy_image_size, action_repeat=settings.action_repeat),
        max_steps=MAX_STEPS // settings.action_repeat,
        num_action_steps=max(1, round(settings.executed_share * processor.chunk_size)),
        film_every=1,
        on_result=folder.save,
    )
    return {"rates": success_rates(results), "trials": list(folder.finished(trials).values())}


def open_films(films_dir: Path, settings: DemoSettings) -> RolloutFolder:
    """The trials and films of one policy. What decides the results is written where the stages are."""
    return RolloutFolder(films_dir, {}, fps=CONTROL_RATE_HZ / settings.action_repeat)


def evaluate_open_loop(
    policy: RolloutPolicy, processor: CycleMimicProcessor, demonstrations: EpisodeSource, held_out: EpisodeSource
) -> dict[str, Any]:
    """Errors of the actions on held-out episodes, in units of half their q01 to q99 range."""
    statistics = processor.action_statistics[demonstrations.name]
    frames = DemonstrationDataset([held_out], chunk_size=processor.chunk_size, transform=processor.resize_images)
    return {"errors": errors_by_statistics(policy, frames, statistics), "frames": len(frames)}
