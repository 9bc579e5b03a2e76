# SPDX-License-Identifier: Apache-2.0
"""The pictures of a demo's report: pairs that share a latent action, and what the tokenizer generates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cyclemimic.data import FramePairDataset, LatentLabels
from cyclemimic.evaluation.gallery import GalleryGroup, GalleryPair, motion_magnitude, select_groups
from cyclemimic.evaluation.report import ReconstructionRow
from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import LatentActionTokenizerModel

_GALLERY_PAIRS = 1500


def shared_actions_of(pairs: FramePairDataset, labels: LatentLabels, seed: int) -> tuple[GalleryGroup, ...]:
    """Pairs that share one latent action: across tasks, or across episodes where all is one task (paper, Figure 1)."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(pairs))[:_GALLERY_PAIRS])
    rows = [pairs.pairs[index] for index in chosen]
    episodes = [pairs.episodes[row[0]] for row in rows]
    codes = [
        labels.lookup(episode.source, episode.index, int(row[1])) for episode, row in zip(episodes, rows, strict=True)
    ]
    instructions = [str(episode.instruction) for episode in episodes]
    items = [pairs[index] for index in chosen]
    motion = motion_magnitude(
        np.stack([item["current"] for item in items]), np.stack([item["future"] for item in items])
    )
    groups = select_groups(
        np.stack(codes),
        np.array(instructions if len(set(instructions)) > 1 else [episode.index for episode in episodes]),
        motion,
        seed=seed,
        episode_ids=np.array([episode.index for episode in episodes]),
        spans=np.array([row[1:] for row in rows]),
    )
    return tuple(
        GalleryGroup(
            codes=group.codes + (None,) * (labels.num_latent_tokens - len(group.codes)),
            pairs=tuple(
                GalleryPair(items[index]["current"], items[index]["future"], instructions[index])
                for index in group.indices
            ),
            note=f"{group.num_pairs} of {len(items)} pairs" + (", the first words only" if group.is_partial else ""),
        )
        for group in groups
    )


def reconstructions_of(
    pairs: FramePairDataset, tokenizer_dir: Path, seed: int, num_rows: int = 6
) -> tuple[ReconstructionRow, ...]:
    """Real, reconstructed and transferred futures of pairs drawn at random."""
    random = np.random.default_rng(seed + 1)
    items = [pairs[int(index)] for index in random.choice(len(pairs), 2 * num_rows, replace=len(pairs) < 2 * num_rows)]
    tokenizer = LatentActionTokenizerModel.from_pretrained(tokenizer_dir).eval()
    image_processor = LatentActionTokenizerImageProcessor.from_pretrained(tokenizer_dir)
    frames = image_processor([item["current"] for item in items], [item["future"] for item in items])
    current, future = frames["pixel_values"], frames["future_pixel_values"]
    with torch.inference_mode():
        codes = tokenizer.encode(current[:num_rows], future[:num_rows]).codes
        # The first half of the draw gives the actions; the second half the frames they are applied to.
        generated = tokenizer.decode(current, codes=codes.repeat(2, 1)).pixel_values
    pictures = [image_processor.post_process(tensor) for tensor in (current, future, generated)]
    return tuple(
        ReconstructionRow(
            current=pictures[0][row],
            future=pictures[1][row],
            reconstructed=pictures[2][row],
            transfer_current=pictures[0][num_rows + row],
            transferred=pictures[2][num_rows + row],
            codes=tuple(codes[row].tolist()),
            caption=f"{items[row]['instruction']} → {items[num_rows + row]['instruction']}",
        )
        for row in range(num_rows)
    )
