# SPDX-License-Identifier: Apache-2.0
"""The true motion between the two frames of a pair: what a latent action should tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cyclemimic.data import DataError, Episode, EpisodeSource

logger = logging.getLogger(__name__)

_DEFAULT_NUM_DIMS = 3


@dataclass(frozen=True)
class TrueMotion:
    """How the true motion of a pair is read.

    Args:
        kind (`str`): `"state"` (difference of the states at the two frames) or `"action"` (sum of the actions from the
            current frame to the one before the future frame: right where actions are changes, not where they are positions).
        dims (`tuple[int, ...]`): Dimensions used.
    """

    kind: str
    dims: tuple[int, ...]

    def of_pairs(self, episode: Episode, current: np.ndarray, future: np.ndarray) -> np.ndarray:
        """Motion of some pairs of an episode.

        Args:
            episode ([`~cyclemimic.data.Episode`]): One with states, or actions, as `kind` says.
            current, future (`np.ndarray` of shape `(n,)`): Indices of the frames.

        Returns:
            `np.ndarray` of shape `(n, len(dims))`: float64, in the units of the data set.

        Raises:
            DataError: The episode lacks them or some dimensions of them, or some are not finite.
        """
        values = self._values(episode)
        if self.kind == "state":
            return values[future] - values[current]
        sums = np.concatenate([np.zeros((1, len(self.dims))), np.cumsum(values, axis=0)])
        return sums[future] - sums[current]

    def places(self, episode: Episode, frames: np.ndarray) -> np.ndarray | None:
        """Where some frames `(n,)` of an episode are in the dimensions of the motion, `(n, len(dims))`; `None` where the motion
        is a sum of actions, which does not say. Raises as `of_pairs`."""
        return self._values(episode)[frames] if self.kind == "state" else None

    def _values(self, episode: Episode) -> np.ndarray:
        values = _read(episode, self.kind)
        if values is None:
            raise DataError(f"{episode.source}: episode {episode.index} has no {self.kind}s")
        if values.shape[1] <= max(self.dims):
            raise DataError(
                f"{episode.source}: episode {episode.index} has {values.shape[1]} {self.kind}s a frame, "
                f"{max(self.dims) + 1} are needed"
            )
        values = values[:, list(self.dims)].astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"{episode.source}: episode {episode.index} has {self.kind}s that are not finite")
        return values


def sources_with_motion(sources: Sequence[EpisodeSource]) -> list[EpisodeSource]:
    """Those data sets, by their first episode, that have states or actions, where some have and some, which the log names,
    have not; else all."""
    silent = [source.name for source in sources if source[0].states is None and source[0].actions is None]
    if not silent or len(silent) == len(sources):
        return list(sources)
    logger.warning("%s: left out, with neither states nor actions by which the true motion could be told", silent)
    return [source for source in sources if source.name not in silent]


def choose_motion(
    sources: Sequence[EpisodeSource], kind: str | None = None, dims: Sequence[int] | None = None
) -> TrueMotion:
    """
    Settles what the true motion is read from, by the first episode of each data set.

    Args:
        sources (`Sequence[EpisodeSource]`): Data sets.
        kind (`str`, *optional*): `"state"` or `"action"`; by default `"state"` where all have states.
        dims (`Sequence[int]`, *optional*): By default the first three, or as many as all have.

    Raises:
        DataError: A data set has neither, or not what `kind` asks for.
        ValueError: A data set has fewer dimensions than `dims` asks for, or there is no data set.
    """
    if not sources:
        raise ValueError("`sources` must name at least one data set, got none.")
    first = {source.name: source[0] for source in sources}
    if kind is None:
        kind = "action" if _without(first, "state") else "state"
        if missing := sorted(set(_without(first, "state")) & set(_without(first, "action"))):
            raise DataError(f"{missing[0]}: has neither states nor actions, by which the true motion could be told")
        if kind == "action":
            logger.warning(
                "%s: has no states; the true motion is the sum of the actions, which must be changes, not positions",
                _without(first, "state")[0],
            )
    if missing := _without(first, kind):
        raise DataError(
            f"{missing[0]}: has no {kind}s, by which the true motion was to be told; give another `motion`"
        )
    read = {name: _read(episode, kind) for name, episode in first.items()}
    widths = {name: values.shape[1] for name, values in read.items() if values is not None}
    narrow = min(widths, key=widths.__getitem__)
    chosen = tuple(range(min(_DEFAULT_NUM_DIMS, widths[narrow]))) if dims is None else tuple(int(dim) for dim in dims)
    if not chosen or not 0 <= min(chosen) <= max(chosen) < widths[narrow]:
        raise ValueError(
            f"`motion_dims` must be in [0, {widths[narrow]}), the {kind}s that {narrow} has, got {list(chosen)}."
        )
    return TrueMotion(kind, chosen)


def _without(first: dict[str, Episode], kind: str) -> list[str]:
    return [name for name, episode in first.items() if _read(episode, kind) is None]


def _read(episode: Episode, kind: str) -> np.ndarray | None:
    return episode.states if kind == "state" else episode.actions
