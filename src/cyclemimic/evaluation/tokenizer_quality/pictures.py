# SPDX-License-Identifier: Apache-2.0
"""Pictures of what latent actions do: to the frame they were read from, and to another."""

from __future__ import annotations

import numpy as np

from ..report import ReconstructionRow
from .cycle import draw_other_pairs
from .pair_sample import PairSample
from .passes import EncodedPairs, TokenizerPasses

_NUM_PICTURES = 8


def picture_rows(
    sample: PairSample, encoded: EncodedPairs, passes: TokenizerPasses, seed: int
) -> tuple[ReconstructionRow, ...]:
    """Held-out pairs of the half in which more moves, each body's in turn, and their actions on another frame."""
    random, held_out = np.random.default_rng(seed), sample.held_out_rows()
    pools = []
    for body in range(len(sample.bodies)):
        rows = sample.held_out_rows(body)
        change = encoded.copy_squared_error[rows]
        pools.append(random.permutation(rows[change >= np.median(change)])[:_NUM_PICTURES])
    turns = [pool[turn] for turn in range(_NUM_PICTURES) for pool in pools if turn < len(pool)]
    rows = np.array(turns[: max(_NUM_PICTURES, len(pools))])
    others = draw_other_pairs(sample, rows, held_out, random)
    current, applied_to = sample.frames[sample.current[rows]], sample.frames[sample.current[others]]
    codes = encoded.codes[rows]
    reconstructed, transferred = passes.decode(current, codes), passes.decode(applied_to, codes)
    return tuple(
        ReconstructionRow(
            current=current[index],
            future=sample.frames[sample.future[row]],
            reconstructed=reconstructed[index],
            transfer_current=applied_to[index],
            transferred=transferred[index],
            codes=tuple(codes[index].tolist()),
            caption=f"{sample.bodies[sample.body[row]]} → {sample.bodies[sample.body[others[index]]]}",
        )
        for index, row in enumerate(rows)
    )
