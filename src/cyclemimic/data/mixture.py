# SPDX-License-Identifier: Apache-2.0
"""Mixtures of data sets as a YAML file, with a weight each (paper, Table 2)."""

from __future__ import annotations

import dataclasses
import difflib
import glob
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..hub.names import split_revision
from ..strict_yaml import load_yaml
from .checking import BrokenEpisode, BrokenEpisodesError, open_usable
from .episode import DataError
from .episode_source import EpisodeSource
from .mixture_dataset import WeightedSource
from .readers.sources import open_source

logger = logging.getLogger(__name__)

_SHIPPED = Path(__file__).with_name("mixtures")
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class MixtureEntry:
    """One data set of a mixture file; everything but path and weight may be left out.

    Args:
        path (`str`): Folder, file or pattern, relative to the mixture's file if it is there, or id of a LeRobot data set on the Hub.
        weight (`float`): How often its pairs are drawn, against the other weights.
        name (`str`, *optional*), camera (`str`, *optional*), embodiment (`str`, *optional*), fps (`float`, *optional*),
            revision (`str`, *optional*): As in [`open_source`].
        interval_s (`float` or `list[float]`, *optional*): Seconds between the frames of a pair, or the range they are drawn
            from; default is what training asks for.
        min_interval_s (`float`, *optional*): Shortest pair near an episode's end; default as above.
        first_episode (`int`, *optional*), last_episode (`int`, *optional*): Use the episodes of these indices and between alone, so
            that others are held out.
    """

    path: str
    weight: float
    name: str | None = None
    camera: str | None = None
    embodiment: str | None = None
    fps: float | None = None
    revision: str | None = None
    interval_s: float | tuple[float, float] | None = None
    min_interval_s: float | None = None
    first_episode: int | None = None
    last_episode: int | None = None

    def open(self, episodes: Sequence[int] | None = None) -> EpisodeSource:
        """Open the data set: of the entry's episodes all, or those of these indices.

        Raises:
            DataError, ValueError: As [`open_source`], or there is no such episode.
        """
        if self.first_episode is self.last_episode is None:
            return self._open(episodes)
        try:
            indices = [episode.index for episode in self._open(episodes)]
        except BrokenEpisodesError as error:
            # Of these, only those that are wanted matter.
            indices = sorted([*error.usable, *(episode.index for episode in error.broken)])
        first, last = self.first_episode or 0, self.last_episode
        wanted = [index for index in indices if first <= index and (last is None or index <= last)]
        if not wanted:
            raise DataError(
                f"{self.data_name}: no episode from `first_episode` ({first}) to `last_episode` "
                f"({'the end' if last is None else last}); it has {indices[0]} to {indices[-1]}"
            )
        return self._open(wanted)

    def _open(self, episodes: Sequence[int] | None) -> EpisodeSource:
        return open_source(self.path, self.camera, self.embodiment, episodes, self.name, self.fps, self.revision)

    @property
    def data_name(self) -> str:
        """What messages call the data set, opened or not."""
        return self.name or Path(split_revision(self.path)[0]).name


@dataclass(frozen=True)
class OpenedMixture:
    """The data sets of a mixture that are to be used, and what is left out of them.

    Args:
        sources (`list[WeightedSource]`): The data sets.
        left_out (`dict[str, str]`): Name of each data set that could not be opened, and the reason.
        broken (`dict[str, list[BrokenEpisode]]`): Name of each data set with broken episodes, and these.
    """

    sources: list[WeightedSource]
    left_out: dict[str, str]
    broken: dict[str, list[BrokenEpisode]]


