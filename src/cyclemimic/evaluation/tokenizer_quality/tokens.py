# SPDX-License-Identifier: Apache-2.0
"""The tokens of an evaluation's pairs, for other benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .pair_sample import PairSample
from .passes import EncodedPairs


def write_tokens(path: str | Path, sample: PairSample, encoded: EncodedPairs) -> None:
    """
    Writes the tokens of every pair as plain arrays, to be read with `numpy.load(path, allow_pickle=False)`. Row by
    row, `tokens` and `indices` are what LARYBench keeps of an image pair under these names; `examples/larybench` makes them of its own
    pairs.

    - **tokens** (float32, `(n, num_latent_tokens, codebook_dim)`): vectors of the words.
    - **indices** (int64, `(n, num_latent_tokens)`): the words.
    - **actions** (float32, `(n, num_dims)`): true motion, in the units of the data.
    - **source**, **embodiment** (text), **episode_index**, **frame_index**, **future_index** (int64, `(n,)`): which
      pair.
    - **held_out** (bool, `(n,)`): whether its episode was held out from the probes.
    """
    with Path(path).open("wb") as file:
        np.savez_compressed(
            file,
            tokens=encoded.quantized,
            indices=encoded.codes,
            actions=sample.motion.astype(np.float32),
            source=sample.source,
            embodiment=np.array(sample.bodies)[sample.body],
            episode_index=sample.episode_index,
            frame_index=sample.frame_index,
            future_index=sample.future_index,
            held_out=sample.held_out,
        )
