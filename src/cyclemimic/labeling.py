# SPDX-License-Identifier: Apache-2.0
"""Video → latent action labels: the one place where the tokenizer meets the data (paper §4, pretraining)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from cyclemimic.data import Episode, EpisodeSource, FramePairDataset, LabelWriter
from cyclemimic.data.episode import list_episodes
from cyclemimic.data.pairs import future_indices
from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import LatentActionTokenizerModel


def label_videos(
    tokenizer: LatentActionTokenizerModel,
    image_processor: LatentActionTokenizerImageProcessor,
    sources: Sequence[EpisodeSource],
    output_dir: str | Path,
    interval_s: float,
    min_interval_s: float,
    tokenizer_name: str,
    batch_size: int = 128,
) -> Path:
    """
    Writes the latent action of every frame pair of the sources, a row a pair, as [`cyclemimic.data.LatentLabels`] reads
    them. Each frame is decoded once and its vision features are computed once, though it stands in two pairs.

    Args:
        tokenizer ([`LatentActionTokenizerModel`]): On the device to use.
        image_processor ([`LatentActionTokenizerImageProcessor`]): The tokenizer's.
        sources (`Sequence[EpisodeSource]`): Data sets; actions are not read.
        output_dir (`str` or `Path`): Folder to make; it appears when all is written.
        interval_s, min_interval_s (`float`): As in [`cyclemimic.data.FramePairDataset`].
        tokenizer_name (`str`): Folder or Hub id, kept with the labels.
        batch_size (`int`, *optional*, defaults to 128): Frames, and pairs, a forward.

    Returns:
        `Path`: `output_dir`.

    Raises:
        DataError: `output_dir` exists, a video does not decode, or no episode is long enough for a pair.
    """
    config = tokenizer.config
    metadata = {"interval_s": interval_s, "min_interval_s": min_interval_s}
    with (
        _evaluating(tokenizer),
        LabelWriter(output_dir, config.codebook_size, config.num_latent_tokens, tokenizer_name, metadata) as writer,
    ):
        for episode in tqdm(list_episodes(sources), desc="label", unit="episode"):
            futures = future_indices(episode, interval_s, min_interval_s)
            if len(futures):
                codes = _encode_episode(tokenizer, image_processor, episode, futures, batch_size)
                writer.add(_label_columns(episode, futures, codes))
    return Path(output_dir)


@torch.inference_mode()
def encode_pairs(
    tokenizer: LatentActionTokenizerModel,
    image_processor: LatentActionTokenizerImageProcessor,
    pairs: FramePairDataset,
    indices: np.ndarray,
    batch_size: int = 128,
) -> np.ndarray:
    """
    The latent actions of some frame pairs.

    Args:
        tokenizer ([`LatentActionTokenizerModel`]): On the device to use.
        image_processor ([`LatentActionTokenizerImageProcessor`]): The tokenizer's.
        pairs ([`FramePairDataset`]): The pairs.
        indices (`np.ndarray` of shape `(n,)`): Which of them.
        batch_size (`int`, *optional*, defaults to 128): Pairs a forward.

    Returns:
        `np.ndarray` of shape `(n, num_latent_tokens)`: codes, int64.
    """
    codes = []
    with _evaluating(tokenizer):
        for start in tqdm(range(0, len(indices), batch_size), desc="encode", unit="batch"):
            items = [pairs[int(index)] for index in indices[start : start + batch_size]]
            inputs = image_processor([item["current"] for item in items], [item["future"] for item in items])
            frames = (inputs["pixel_values"], inputs["future_pixel_values"])
            codes.append(tokenizer.encode(*(frame.to(tokenizer.device) for frame in frames)).codes.cpu())
    return torch.cat(codes).numpy()


@contextmanager
def _evaluating(tokenizer: LatentActionTokenizerModel) -> Iterator[None]:
    training = tokenizer.training
    tokenizer.eval()
    try:
        yield
    finally:
        tokenizer.train(training)


@torch.inference_mode()
def _encode_episode(
    tokenizer: LatentActionTokenizerModel,
    image_processor: LatentActionTokenizerImageProcessor,
    episode: Episode,
    futures: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    device = tokenizer.device
    features = torch.cat(
        [
            tokenizer.vision_features(image_processor(frames)["pixel_values"].to(device))
            for frames in _blocks(episode.iter_frames(), batch_size)
        ]
    )
    future_features = features[torch.from_numpy(futures).long().to(device)]
    pairs = zip(features[: len(futures)].split(batch_size), future_features.split(batch_size), strict=True)
    codes = [
        tokenizer.encode_features(tokenizer.encoder.read_current(current), future).codes for current, future in pairs
    ]
    return torch.cat(codes).cpu().numpy()


def _blocks(frames: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    block: list[np.ndarray] = []
    for frame in frames:
        block.append(frame)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _label_columns(episode: Episode, futures: np.ndarray, codes: np.ndarray) -> dict[str, object]:
    count = len(futures)
    return {
        "source": [episode.source] * count,
        "episode_index": np.full(count, episode.index),
        "frame_index": np.arange(count),
        "future_index": futures,
        "instruction": [episode.instruction] * count,
        "codes": codes,
    }
