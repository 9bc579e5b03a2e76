# SPDX-License-Identifier: Apache-2.0
"""The pictures of a demo's report: pairs that share a latent action, and what the tokenizer generates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cyclemimic.data import FramePairDataset
from cyclemimic.evaluation.action_page.labelled_pairs import LabelledPairs
from cyclemimic.evaluation.gallery import GalleryGroup
from cyclemimic.evaluation.pair_gallery import gallery_of_pairs
from cyclemimic.evaluation.report import ReconstructionRow
from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import LatentActionTokenizerModel

_GALLERY_PAIRS = 1500
# Of reconstructed and transferred futures.
_NUM_ROWS = 6


def shared_actions_of(labelled: LabelledPairs, seed: int) -> tuple[GalleryGroup, ...]:
    """Pairs that share one latent action, by their labels."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(labelled.indices))[:_GALLERY_PAIRS])
    return gallery_of_pairs(labelled.pairs, labelled.indices[chosen], labelled.codes[chosen], seed=seed)


def reconstructions_of(pairs: FramePairDataset, tokenizer_dir: Path, seed: int) -> tuple[ReconstructionRow, ...]:
    """Real, reconstructed and transferred futures of pairs drawn at random."""
    random = np.random.default_rng(seed + 1)
    items = [
        pairs[int(index)] for index in random.choice(len(pairs), 2 * _NUM_ROWS, replace=len(pairs) < 2 * _NUM_ROWS)
    ]
    tokenizer = LatentActionTokenizerModel.from_pretrained(tokenizer_dir).eval()
    image_processor = LatentActionTokenizerImageProcessor.from_pretrained(tokenizer_dir)
    frames = image_processor([item["current"] for item in items], [item["future"] for item in items])
    current, future = frames["pixel_values"], frames["future_pixel_values"]
    with torch.inference_mode():
        codes = tokenizer.encode(current[:_NUM_ROWS], future[:_NUM_ROWS]).codes
        # The first half of the draw gives the actions; the second half the frames they are applied to.
        generated = tokenizer.decode(current, codes=codes.repeat(2, 1)).pixel_values
    pictures = [image_processor.post_process(tensor) for tensor in (current, future, generated)]
    return tuple(
        ReconstructionRow(
            current=pictures[0][row],
            future=pictures[1][row],
            reconstructed=pictures[2][row],
            transfer_current=pictures[0][_NUM_ROWS + row],
            transferred=pictures[2][_NUM_ROWS + row],
            codes=tuple(codes[row].tolist()),
            caption=f"{items[row]['instruction']} → {items[_NUM_ROWS + row]['instruction']}",
        )
        for row in range(_NUM_ROWS)
    )
