# SPDX-License-Identifier: Apache-2.0
"""Video → latent action labels: the one place where the tokenizer meets the data (paper §4, pretraining)."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from cyclemimic.cards.card import CardData, plain, render_label_card
from cyclemimic.data import DataError, Episode, EpisodeSource, FramePairDataset, LabelFolder
from cyclemimic.data.episode_source import list_episodes
from cyclemimic.data.labels.label_columns import PLACE_COLUMN
from cyclemimic.data.pairs import check_intervals, future_indices
from cyclemimic.evaluation_mode import evaluating
from cyclemimic.hub.names import public_name
from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import (
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerModel,
)

logger = logging.getLogger(__name__)


def label_videos(
    tokenizer: LatentActionTokenizerModel | LatentActionTokenizerForPreTraining,
    image_processor: LatentActionTokenizerImageProcessor,
    sources: Sequence[EpisodeSource],
    output_dir: str | Path,
    interval_s: float,
    min_interval_s: float,
    tokenizer_name: str,
    batch_size: int = 128,
    rows_per_shard: int = 10_000,
    rank: int = 0,
    world_size: int = 1,
    own_intervals: Mapping[str, tuple[float, float]] | None = None,
    data: CardData | None = None,
) -> Path:
    """
    Writes the latent action of every frame pair of the sources, a row a pair, as [`cyclemimic.data.LatentLabels`] reads
    them, and a card. Each frame is decoded once and its vision features are computed once, though it stands in two pairs.

    Killed at any moment and called again with the same settings, it makes the shards that are missing. Several
    processes, each with its `rank`, share the shards; `output_dir` appears with the last shard of all.

    Args:
        tokenizer ([`LatentActionTokenizerModel`]): On the device to use; of [`LatentActionTokenizerForPreTraining`] it is
            taken out.
        image_processor ([`LatentActionTokenizerImageProcessor`]): The tokenizer's.
        sources (`Sequence[EpisodeSource]`): Data sets; actions are not read.
        output_dir (`str` or `Path`): Folder to make; until it is complete, the work is in `<output_dir>.partial`.
        interval_s, min_interval_s (`float`): As in [`cyclemimic.data.FramePairDataset`].
        tokenizer_name (`str`): Folder or Hub id. With the labels, which are there to be published, is kept the id or the
            folder's name, and a hash of the weights.
        batch_size (`int`, *optional*, defaults to 128): Frames, and pairs, a forward.
        rows_per_shard (`int`, *optional*, defaults to 10,000): Rows after which a shard takes no further episode.
        rank, world_size (`int`, *optional*, default to 0 and 1): Which of how many processes this is.
        own_intervals (`Mapping[str, tuple[float, float]]`, *optional*): `interval_s` and `min_interval_s` of data sets
            that have others, by the data set's name.
        data ([`CardData`], *optional*): What the card says of the data sets, where more is known of them, such as what was left out.

    Returns:
        `Path`: `output_dir`.

    Raises:
        DataError: `output_dir` holds something else, a video does not decode, or no episode is long enough for a pair.
        ValueError: another `tokenizer`, or an image processor of another size; `sources` that is no list of data sets; times
            that are none, or of data sets that there are not; no `tokenizer_name`; a `batch_size` below 1; no such `rank`.
    """
    tokenizer = _checked_tokenizer(tokenizer, image_processor)
    _check_run(batch_size, rank, world_size, tokenizer_name)
    episodes = list_episodes(sources)
    own_intervals = own_intervals or {}
    times = _intervals_of(sources, (interval_s, min_interval_s), own_intervals)
    shards = _plan_shards(episodes, times, rows_per_shard)
    settings = {
        "tokenizer": public_name(tokenizer_name),
        "tokenizer_revision": tokenizer_revision(tokenizer, image_processor),
        "codebook_size": tokenizer.config.codebook_size,
        "num_latent_tokens": tokenizer.config.num_latent_tokens,
        "interval_s": interval_s,
        "min_interval_s": min_interval_s,
        "own_intervals": {name: list(own) for name, own in sorted(own_intervals.items())},
        "rows_per_shard": rows_per_shard,
        "data": _describe_data(episodes),
        "cameras": {episode.source: episode.camera for episode in episodes},
    }
    folder = LabelFolder(output_dir, settings, len(shards))
    if not folder.start():
        logger.info("%s holds all these labels already: nothing to do; remove it to make them anew", output_dir)
        return Path(output_dir)
    own = range(rank, len(shards), world_size)
    own_pairs = sum(_num_pairs(shards[index]) for index in own)
    with evaluating(tokenizer), tqdm(desc="label", unit="pair", total=own_pairs, disable=rank > 0) as progress:
        for index in own:
            if folder.is_missing(index):
                encode = partial(_encode_episode, tokenizer, image_processor, batch_size=batch_size)
                folder.write(index, _label_shard(encode, shards[index], progress))
            else:
                progress.update(_num_pairs(shards[index]))
    described = CardData.of_sources(sources) if data is None else data
    folder.finish(_card(Path(output_dir).resolve().name, described, settings, sum(map(_num_pairs, shards))))
    return Path(output_dir)


def tokenizer_revision(
    tokenizer: LatentActionTokenizerModel, image_processor: LatentActionTokenizerImageProcessor
) -> str:
    """
    What tells a tokenizer from one trained again: a hash of its weights and how it sees, the same for a folder and for what
    was pushed of it.
    """
    digest = hashlib.sha256(image_processor.to_json_string().encode())
    for name, value in tokenizer.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:40]


@torch.inference_mode()
def encode_pairs(
    tokenizer: LatentActionTokenizerModel | LatentActionTokenizerForPreTraining,
    image_processor: LatentActionTokenizerImageProcessor,
    pairs: FramePairDataset,
    indices: np.ndarray,
    batch_size: int = 128,
    on_pair: Callable[[dict[str, Any]], object] | None = None,
) -> np.ndarray:
    """
    The latent actions of some frame pairs.

    Args:
        tokenizer ([`LatentActionTokenizerModel`]): On the device to use; of [`LatentActionTokenizerForPreTraining`] it is
            taken out.
        image_processor ([`LatentActionTokenizerImageProcessor`]): The tokenizer's.
        pairs ([`FramePairDataset`]): The pairs.
        indices (`np.ndarray` of shape `(n,)`): Which of them.
        batch_size (`int`, *optional*, defaults to 128): Pairs a forward.
        on_pair (`Callable`, *optional*): Is given every pair in turn, for what else is to be read from its frames: to decode
            them again may take as long.

    Returns:
        `np.ndarray` of shape `(n, num_latent_tokens)`: codes, int64.

    Raises:
        ValueError: another `tokenizer`, an image processor of another size, or a `batch_size` below 1.
    """
    tokenizer = _checked_tokenizer(tokenizer, image_processor)
    _check_at_least("batch_size", batch_size, 1)
    codes = []
    with evaluating(tokenizer):
        for start in tqdm(range(0, len(indices), batch_size), desc="encode", unit="batch"):
            items = [pairs[int(index)] for index in indices[start : start + batch_size]]
            if on_pair is not None:
                for item in items:
                    on_pair(item)
            inputs = image_processor([item["current"] for item in items], [item["future"] for item in items])
            frames = (inputs["pixel_values"], inputs["future_pixel_values"])
            codes.append(tokenizer.encode(*(frame.to(tokenizer.device) for frame in frames)).codes.cpu())
    return torch.cat(codes).numpy()


def _checked_tokenizer(
    tokenizer: Any, image_processor: LatentActionTokenizerImageProcessor
) -> LatentActionTokenizerModel:
    """The tokenizer, taken out of what trains it; `ValueError` unless it is one, and sees what the processor makes."""
    model = tokenizer.tokenizer if _is_a(tokenizer, LatentActionTokenizerForPreTraining) else tokenizer
    if not _is_a(model, LatentActionTokenizerModel):
        raise ValueError(f"`tokenizer` must be a LatentActionTokenizerModel, got {type(tokenizer).__name__}.")
    if not _is_a(image_processor, LatentActionTokenizerImageProcessor):
        raise ValueError(
            "`image_processor` must be a LatentActionTokenizerImageProcessor, the tokenizer's, got "
            f"{type(image_processor).__name__}."
        )
    if image_processor.size != model.config.image_size:
        raise ValueError(
            f"`image_processor` must make images of the tokenizer's `image_size`, {model.config.image_size}, got "
            f"{image_processor.size}."
        )
    return model


def _is_a(thing: object, kind: type) -> bool:
    # By name: where a checkpoint's own code was loaded, its classes are others, of the same name.
    return any(each.__name__ == kind.__name__ for each in type(thing).__mro__)


def _check_run(batch_size: int, rank: int, world_size: int, tokenizer_name: str | Path) -> None:
    for name, number, lowest in (("batch_size", batch_size, 1), ("world_size", world_size, 1), ("rank", rank, 0)):
        _check_at_least(name, number, lowest)
    if rank >= world_size:
        raise ValueError(f"`rank` must be below `world_size` ({world_size}), got {rank}.")
    if not isinstance(tokenizer_name, str | Path) or not str(tokenizer_name).strip():
        raise ValueError(f"`tokenizer_name` must be a folder or an id on the Hub, got {tokenizer_name!r}.")


def _check_at_least(name: str, number: object, lowest: int) -> None:
    if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < lowest:
        raise ValueError(f"`{name}` must be a whole number of at least {lowest}, got {number!r}.")


@torch.inference_mode()
def _encode_episode(
    tokenizer: LatentActionTokenizerModel,
    image_processor: LatentActionTokenizerImageProcessor,
    episode: Episode,
    futures: np.ndarray,
    batch_size: int,
) -> np.ndarray:
    codes = []
    # Vision features of the frames from the next pair's current one on: flat memory, however long the episode.
    window = torch.empty(0, device=tokenizer.device)
    start = num_seen = 0
    for frames in _blocks(episode.iter_frames(), batch_size):
        pixel_values = image_processor(frames)["pixel_values"]
        tokenizer.check_frames(pixel_values)
        features = tokenizer.vision_features(pixel_values.to(tokenizer.device, tokenizer.dtype))
        window = torch.cat((window, features)) if len(window) else features
        num_seen += len(frames)
        while start < len(futures) and futures[start : start + batch_size][-1] < num_seen:
            ahead = torch.from_numpy(futures[start : start + batch_size] - start).long().to(tokenizer.device)
            current = tokenizer.encoder.read_current(window[: len(ahead)])
            codes.append(tokenizer.encode_features(current, window[ahead]).codes)
            window = window[len(ahead) :]
            start += len(ahead)
    return torch.cat(codes).cpu().numpy()


def _intervals_of(
    sources: Sequence[EpisodeSource], interval: tuple[float, float], own_intervals: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Interval and shortest pair of each data set, by its name, which must be such."""
    times = {source.name: interval for source in sources}
    if unknown := sorted(own_intervals.keys() - times.keys()):
        raise ValueError(f"`own_intervals` must be of data sets out of {sorted(times)}, got {unknown}.")
    times |= own_intervals
    for each in times.values():
        check_intervals(*each)
    return times


