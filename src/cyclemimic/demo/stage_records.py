# SPDX-License-Identifier: Apache-2.0
"""What each stage of a demo left behind, so that a second run does not do it again."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclemimic.data.atomic import write_atomically
from cyclemimic.demo.peak_memory import PeakMemory

logger = logging.getLogger(__name__)


class StageRecords:
    """
    Runs stages, and keeps a JSON file of each that is done: its results, seconds and peak memory. The file is written
    last and appears whole, so a stage that was interrupted has none and runs again.

    Args:
        folder (`Path`): Where the records are.
        run (`dict`): What the run was asked for; a folder of another run is refused.

    Raises:
        ValueError: `folder` holds the records of a run that was asked for something else.
    """

    def __init__(self, folder: Path, run: dict[str, Any]) -> None:
        self.folder = folder
        keep_run(folder / "run.json", run, folder.parent)

    def run(self, name: str, stage: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The record of stage `name`: read if it is done, else made by running `stage`, whose results it holds."""
        path = self.folder / f"{name}.json"
        if path.exists():
            logger.info("%s: done before", name)
            return json.loads(path.read_text(encoding="utf-8"))
        logger.info("%s", name)
        start = time.perf_counter()
        with PeakMemory() as memory:
            results = stage()
        record = {
            "name": name,
            "seconds": time.perf_counter() - start,
            "peak_memory_bytes": memory.peak_bytes,
            "results": results,
        }
        write_atomically(path, json.dumps(record, indent=2).encode())
        return json.loads(path.read_text(encoding="utf-8"))


def keep_run(path: Path, run: dict[str, Any], output: Path, argument: str = "output") -> None:
    """
    Keeps what a run was asked for beside what it makes, so that nothing of it goes on under other settings.

    Args:
        path (`Path`): The JSON file to keep it in.
        run (`dict`): What it is asked for; what is off or nothing counts as not asked for.
        output (`Path`): The folder of the run, for the message.
        argument (`str`, *optional*, defaults to `"output"`): Which argument named it, for the message.

    Raises:
        ValueError: the file is of a run that was asked for something else.
    """
    run = json.loads(json.dumps(run, default=str))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(run, indent=2).encode())
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    for name in sorted(known | run):
        before, now = known.get(name), run.get(name)
        if before != now and (before or now):
            raise ValueError(
                f"`{argument}` ({output}) holds another run, whose `{name}` is {before!r} instead of {now!r}; choose another folder, "
                "or remove this one."
            )


def describe(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values, for [`StageRecords`]."""
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))
