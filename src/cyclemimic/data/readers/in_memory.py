# SPDX-License-Identifier: Apache-2.0
"""Episodes that exist already, as a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..episode import Episode


class InMemorySource:
    """An [`EpisodeSource`] over episodes that exist already, of one data set, embodiment, camera and frame rate."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        if not episodes:
            raise ValueError("`episodes` must hold at least one episode, got none")
        kinds = {(episode.source, episode.embodiment, episode.camera, episode.fps) for episode in episodes}
        if len(kinds) > 1:
            raise ValueError(f"`episodes` must share source, embodiment, camera and fps, got {sorted(kinds)}")
        self._episodes = list(episodes)
        self.name, self.embodiment, self.camera, self.fps = kinds.pop()
        self.cameras = (self.camera,)
        self.licence: str | None = None

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:
        return self._episodes[index]

    def __iter__(self) -> Iterator[Episode]:
        return iter(self._episodes)