def _plan_shards(
    episodes: Sequence[Episode], times: Mapping[str, tuple[float, float]], rows_per_shard: int
) -> list[list[tuple[Episode, np.ndarray]]]:
    """Whole episodes, with the future frames of their pairs, that make up each shard."""
    shards: list[list[tuple[Episode, np.ndarray]]] = []
    room = 0
    for episode in episodes:
        futures = future_indices(episode, *times[episode.source])
        if not len(futures):
            continue
        if room <= 0:
            shards.append([])
            room = rows_per_shard
        shards[-1].append((episode, futures))
        room -= len(futures)
    if not shards:
        shortest = min(min_interval_s for _, min_interval_s in times.values())
        raise DataError(f"{sorted(times)}: no episode has two frames {shortest:g} s apart; lower `min_interval_s`")
    return shards


def _num_pairs(shard: Sequence[tuple[Episode, np.ndarray]]) -> int:
    return sum(len(futures) for _, futures in shard)


def _label_shard(
    encode: Callable[[Episode, np.ndarray], np.ndarray], shard: Sequence[tuple[Episode, np.ndarray]], progress: tqdm
) -> dict[str, np.ndarray]:
    """The columns of a shard, with the codes that `encode` finds for the pairs of an episode."""
    parts = []
    for episode, futures in shard:
        parts.append(_label_columns(episode, futures, encode(episode, futures)))
        progress.update(len(futures))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _describe_data(episodes: Sequence[Episode]) -> dict[str, str]:
    """What each data set holds, in words, and a hash of the list of its episodes."""
    described: dict[str, str] = {}
    for name in dict.fromkeys(episode.source for episode in episodes):
        own = [episode for episode in episodes if episode.source == name]
        listed = [(episode.index, episode.num_frames, episode.fps, episode.camera, episode.place) for episode in own]
        digest = hashlib.sha256(json.dumps(listed).encode()).hexdigest()[:12]
        num_frames = sum(episode.num_frames for episode in own)
        described[name] = (
            f"{len(own)} episodes, {num_frames} frames at {own[0].fps:g} fps of {own[0].camera} ({digest})"
        )
    return described


def _blocks(frames: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    block: list[np.ndarray] = []
    for frame in frames:
        block.append(frame)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _card(title: str, data: CardData, settings: Mapping[str, Any], num_pairs: int) -> str:
    own_intervals = {plain(name): own for name, own in settings["own_intervals"].items()}
    metadata = {**settings, "tokenizer": plain(settings["tokenizer"]), "own_intervals": own_intervals}
    return render_label_card(title, data, metadata=metadata, num_pairs=num_pairs)


def _label_columns(episode: Episode, futures: np.ndarray, codes: np.ndarray) -> dict[str, object]:
    count = len(futures)
    return {
        "source": np.full(count, episode.source, dtype=object),
        "episode_index": np.full(count, episode.index),
        "frame_index": np.arange(count),
        "future_index": futures,
        "instruction": np.array([episode.instruction_at(index) for index in range(count)], dtype=object),
        "codes": codes,
        PLACE_COLUMN: np.full(count, episode.place, dtype=object),
    }
