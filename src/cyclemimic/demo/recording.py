# SPDX-License-Identifier: Apache-2.0
"""Writes what scripted experts did as a LeRobot data set."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tqdm import tqdm

from cyclemimic.data import LeRobotWriter
from cyclemimic.demo.filming import Shot, film
from cyclemimic.evaluation.environments.metaworld import CONTROL_RATE_HZ, TASKS

__all__ = ["Shot", "record_shots"]


def record_shots(
    root: Path, shots: Sequence[Shot], image_size: int, num_workers: int = 2, action_repeat: int = 1
) -> Path:
    """
    Films the shots in worker processes, each by its own seed, so that the data set does not depend on their number.

    Args:
        root (`Path`): The LeRobot v3.0 data set to make; it appears when all is filmed.
        shots (`Sequence[Shot]`): Episodes, in the data set's order.
        image_size (`int`): Pixels.
        num_workers (`int`, *optional*, defaults to 2): Processes.
        action_repeat (`int`, *optional*, defaults to 1): Of [`MetaworldEnvironment`]; the data set has
            `80 / action_repeat` frames a second.

    Raises:
        ValueError: no shots, or a number below 1.
        SimulatorError: the simulator cannot run here.
        RuntimeError: an expert failed again and again, or a process died.
        DataError: `root` exists, or the disk is full.
    """
    for name, number in {"len(shots)": len(shots), "num_workers": num_workers, "action_repeat": action_repeat}.items():
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")
    names = ["x", "y", "z", "gripper"]
    rate = CONTROL_RATE_HZ / action_repeat
    context = multiprocessing.get_context("spawn")
    with (
        LeRobotWriter(root, rate, robot_type="sawyer", action_names=names, state_names=names) as writer,
        ProcessPoolExecutor(num_workers, mp_context=context) as pool,
    ):
        # A bounded number of episodes is under way: films are large, and the writer takes them one by one.
        ahead = 2 * num_workers
        futures = deque(pool.submit(film, shot, image_size, action_repeat) for shot in shots[:ahead])
        for position, shot in enumerate(tqdm(shots, desc="record", unit="episode")):
            episode = futures.popleft().result()
            if position + ahead < len(shots):
                futures.append(pool.submit(film, shots[position + ahead], image_size, action_repeat))
            attributes = {"labelled": shot.labelled, "initial_state": episode.initial_state}
            writer.add_episode(episode.frames, episode.actions, TASKS[shot.task], episode.states, attributes)
    return root