def shipped_mixtures() -> list[str]:
    """Names of the mixtures that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.yaml"))


def is_mixture(path: str | Path) -> bool:
    """Whether a path names a mixture: a YAML file, or one that comes with the package where no such path exists."""
    return Path(path).suffix in _SUFFIXES or (str(path) in shipped_mixtures() and not Path(path).exists())


def read_mixture(path: str | Path) -> list[MixtureEntry]:
    """Read a mixture: a mapping with the list `sources`, an entry as [`MixtureEntry`] each.

    Args:
        path (`str` or `Path`): YAML file, or name of a mixture that comes with the package.

    Raises:
        DataError: If it is no such file, or an entry does not fit.
    """
    path = Path(path) if Path(path).suffix in _SUFFIXES else _SHIPPED / f"{path}.yaml"
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no readable mixture ({error}); shipped are {shipped_mixtures()}") from error
    if not isinstance(values, dict) or set(values) != {"sources"} or not values["sources"]:
        raise DataError(f"{path} must hold one key, `sources`, with a list of data sets")
    if not isinstance(values["sources"], list):
        raise DataError(f"{path}: `sources` must be a list, got {type(values['sources']).__name__}")
    return [_entry(value, f"{path}, source {number}", path.parent) for number, value in enumerate(values["sources"])]


def open_mixture(
    entries: Sequence[MixtureEntry],
    interval_s: float,
    min_interval_s: float,
    leave_out_missing: bool = False,
    skip_broken: bool = False,
) -> OpenedMixture:
    """Open the data sets of a mixture.

    Args:
        entries (`Sequence[MixtureEntry]`): The mixture.
        interval_s (`float`), min_interval_s (`float`): Times between the frames of a pair, for entries without.
        leave_out_missing (`bool`, *optional*, defaults to `False`): Leave out, and name in the log, data sets that cannot be
            opened.
        skip_broken (`bool`, *optional*, defaults to `False`): Leave out, and name in the log, episodes that cannot be used:
            everything is decoded once to find them.

    Returns:
        [`OpenedMixture`]

    Raises:
        DataError: If one cannot be opened, all such named; or, with `leave_out_missing`, if none can; or if the times of an
            entry, or of two of one name, do not go together.
    """
    # Before the first is opened, which may take minutes.
    times = [_times(entry, interval_s, min_interval_s) for entry in entries]
    opened: list[WeightedSource] = []
    left_out: dict[str, str] = {}
    broken: dict[str, list[BrokenEpisode]] = {}
    for entry, (interval, shortest) in zip(tqdm(entries, desc="open data sets", unit="data set", delay=2), times):
        try:
            source, faults = open_usable(entry.open) if skip_broken else (entry.open(), [])
        except DataError as error:
            name = entry.data_name
            # As two patterns of one kind in two folders.
            left_out[name if name not in left_out else f"{Path(entry.path).parent.name}/{name}"] = str(error)
            continue
        if entry.name is None and source.name in {other.source.name for other in opened}:
            # As two patterns of one folder.
            named = dataclasses.replace(entry, name=entry.data_name)
            source, faults = open_usable(named.open) if skip_broken else (named.open(), [])
        for other in opened:
            # Labels, and all that is kept by a data set's name, have one for it.
            if other.source.name == source.name and (other.interval_s, other.min_interval_s) != (interval, shortest):
                raise DataError(
                    f"source {source.name} of the mixture stands in it more than once: `interval_s` and `min_interval_s` must be "
                    f"the same, got {other.interval_s}, {other.min_interval_s} and {interval}, {shortest}; or give each its `name`"
                )
        opened.append(WeightedSource(source, entry.weight, interval, shortest))
        if faults:
            broken.setdefault(source.name, []).extend(faults)
    errors = [f"{name}: {reason}" for name, reason in left_out.items()]
    if errors and not (leave_out_missing and opened):
        raise DataError(
            f"{len(errors)} of {len(entries)} data sets cannot be opened; mend them or leave them out with "
            f"`leave_out_missing`: {'; '.join(errors)}"
        )
    for reason in errors:
        logger.warning("left out of the mixture: %s", reason)
    return OpenedMixture(opened, left_out, broken)


def _times(entry: MixtureEntry, interval_s: float, min_interval_s: float) -> tuple[float | tuple[float, float], float]:
    """Interval and shortest pair of an entry, its own or those for entries without."""
    interval, shortest = entry.interval_s or interval_s, entry.min_interval_s or min_interval_s
    lowest = interval[0] if isinstance(interval, tuple) else interval
    if shortest > lowest:
        origins = [
            "" if own else ", which holds for sources without" for own in (entry.min_interval_s, entry.interval_s)
        ]
        raise DataError(
            f"source {entry.data_name} of the mixture: `min_interval_s` must be at most `interval_s` "
            f"({lowest:g}{origins[1]}), got {shortest:g}{origins[0]}; give the source one of its own"
        )
    return interval, shortest


def _entry(value: Any, where: str, folder: Path) -> MixtureEntry:
    fields = [field.name for field in dataclasses.fields(MixtureEntry)]
    for key in value if isinstance(value, dict) else ():
        if key not in fields:
            nearest = difflib.get_close_matches(str(key), fields, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"allowed: {', '.join(fields)}"
            raise DataError(f"{where}: unknown key {key!r} ({hint})")
    if not isinstance(value, dict) or not {"path", "weight"} <= set(value):
        raise DataError(f"{where}: must be a mapping with at least `path` and `weight`, got {value!r}")
    numbers = {key: value[key] for key in ("fps", "min_interval_s") if value.get(key) is not None}
    numbers["weight"] = value["weight"]
    interval = value.get("interval_s")
    if isinstance(interval, list) and len(interval) == 2:
        value = {**value, "interval_s": tuple(interval)}
        numbers |= {"interval_s[0]": interval[0], "interval_s[1]": interval[1]}
    elif interval is not None:
        numbers["interval_s"] = interval
    for key, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < float("inf"):
            raise DataError(f"{where}: `{key}` must be a number above 0, got {number!r}")
    if isinstance(value.get("interval_s"), tuple) and value["interval_s"][0] > value["interval_s"][1]:
        raise DataError(f"{where}: `interval_s` must ascend, got {list(value['interval_s'])}")
    for key in ("first_episode", "last_episode"):
        index = value.get(key)
        if index is not None and (isinstance(index, bool) or not isinstance(index, int) or index < 0):
            raise DataError(f"{where}: `{key}` must be an episode's index, 0 or above, got {index!r}")
    if not isinstance(value["path"], str):
        raise DataError(f"{where}: `path` must be text, got {value['path']!r}")
    for key in ("name", "camera", "embodiment", "revision"):
        if not isinstance(value.get(key), str | None):
            raise DataError(f"{where}: `{key}` must be text, got {value[key]!r}")
    beside = folder / value["path"]
    is_there = beside.exists() or any(glob.iglob(str(beside), recursive=True))
    return MixtureEntry(**{**value, "path": str(beside) if is_there else value["path"]})
