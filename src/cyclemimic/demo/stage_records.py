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
        folder.mkdir(parents=True, exist_ok=True)
        run = json.loads(json.dumps(run))
        path = folder / "run.json"
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            different = sorted(key for key in known | run if known.get(key) != run.get(key))
            if different:
                name = different[0]
                raise ValueError(
                    f"`output` ({folder.parent}) holds a demo of another run, whose `{name}` is {known.get(name)!r} instead of "
                    f"{run.get(name)!r}; choose another folder, or remove this one."
                )
        else:
            write_atomically(path, json.dumps(run, indent=2).encode())

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


def describe(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values, for [`StageRecords`]."""
    return json.loads(json.dumps(dataclasses.asdict(value), default=str))
