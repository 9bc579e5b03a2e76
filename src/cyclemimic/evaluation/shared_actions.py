# SPDX-License-Identifier: Apache-2.0
"""Which latent actions, and which pairs of frames, show that the code means the same across tasks or embodiments."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SharedAction:
    """A latent action and the pairs chosen to show it.

    Args:
        codes (`tuple[int, ...]`): The tokens all members share: the full action, or its first tokens where
            `is_partial`.
        indices (`tuple[int, ...]`): Positions of the chosen pairs in the arrays given to [`select_groups`].
        num_pairs (`int`): How many pairs of all carry these tokens.
        is_partial (`bool`): `True` where only the first `len(codes)` tokens are shared, not the full action.
    """

    codes: tuple[int, ...]
    indices: tuple[int, ...]
    num_pairs: int
    is_partial: bool = False


def motion_magnitude(current: np.ndarray, future: np.ndarray) -> float:
    """Mean absolute difference between two frames, uint8 `(height, width, 3)`: 0 (nothing moved) to 1."""
    return float(np.abs(current.astype(np.int16) - future).mean() / 255)


def select_groups(
    codes: np.ndarray,
    group_ids: np.ndarray,
    motion: np.ndarray,
    num_groups: int = 6,
    per_group: int = 3,
    seed: int = 0,
    *,
    episode_ids: np.ndarray | None = None,
    spans: np.ndarray | None = None,
) -> list[SharedAction]:
    """Choose latent actions that occur in at least two tasks (or embodiments), and pairs that show them.

    Actions are taken in the order of how often their *second* most frequent task uses them, so that one used a
    thousand times in one task and once in another does not pass for shared. Members are drawn at random, one task
    after the other, each from another episode where there is one: the gallery shows what the code means, not the best
    matches. Only the half of the pairs with more motion is looked at first, the rest where that is not enough.

    Args:
        codes (`np.ndarray` of shape `(n, L)`): Codes of each pair.
        group_ids (`np.ndarray` of shape `(n,)`): Task or embodiment of each pair; numbers or names. For data of one
            task, the episodes may stand in.
        motion (`np.ndarray` of shape `(n,)`): How much moves in each, such as [`motion_magnitude`].
        num_groups (`int`, *optional*, defaults to 6): Actions to choose at most.
        per_group (`int`, *optional*, defaults to 3): Pairs an action at most, 2 or more.
        seed (`int`, *optional*, defaults to 0): Seed of the draw.
        episode_ids (`np.ndarray` of shape `(n,)`, *optional*): Episode of each pair, unique over all data.
        spans (`np.ndarray` of shape `(n, 2)`, *optional*): First and last frame of each pair. Two pairs of an episode
            are never chosen together if their spans touch, nor at all without `spans`.

    Returns:
        `list[SharedAction]`: At most `num_groups`, each with at least two pairs from two tasks. Where too few full
        actions are shared, also actions of which only the first tokens are; those have `is_partial` set.

    Raises:
        ValueError: If shapes do not agree or a number is out of range.
    """
    codes, group_ids, motion = np.asarray(codes), np.asarray(group_ids), np.asarray(motion, dtype=np.float64)
    _check_selection(codes, group_ids, motion, num_groups, per_group, episode_ids, spans)
    if len(codes) == 0:
        return []
    # Whole numbers from here on, whatever the ids were.
    group_ids = np.unique(group_ids, return_inverse=True)[1]
    episodes = np.arange(len(codes)) if episode_ids is None else np.unique(episode_ids, return_inverse=True)[1]
    draw = np.random.default_rng(seed).permutation(len(codes))
    visible = motion[draw] > np.median(motion)
    chosen: list[SharedAction] = []
    for length in range(codes.shape[1], 0, -1):
        for candidates in (draw[visible], draw):
            for prefix, members in _ranked_prefixes(codes[:, :length], group_ids, candidates):
                taken = any(prefix == shared.codes[:length] for shared in chosen)
                if len(chosen) == num_groups or taken:
                    continue
                indices = _spread(members, group_ids, episodes, spans, per_group)
                if len(set(group_ids[indices].tolist())) < 2:
                    continue
                same = (codes[:, :length] == prefix).all(axis=1)
                chosen.append(SharedAction(prefix, tuple(indices), int(same.sum()), length < codes.shape[1]))
    return chosen


def _ranked_prefixes(
    codes: np.ndarray, group_ids: np.ndarray, candidates: np.ndarray
) -> list[tuple[tuple[int, ...], list[int]]]:
    """Code tuples of two tasks or more with their members in the order of the draw, the best shared first."""
    members: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for index in candidates.tolist():
        members[tuple(codes[index].tolist())].append(index)
    ranked = []
    for prefix, indices in members.items():
        counts = Counter(group_ids[indices].tolist()).most_common(2)
        if len(counts) == 2:
            # Ties fall to the more frequent action, then to the smaller code, so that the order is reproducible.
            ranked.append((-counts[1][1], -len(indices), prefix, indices))
    return [(prefix, indices) for *_, prefix, indices in sorted(ranked)]


def _spread(
    members: list[int], group_ids: np.ndarray, episodes: np.ndarray, spans: np.ndarray | None, count: int
) -> list[int]:
    """Take members one by one, each from the task, and then the episode, used least so far."""
    chosen: list[int] = []
    waiting = np.array(members)
    while waiting.size and len(chosen) < count:
        group_uses = (group_ids[waiting, None] == group_ids[chosen]).sum(axis=1)
        episode_uses = (episodes[waiting, None] == episodes[chosen]).sum(axis=1)
        # Sorting is stable: among equals, the first of the draw.
        best = int(waiting[np.lexsort((episode_uses, group_uses))[0]])
        chosen.append(best)
        waiting = waiting[~_overlaps(waiting, best, episodes, spans)]
    return chosen


def _overlaps(pairs: np.ndarray, other: int, episodes: np.ndarray, spans: np.ndarray | None) -> np.ndarray:
    """Which of `pairs` may not stand beside `other`, itself included."""
    same_episode = episodes[pairs] == episodes[other]
    if spans is None:
        return same_episode
    spans = np.asarray(spans)
    touching = (spans[pairs, 0] <= spans[other, 1]) & (spans[other, 0] <= spans[pairs, 1])
    return (same_episode & touching) | (pairs == other)


def _check_selection(
    codes: np.ndarray,
    group_ids: np.ndarray,
    motion: np.ndarray,
    num_groups: int,
    per_group: int,
    episode_ids: np.ndarray | None,
    spans: np.ndarray | None,
) -> None:
    if codes.ndim != 2:
        raise ValueError(f"codes must be of shape (n, L), got {codes.shape}")
    count = len(codes)
    wanted = {"group_ids": (group_ids, (count,)), "motion": (motion, (count,)), "spans": (spans, (count, 2))}
    wanted["episode_ids"] = (episode_ids, (count,))
    for name, (array, shape) in wanted.items():
        if array is not None and np.shape(array) != shape:
            raise ValueError(f"{name} must be of shape {shape}, got {np.shape(array)}")
    if num_groups < 1 or per_group < 2:
        raise ValueError(f"num_groups must be 1 or more and per_group 2 or more, got {num_groups} and {per_group}")
