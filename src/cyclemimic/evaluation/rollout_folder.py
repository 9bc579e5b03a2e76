# SPDX-License-Identifier: Apache-2.0
"""The folder of a run of rollouts: every finished episode is a file, so that a run that was stopped goes on."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cyclemimic.data import DataError, decode_frames, encode_video
from cyclemimic.data.atomic import write_atomically
from cyclemimic.evaluation.report import Clip
from cyclemimic.evaluation.rollout import Trial, TrialResult

_SETTINGS, _EPISODES, _CLIPS, _SECONDS = "settings.json", "episodes", "clips", "seconds.json"
_EPISODE_KEYS = {"task", "initial_state", "success", "num_steps"}


class RolloutFolder:
    """
    `settings.json`, a file of `episodes/` for every episode that has ended, its film in `clips/`, and in `seconds.json` the time
    that all of them took, however often the run was stopped.

    Args:
        root (`Path`): The folder; nothing is written before `start`.
        settings (`dict`): What decides the result of an episode, as JSON.
        fps (`float`): Frame rate of the films.
        open_settings (`Collection[str]`, *optional*): Those that may still be `None` where no episode has asked for them yet, and
            given later.

    Raises:
        DataError: `root` holds something else, or settings that cannot be read.
        ValueError: it holds episodes of other settings.
    """

    def __init__(self, root: Path, settings: dict[str, Any], fps: float, open_settings: Collection[str] = ()) -> None:
        self.root, self.settings, self.fps = root, settings, fps
        if root.exists() and not (root / _SETTINGS).is_file() and any(root.iterdir()):
            raise DataError(f"{root} exists already, and holds no rollouts; give another folder")
        if (root / _SETTINGS).is_file():
            before = _read(root / _SETTINGS, set(), "give another folder, as nothing says what its episodes are of")
            decided = [name for name in before | settings if name not in open_settings or before.get(name) is not None]
            other = [name for name in sorted(decided) if before.get(name) != settings.get(name)]
            if other:
                raise ValueError(
                    f"`output` must be a folder of rollouts with the same settings, got {root}, whose `{other[0]}` is "
                    f"{before.get(other[0])!r} instead of {settings.get(other[0])!r}."
                )

    def start(self) -> None:
        """Makes the folder, or goes on with it; from here on the time counts."""
        write_atomically(self.root / _SETTINGS, _encode(self.settings))
        self._before_s, self._start_s = self.seconds, time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the episodes that are there took, all runs together."""
        path = self.root / _SECONDS
        return float(_read(path, {"seconds"}, "delete it")["seconds"]) if path.is_file() else 0.0

    def finished(self, trials: Sequence[Trial]) -> dict[Trial, dict[str, Any]]:
        """Those of the trials that have ended, as they were saved; `DataError` where one cannot be read. One that is to be filmed
        and was not has yet to be."""
        paths = {trial: self._episode_path(trial) for trial in trials}
        remedy = "delete it, and the same command rolls its episode out again"
        saved = {trial: _read(path, _EPISODE_KEYS, remedy) for trial, path in paths.items() if path.is_file()}
        return {trial: record for trial, record in saved.items() if "film" in record or not trial.filmed}

    def save(self, result: TrialResult) -> None:
        """Writes the film, then the file that says that the episode is done; the frames are let go."""
        trial = result.trial
        described = {
            "task": trial.task,
            "initial_state": trial.initial_state,
            "success": result.success,
            "num_steps": result.num_steps,
        }
        if result.frames:
            film = self.root / _CLIPS / f"{_name(trial)}.mp4"
            film.parent.mkdir(exist_ok=True)
            # Another run may film the same.
            partial = film.with_name(f".{film.name}.{os.getpid()}.partial.mp4")
            try:
                encode_video(partial, map(_even_sided, result.frames), fps=self.fps)
                os.replace(partial, film)
            finally:
                partial.unlink(missing_ok=True)
            described |= {"film": f"{_CLIPS}/{film.name}", "num_frames": len(result.frames)}
            result.frames.clear()
        write_atomically(self._episode_path(trial), _encode(described))
        seconds = self._before_s + time.perf_counter() - self._start_s
        write_atomically(self.root / _SECONDS, _encode({"seconds": seconds}))

    def write_results(self, results: dict[str, Any]) -> None:
        """Writes `results.json`."""
        write_atomically(self.root / "results.json", _encode(results))

    def load_clip(self, described: dict[str, Any]) -> Clip:
        """The film of an episode that has one; `DataError` where it is lost or broken."""
        # By its name alone: what a run goes on with may come from elsewhere, and name a file elsewhere.
        film = self.root / _CLIPS / Path(described["film"]).name
        try:
            frames = decode_frames(film, self.fps, described["num_frames"])
        except DataError as error:
            # What it says to do about it is for data sets.
            episode = self._episode_path(Trial(described["task"], described["initial_state"]))
            raise DataError(
                f"{film} {'does not decode' if film.is_file() else 'is missing'}; delete {episode}, and the same command "
                "rolls its episode out and films it again"
            ) from error
        caption = f"initial state {described['initial_state']}"
        return Clip(
            described["task"], described["success"], frames, self.fps, caption, num_steps=described["num_steps"]
        )

    def _episode_path(self, trial: Trial) -> Path:
        return self.root / _EPISODES / f"{_name(trial)}.json"


@dataclass(frozen=True, eq=False)
class Films(Sequence[Clip]):
    """The films of some episodes, each loaded when it is asked for: decoded, a hundred are more than memory.

    Args:
        folder ([`RolloutFolder`]): Where they are.
        described (`list[dict]`): The episodes, as they were saved.
    """

    folder: RolloutFolder
    described: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.described)

    def __getitem__(self, index: Any) -> Any:
        return self.folder.load_clip(self.described[index])


def _name(trial: Trial) -> str:
    """A file's name without what a task may hold and a path may not."""
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', trial.task)}_{trial.initial_state}"


def _read(path: Path, keys: set[str], remedy: str) -> dict[str, Any]:
    """A record of the folder, with at least these keys."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(record, dict) or not (keys | ({"num_frames"} if "film" in record else set())) <= set(record):
        raise DataError(f"{path} is no record of a rollout; {remedy}")
    return record


def _even_sided(frame: np.ndarray) -> np.ndarray:
    """Without the odd row or column, which a video's chroma has no room for."""
    height, width = frame.shape[:2]
    return frame[: height - height % 2, : width - width % 2]


def _encode(record: dict[str, Any]) -> bytes:
    return json.dumps(record, indent=2).encode("utf-8")
