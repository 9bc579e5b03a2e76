# SPDX-License-Identifier: Apache-2.0
"""The frame pairs an evaluation looks at: evenly spread over each body's data, with their true motion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from cyclemimic.data import DataError, Episode, EpisodeSource
from cyclemimic.data.episode import stack_frames
from cyclemimic.data.episode_source import list_episodes
from cyclemimic.data.frame_store import iter_transformed
from cyclemimic.data.pairs import future_indices

from .motion import TrueMotion
from .settings import QualitySettings


@dataclass(frozen=True, eq=False)
class PairSample:
    """Frame pairs of one or more bodies. `n` is their number; a frame that stands in several pairs is kept once.

    Args:
        bodies (`tuple[str, ...]`): Names, sorted.
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`): uint8, RGB, at the tokenizer's size.
        current, future (`np.ndarray` of shape `(n,)`): Positions in `frames`.
        motion (`np.ndarray` of shape `(n, num_dims)`): float64, true motion in the units of the data.
        scale (`np.ndarray` of shape `(num_dims,)`): Its standard deviation over all bodies, in the same units.
        body (`np.ndarray` of shape `(n,)`): Positions in `bodies`.
        episode (`np.ndarray` of shape `(n,)`): Number of the episode, unique over all data.
        held_out (`np.ndarray` of shape `(n,)`): bool; pairs of the episodes that probes are scored on.
        source (`np.ndarray` of shape `(n,)`): Name of the data set.
        episode_index, frame_index, future_index (`np.ndarray` of shape `(n,)`): Where the pair is in it.
        place (`np.ndarray` of shape `(n, num_dims)`, *optional*): State at the current frame, in the dimensions of the motion;
            `None` where the motion is not told by states.
    """

    bodies: tuple[str, ...]
    frames: np.ndarray
    current: np.ndarray
    future: np.ndarray
    motion: np.ndarray
    scale: np.ndarray
    body: np.ndarray
    episode: np.ndarray
    held_out: np.ndarray
    source: np.ndarray
    episode_index: np.ndarray
    frame_index: np.ndarray
    future_index: np.ndarray
    place: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.current)

    @property
    def standardised(self) -> np.ndarray:
        """`motion` in standard deviations over all bodies, not shifted: 0 is no motion."""
        return self.motion / self.scale

    def training_rows(self, body: int | None = None) -> np.ndarray:
        """Positions of the pairs that probes are fitted on, of one body or of all."""
        return np.flatnonzero(~self.held_out if body is None else ~self.held_out & (self.body == body))

    def held_out_rows(self, body: int | None = None) -> np.ndarray:
        """Positions of the pairs that probes are scored on, of one body or of all."""
        return np.flatnonzero(self.held_out if body is None else self.held_out & (self.body == body))


@dataclass(frozen=True, eq=False)
class _EpisodePairs:
    """The pairs taken from one episode: indices of their frames."""

    episode: Episode
    body: int
    held_out: bool
    current: np.ndarray
    future: np.ndarray


def sample_pairs(
    sources: Sequence[EpisodeSource],
    motion: TrueMotion,
    resize: Callable[[np.ndarray], np.ndarray],
    settings: QualitySettings,
) -> PairSample:
    """
    Takes at most `max_pairs` pairs of each body, decodes their frames, and holds out a share of each body's episodes.

    Args:
        sources (`Sequence[EpisodeSource]`): Data sets; those of one `embodiment` are one body.
        motion ([`TrueMotion`]): How the true motion is read.
        resize (`Callable`): Maps uint8 frames `(n, height, width, 3)` to as many of the tokenizer's size.
        settings ([`QualitySettings`]): Times, numbers and seed.

    Returns:
        [`PairSample`]: Bodies one after the other, in each the order of the data. Of `num_frames` frames of 64 × 64
        pixels it takes `12 kB * num_frames`, of 224 × 224 `150 kB * num_frames`: with two frames a pair and 4,000 pairs of each of five
        bodies, 6 GB.

    Raises:
        DataError: A body has fewer than two episodes with pairs, or a video does not decode.
        ValueError: `max_pairs` takes pairs of one episode only.
    """
    episodes = list_episodes(sources)
    bodies = tuple(sorted({episode.embodiment for episode in episodes}))
    random = np.random.default_rng(settings.seed)
    chosen = [
        pairs
        for position, body in enumerate(bodies)
        for pairs in _choose([e for e in episodes if e.embodiment == body], position, settings, random)
    ]
    frames, current, future = _read_frames(chosen, resize)
    moved = np.concatenate([motion.of_pairs(pairs.episode, pairs.current, pairs.future) for pairs in chosen])
    places = [place for pairs in chosen if (place := motion.places(pairs.episode, pairs.current)) is not None]

    def column(value: Callable[[_EpisodePairs], object]) -> np.ndarray:
        return np.repeat(np.array([value(pairs) for pairs in chosen]), [len(pairs.current) for pairs in chosen])

    return PairSample(
        bodies=bodies,
        frames=frames,
        current=current,
        future=future,
        motion=moved,
        scale=moved.std(axis=0),
        body=column(lambda pairs: pairs.body),
        episode=np.repeat(np.arange(len(chosen)), [len(pairs.current) for pairs in chosen]),
        held_out=column(lambda pairs: pairs.held_out),
        source=column(lambda pairs: pairs.episode.source),
        episode_index=column(lambda pairs: pairs.episode.index),
        frame_index=np.concatenate([pairs.current for pairs in chosen]),
        future_index=np.concatenate([pairs.future for pairs in chosen]),
        place=np.concatenate(places) if places else None,
    )


def _choose(
    episodes: Sequence[Episode], body: int, settings: QualitySettings, random: np.random.Generator
) -> list[_EpisodePairs]:
    """Pairs of one body's episodes, those without a chosen pair left out."""
    futures = [future_indices(episode, settings.interval_s, settings.min_interval_s) for episode in episodes]
    positions = _spread(sum(map(len, futures)), settings.max_pairs, random)
    starts = np.cumsum([0, *map(len, futures)])
    taken = []
    for episode, future, start, end in zip(episodes, futures, starts[:-1], starts[1:], strict=True):
        current = positions[(start <= positions) & (positions < end)] - start
        if len(current):
            taken.append((episode, current, future[current]))
    num_with_pairs = sum(len(future) > 0 for future in futures)
    if len(taken) < 2 <= num_with_pairs:
        raise ValueError(
            f"`max_pairs` must take pairs of at least 2 of the {num_with_pairs} episodes of {episodes[0].embodiment} that "
            f"have some, as probes are scored on other episodes than they are fitted on, got {settings.max_pairs}."
        )
    if len(taken) < 2:
        raise DataError(
            f"{episodes[0].embodiment}: {len(taken)} of {len(episodes)} episodes have pairs of frames "
            f"{settings.min_interval_s:g} s apart, at least 2 are needed: probes are scored on other episodes than "
            "they are fitted on"
        )
    num_held_out = min(len(taken) - 1, max(1, round(settings.held_out_share * len(taken))))
    held_out = set(random.permutation(len(taken))[:num_held_out].tolist())
    return [
        _EpisodePairs(episode, body, number in held_out, current.astype(np.int64), future.astype(np.int64))
        for number, (episode, current, future) in enumerate(taken)
    ]


def _spread(total: int, count: int, random: np.random.Generator) -> np.ndarray:
    """At most `count` of `total` positions, ascending: one at random in each of `count` equal stretches."""
    if total <= count:
        return np.arange(total)
    # A stretch is at least one position long, so that no two draws fall on the same one.
    edges = np.floor(np.arange(count + 1) * (total / count)).astype(np.int64)
    return edges[:-1] + np.floor(random.random(count) * np.diff(edges)).astype(np.int64)


def _read_frames(
    chosen: Sequence[_EpisodePairs], resize: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The frames of all pairs, each once, and the positions in them of current and future frames."""
    needed = [np.unique(np.concatenate([pairs.current, pairs.future])) for pairs in chosen]
    starts = np.cumsum([0, *map(len, needed)])
    read = (
        frame
        for pairs, indices in zip(tqdm(chosen, desc="frames", unit="episode"), needed, strict=True)
        for frame in iter_transformed(pairs.episode, indices.tolist(), resize)
    )
    frames = stack_frames(read, int(starts[-1]))
    current = [
        start + np.searchsorted(indices, pairs.current) for pairs, indices, start in zip(chosen, needed, starts)
    ]
    future = [start + np.searchsorted(indices, pairs.future) for pairs, indices, start in zip(chosen, needed, starts)]
    return frames, np.concatenate(current), np.concatenate(future)
