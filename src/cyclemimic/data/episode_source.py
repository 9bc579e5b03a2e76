# SPDX-License-Identifier: Apache-2.0
"""A data set as a sequence of episodes, and the episodes of several."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

from .episode import DataError, Episode

_SOURCES = "data sets, as `open_source` opens them"


class EpisodeSource(Protocol):
    """A data set as a sequence of [`Episode`]s of one embodiment, camera and frame rate.

    [`LeRobotSource`] reads one from disk, [`InMemorySource`] wraps episodes that exist. `camera` is the one read, of those
    in `cameras`; `licence` is what the data set says of it, if anything.
    """

    name: str
    embodiment: str
    camera: str
    fps: float
    licence: str | None

    @property
    def cameras(self) -> Sequence[str]:
        """All that the data set has."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Episode: ...

    def __iter__(self) -> Iterator[Episode]: ...


def list_episodes(sources: Sequence[EpisodeSource]) -> list[Episode]:
    """Return the episodes of some data sets, in order.

    Raises:
        As [`iter_episodes`].
    """
    return list(iter_episodes(sources))


def iter_episodes(sources: Sequence[EpisodeSource]) -> Iterator[Episode]:
    """Yield the episodes of some data sets, in order, and hold none of them: what one has read goes with it.

    Raises:
        ValueError: If there is no data set, or `sources` is no list of them.
        DataError: If an episode goes by another name or embodiment than its data set, or two by one name and index:
            labels and statistics could not tell them apart.
    """
    # A data set yields episodes; a path, its letters.
    check_sources(sources, Iterable, _SOURCES)
    if not sources:
        raise ValueError("`sources` must name at least one data set, got none")
    seen: set[tuple[str, int]] = set()
    for episode in chain.from_iterable(map(_episodes_of, sources)):
        if (episode.source, episode.index) in seen:
            raise DataError(
                f"two data sets or episodes go by the name {episode.source!r}, episode {episode.index}; give episodes of "
                "one data set an `index` each, or open data sets with different `name`s"
            )
        seen.add((episode.source, episode.index))
        yield episode


def _episodes_of(source: EpisodeSource) -> Iterator[Episode]:
    """The episodes of a data set; its name and embodiment must be theirs, by which they are looked up."""
    # A list of episodes has neither.
    known_as = getattr(source, "name", None), getattr(source, "embodiment", None)
    if None in known_as:
        raise ValueError(
            f"`sources` must be a list of {_SOURCES}, got {type(source).__name__} without `name` and `embodiment`."
        )
    for episode in source:
        if not isinstance(episode, Episode):
            raise ValueError(f"`sources` must yield `Episode`s, got {type(episode).__name__} of {known_as[0]}.")
        if (episode.source, episode.embodiment) != known_as:
            raise DataError(
                f"a data set must have the name and embodiment of its episodes, {episode.source!r} and "
                f"{episode.embodiment!r} of episode {episode.index}, got {known_as[0]!r} and {known_as[1]!r}"
            )
        yield episode


def check_sources(sources: Any, kind: type, kind_name: str) -> None:
    """Raises `ValueError` unless `sources` is a list of such, and neither one alone nor paths."""
    wrong = [sources]
    if isinstance(sources, Sequence) and not isinstance(sources, str):
        wrong = [each for each in sources if isinstance(each, str) or not isinstance(each, kind)]
    if wrong:
        raise ValueError(f"`sources` must be a list of {kind_name}, got {type(wrong[0]).__name__}.")
