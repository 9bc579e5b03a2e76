# SPDX-License-Identifier: Apache-2.0
"""Cycle accuracy: an action applied to another frame, and read back from the frame it makes (paper §3.1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .bootstrap import EpisodeBootstrap, estimate
from .pair_sample import PairSample
from .passes import EncodedPairs, TokenizerPasses


def cycle_accuracy(
    sample: PairSample, encoded: EncodedPairs, passes: TokenizerPasses, bootstrap: EpisodeBootstrap, seed: int
) -> dict[str, Any]:
    """
    How often `E(o, D(o, z)) = z`, on held-out frames `o`, with actions `z` of held-out pairs of other bodies, or of
    other episodes where there is one body (not held out, where but one is). A watermark or a collapsed codebook wins it too: it says nothing without
    probes and transfer.

    Args:
        sample ([`PairSample`]), encoded ([`EncodedPairs`]): The pairs and their codes.
        passes ([`TokenizerPasses`]): The tokenizer.
        bootstrap ([`EpisodeBootstrap`]): Over the held-out episodes.
        seed (`int`): Seed of the draw of actions.

    Returns:
        `dict`: `token_accuracy`, `action_accuracy` (all tokens at once), with intervals over the frames' episodes;
        `token_chance`, `action_chance`, what always answering the commonest would score; `crosses_bodies`.
    """
    held_out = sample.held_out_rows()
    drawn = encoded.codes[draw_other_pairs(sample, held_out, held_out, np.random.default_rng(seed))]
    frames = sample.frames[sample.current[held_out]]
    is_right = passes.encode(frames, passes.decode(frames, drawn)) == drawn
    rows = np.arange(len(held_out))
    scores = {"token_accuracy": is_right.mean(axis=1), "action_accuracy": is_right.all(axis=1).astype(np.float64)}
    _, occurrences = np.unique(drawn, axis=0, return_counts=True)
    return {
        **{name: estimate(values.mean(), bootstrap.mean(values, rows)) for name, values in scores.items()},
        "token_chance": float(np.mean([np.bincount(words).max() / len(words) for words in drawn.T])),
        "action_chance": float(occurrences.max() / len(drawn)),
        "crosses_bodies": len(sample.bodies) > 1,
    }


def draw_other_pairs(
    sample: PairSample, frames_of: np.ndarray, actions_of: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """
    For each pair a pair whose action to apply to its frame: of another body, else of another episode; where none of these can
    be drawn, of any other episode; where there is none, any.

    Args:
        sample ([`PairSample`]): The pairs.
        frames_of (`np.ndarray` of shape `(m,)`): Pairs whose current frames are used.
        actions_of (`np.ndarray` of shape `(k,)`): Pairs to draw from.
        random (`np.random.Generator`): Source of chance.

    Returns:
        `np.ndarray` of shape `(m,)`: Their positions, out of `actions_of` where one of these is of elsewhere.
    """
    drawn = np.empty(len(frames_of), dtype=np.int64)
    # Pair by pair would compare every pair with every other: all frames of an episode draw from one pool.
    for episode in np.unique(sample.episode[frames_of]):
        mine = np.flatnonzero(sample.episode[frames_of] == episode)
        body = sample.body[frames_of[mine[0]]]
        pools = (
            actions_of[sample.body[actions_of] != body],
            actions_of[sample.episode[actions_of] != episode],
            np.flatnonzero(sample.episode != episode),
            actions_of,
        )
        drawn[mine] = random.choice(next(pool for pool in pools if len(pool)), len(mine))
    return drawn
