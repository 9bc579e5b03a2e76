# SPDX-License-Identifier: Apache-2.0
"""From frame pairs and their codes to a gallery: what is to mean the same on every body, in every scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cyclemimic.data import Episode, FramePairDataset

from .gallery import GalleryGroup, GalleryPair
from .shared_actions import motion_magnitude, select_groups


def gallery_of_pairs(
    pairs: FramePairDataset,
    indices: np.ndarray,
    codes: np.ndarray,
    num_groups: int = 6,
    per_group: int = 3,
    seed: int = 0,
    motion: Sequence[float] | None = None,
) -> tuple[GalleryGroup, ...]:
    """
    Pairs that share one latent action across bodies; where all are of one body, across data sets; of one data set,
    across tasks; of one task, across episodes (the paper's Figure 1, supplement).

    Args:
        pairs ([`FramePairDataset`]): Where the pairs are from.
        indices (`np.ndarray` of shape `(n,)`): Which of them to choose from.
        codes (`np.ndarray` of shape `(n, num_latent_tokens)`): Their codes.
        num_groups, per_group, seed: As in [`select_groups`].
        motion (`Sequence[float]` of length `n`, *optional*): [`motion_of`] each of them; by default their frames are read for it.

    Returns:
        `tuple[GalleryGroup]`: None where no action is shared.
    """
    rows = pairs.pairs[indices]
    episodes = [pairs.episodes[row[0]] for row in rows]
    said = [episode.instruction_at(int(row[1])) for episode, row in zip(episodes, rows, strict=True)]
    if motion is None:
        # One pair at a time: data sets differ in the size of their frames, and all of them would fill the memory.
        motion = [motion_of(pairs[int(index)]) for index in indices]
    chosen = select_groups(
        codes,
        np.array(names_to_cross(episodes, said)),
        np.array(motion),
        num_groups,
        per_group,
        seed,
        episode_ids=rows[:, 0],
        spans=rows[:, 1:],
    )
    several_bodies = len({episode.embodiment for episode in episodes}) > 1
    return tuple(
        GalleryGroup(
            codes=group.codes + (None,) * (codes.shape[1] - len(group.codes)),
            pairs=tuple(
                _gallery_pair(pairs[int(indices[index])], caption_of(episodes[index], said[index], several_bodies))
                for index in group.indices
            ),
            note=f"{group.num_pairs} of {len(indices)} pairs" + (", the first words only" if group.is_partial else ""),
        )
        for group in chosen
    )


def motion_of(item: dict[str, Any]) -> float:
    """[`motion_magnitude`] of a pair of [`FramePairDataset`]."""
    return motion_magnitude(item["current"], item["future"])


def _gallery_pair(item: dict[str, Any], caption: str) -> GalleryPair:
    return GalleryPair(item["current"], item["future"], caption)


def evenly_spread(pairs: FramePairDataset, per_source: int, seed: int) -> np.ndarray:
    """Ascending indices of pairs drawn at random, at most `per_source` of each data set."""
    random = np.random.default_rng(seed)
    names, source_of_episode = np.unique([episode.source for episode in pairs.episodes], return_inverse=True)
    sources = source_of_episode[pairs.pairs[:, 0]]
    drawn = [random.permutation(np.flatnonzero(sources == name))[:per_source] for name in range(len(names))]
    return np.sort(np.concatenate(drawn))


def names_to_cross(episodes: Sequence[Episode], said: Sequence[str | None]) -> list[str]:
    """What a shared action is to cross: the coarsest property in which pairs of these episodes, and with these instructions,
    differ."""
    properties = (
        [episode.embodiment for episode in episodes],
        [episode.source for episode in episodes],
        [str(text) for text in said],
        [f"{episode.source} {episode.index}" for episode in episodes],
    )
    return next((names for names in properties if len(set(names)) > 1), properties[-1])


def caption_of(episode: Episode, said: str | None, with_body: bool) -> str:
    """What stands below a pair of an episode: its instruction or data set, and the body where there are several."""
    what = said or episode.source
    return f"{episode.embodiment}: {what}" if with_body else what
