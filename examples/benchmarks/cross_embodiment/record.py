# SPDX-License-Identifier: Apache-2.0
"""Records robosuite arms in one controller space: OUTPUT/train/BODY and OUTPUT/test/BODY, LeRobot data sets.

python examples/benchmarks/cross_embodiment/record.py --simulator_python robosuite_venv/bin/python --output arms
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from motion import FPS, Sector, own_sector
from tqdm import tqdm

from cyclemimic.data import DataError, LeRobotWriter
from cyclemimic.demo.stage_records import keep_run

WORKER = Path(__file__).with_name("film_arms.py")
BODIES = ["Panda", "Sawyer", "UR5e", "Kinova3", "IIWA"]
ALL_BODIES = [*BODIES, "Jaco", "XArm7"]  # those that reach the whole workspace
CAMERA = "observation.images.frontview"
INSTRUCTION = "move the arm"
AXES = ["x", "y", "z"]
# Arguments of which every data set of a folder is made.
DECIDING = "bodies direction_range depth_share goal train_episodes test_episodes frames image_size seed".split()
# Without a screen. Frames and matrices are too small to share among threads.
WORKER_ENVIRONMENT = {"MUJOCO_GL": "egl", "LP_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Recording:
    """
    One data set to record.

    Args:
        body (`str`): Robot of robosuite, the data set's `robot_type`.
        split (`str`): `train` or `test`.
        sector (`Sector`): Directions of its motion.
        episodes (`int`): Number of episodes.
    """

    body: str
    split: str
    sector: Sector
    episodes: int


def plan_recordings(arguments: argparse.Namespace) -> list[Recording]:
    """The data sets, the training sets first; test episodes of every body go in all directions."""
    everywhere = Sector(depth_share=arguments.depth_share)
    sectors = [everywhere] * len(arguments.bodies)
    if arguments.direction_range == "own":
        count = len(arguments.bodies)
        sectors = [own_sector(index, count, depth_share=arguments.depth_share) for index in range(count)]
    train = [
        Recording(body, "train", sector, arguments.train_episodes) for body, sector in zip(arguments.bodies, sectors)
    ]
    return train + [Recording(body, "test", everywhere, arguments.test_episodes) for body in arguments.bodies]


def filmed_episodes(
    command: Sequence[str | Path], recording: Recording, arguments: argparse.Namespace
) -> Iterator[dict[str, np.ndarray]]:
    """
    Episodes as the worker films them: `frames`, `actions`, `states`.

    Args:
        command (`Sequence`): Interpreter and script of the worker.
        recording (`Recording`): What to film.
        arguments (`argparse.Namespace`): Frames an episode, image size, seed.

    Raises:
        RuntimeError: The worker failed.
    """
    sector = [str(value) for value in astuple(recording.sector)]
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "errors"), "w+") as errors:
        settings = {"body": recording.body, "split": recording.split, "episodes": recording.episodes, "output": folder}
        settings |= {name: getattr(arguments, name) for name in ("frames", "image_size", "seed")}
        flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        worker = subprocess.Popen(
            [*command, *flags, "--sector", *sector, *(["--goal"] if arguments.goal else [])],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=WORKER_ENVIRONMENT | os.environ,
        )
        try:
            for line in worker.stdout:
                path = Path(folder, json.loads(line)["file"])
                with np.load(path, allow_pickle=False) as file:
                    episode = dict(file)
                path.unlink()
                yield episode
        except BaseException:  # whoever takes the episodes may leave early, too
            worker.terminate()
            raise
        finally:
            code = worker.wait()
        if code:
            errors.seek(0)
            raise RuntimeError(f"filming {recording.body} failed: {(errors.read().splitlines() or [code])[-1]}")


def record(
    root: Path, command: Sequence[str | Path], recording: Recording, arguments: argparse.Namespace, bar: tqdm
) -> None:
    """Records one data set, unless it is there; it gets its name when it is complete."""
    if root.exists():
        bar.update(recording.episodes)
        return
    with (
        closing(filmed_episodes(command, recording, arguments)) as episodes,
        LeRobotWriter(root, FPS, recording.body, AXES, AXES, camera=CAMERA) as writer,
    ):
        count = 0
        for episode in episodes:
            writer.add_episode(episode["frames"], episode["actions"], INSTRUCTION, episode["states"])
            bar.update()
            count += 1
        if count != recording.episodes:
            raise RuntimeError(f"filming {recording.body} gave {count} episodes instead of {recording.episodes}")


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--simulator_python", type=Path, required=True, help="interpreter that has robosuite")
    parser.add_argument(
        "--bodies", nargs="+", choices=ALL_BODIES, default=BODIES, metavar="BODY", help=f"{ALL_BODIES}"
    )
    parser.add_argument(
        "--direction_range",
        choices=["all", "own"],
        default="own",
        help="own: in training, body k of n moves within 60 degrees of the angle 360 k / n of the image plane",
    )
    parser.add_argument(
        "--depth_share", type=float, default=0.0, help="largest share of the speed along the line of sight, below 1"
    )
    parser.add_argument(
        "--goal",
        action="store_true",
        help="show a ball where an episode's path ends, so that frames tell where it goes",
    )
    parser.add_argument("--train_episodes", type=int, default=600)
    parser.add_argument("--test_episodes", type=int, default=200)
    parser.add_argument("--frames", type=int, default=12, help=f"frames an episode, at {FPS} a second")
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="data sets recorded at a time")
    arguments = parser.parse_args(given)
    limits = {"train_episodes": 1, "test_episodes": 1, "frames": 10, "image_size": 32, "seed": 0, "workers": 1}
    for name, low in limits.items():
        if getattr(arguments, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(arguments, name)}")
    if not 0 <= arguments.depth_share < 1:
        parser.error(f"--depth_share must be at least 0 and below 1, got {arguments.depth_share}")
    if arguments.image_size % 2:
        parser.error(f"--image_size must be even, as video is, got {arguments.image_size}")
    if len(set(arguments.bodies)) < len(arguments.bodies):
        parser.error(f"--bodies must differ, got {' '.join(arguments.bodies)}")
    if not arguments.simulator_python.is_file():
        parser.error(f"--simulator_python must be an interpreter, got {arguments.simulator_python}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    try:
        run = {name: getattr(arguments, name) for name in DECIDING}
        keep_run(arguments.output / "settings.json", run, arguments.output)
        recordings = record_all(arguments)
    except (DataError, RuntimeError, ValueError) as error:
        sys.exit(f"record.py: {error}")
    print(f"{len(recordings)} data sets in {arguments.output}")


def record_all(arguments: argparse.Namespace) -> list[Recording]:
    """Records what is missing, `--workers` data sets at a time; after a failure none is begun."""
    recordings = plan_recordings(arguments)
    # Absolute, yet not resolved: a virtual environment's interpreter is a link.
    command = [arguments.simulator_python.absolute(), WORKER]
    with (
        tqdm(total=sum(recording.episodes for recording in recordings), unit="episode") as bar,
        ThreadPoolExecutor(arguments.workers) as pool,
    ):

        def record_or_stop(recording: Recording) -> None:
            try:
                record(arguments.output / recording.split / recording.body, command, recording, arguments, bar)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

        futures = [pool.submit(record_or_stop, recording) for recording in recordings]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return recordings


if __name__ == "__main__":
    main()
