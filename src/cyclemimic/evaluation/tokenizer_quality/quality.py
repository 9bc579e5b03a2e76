# SPDX-License-Identifier: Apache-2.0
"""The evaluation of a latent action tokenizer, from data sets to figures."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from cyclemimic.data import DataError, EpisodeSource
from cyclemimic.evaluation_mode import evaluating
from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import LatentActionTokenizerModel

from ..report import ReconstructionRow
from .bootstrap import EpisodeBootstrap
from .codebook import codebook_use, one_hot
from .control_features import control_features
from .cross_embodiment import (
    HeldOutPredictions,
    embodiment_predictability,
    predict_held_out,
    score_predictions,
)
from .cycle import cycle_accuracy
from .motion import TrueMotion, choose_motion, sources_with_motion
from .mutual_information import code_information
from .pair_sample import PairSample, sample_pairs
from .passes import EncodedPairs, TokenizerPasses
from .pictures import picture_rows
from .probes import PROBES, varying_dims
from .reconstruction import reconstruction_scores
from .settings import QualitySettings
from .summary import cross_embodiment_matrices, describe_data, summarise
from .transfer import Transfers, measure_transfer

logger = logging.getLogger(__name__)

ONE_BODY = "The data is of one body; give data sets of two or more to see whether a code means the same on each."
STILL = (
    "It moves alike in all pairs that are held out, or in all the others: there is no R² on it, and means over bodies are over "
    "the others."
)

SILENT = "It has neither states nor actions by which the true motion could be told."


@dataclass(frozen=True, eq=False)
class TokenizerMeasurement:
    """What an evaluation found, and what its page shows.

    Args:
        metrics (`dict`): All figures, as written to `quality.json`.
        sample ([`PairSample`]): The pairs, `n` of them.
        encoded ([`EncodedPairs`]): Their codes.
        predictions ([`HeldOutPredictions`]): Motion of the held-out pairs, read from codes by linear probes.
        transfers (`list[list[Transfers]]`): Actions of body i (first index) on frames of body j.
        pictures (`tuple[ReconstructionRow, ...]`): What some actions do to their own frame and to another.
    """

    metrics: dict[str, Any]
    sample: PairSample
    encoded: EncodedPairs
    predictions: HeldOutPredictions
    transfers: list[list[Transfers]]
    pictures: tuple[ReconstructionRow, ...]


def measure_tokenizer(
    tokenizer: LatentActionTokenizerModel,
    image_processor: LatentActionTokenizerImageProcessor,
    sources: Sequence[EpisodeSource],
    settings: QualitySettings | None = None,
) -> TokenizerMeasurement:
    """
    Measures a latent action tokenizer on data sets whose true motion is known, of one body or of several.

    Args:
        tokenizer ([`LatentActionTokenizerModel`]): On the device to use; left as it was.
        image_processor ([`LatentActionTokenizerImageProcessor`]): The tokenizer's.
        sources (`Sequence[EpisodeSource]`): Data sets with states or actions. Those of one `embodiment` are one body.
        settings ([`QualitySettings`], *optional*): Times between frames, numbers, seed.

    Returns:
        [`TokenizerMeasurement`]: Its `metrics` are a `dict` that JSON can hold; `None` stands for what cannot be measured.
        `"summary"` has the main figures; the other sections, and their keys, are those of the functions that measure them.
        An estimate is `{"value", "low", "high"}`, with a 95 % bootstrap interval over held-out episodes. `"not_measured"`
        has the reason of each section that is `None`, and under `"bodies"` of each body on which there is no R²; under `"sources"`
        that of each data set that is left out.

    Raises:
        DataError: No data set has states or actions, a body too few episodes, a video does not decode.
        ValueError: `motion_dims` that the data does not have.

    Example:

    ```python
    >>> sources = [open_source("panda"), open_source("sawyer")]  # doctest: +SKIP
    >>> measure_tokenizer(tokenizer, image_processor, sources).metrics["summary"]  # doctest: +SKIP
    ```
    """
    start = time.perf_counter()
    settings = settings or QualitySettings()
    true_motion, sample = _take_sample(sources, image_processor, settings)
    passes = TokenizerPasses(tokenizer, image_processor, settings.batch_size)
    held_out = sample.held_out_rows()
    bootstrap = EpisodeBootstrap(
        sample.episode[held_out], sample.body[held_out], settings.num_resamples, settings.seed
    )
    with evaluating(tokenizer):
        encoded = passes.encode_pairs(sample)
        cycle = cycle_accuracy(sample, encoded, passes, bootstrap, settings.seed)
        transfer, transfers = measure_transfer(sample, encoded, passes, bootstrap, settings)
        controls = control_features(sample, passes, settings.seed)
        pictures = picture_rows(sample, encoded, passes, settings.seed)
    codebook_size = tokenizer.config.codebook_size
    codes = one_hot(encoded.codes, codebook_size)
    probes, predictions = _probe(codes, controls, sample, bootstrap, settings.seed)
    sections = {
        "reconstruction": _by_body(sample, lambda rows: reconstruction_scores(encoded, rows)),
        "codebook": _by_body(sample, lambda rows: codebook_use(encoded.codes[rows], codebook_size)),
        "cycle": cycle,
        "probes": probes,
        "embodiment_predictability": _predictability(codes, sample, bootstrap, settings.seed),
        "mutual_information": _by_body(sample, lambda rows: code_information(sample, encoded, rows, settings.seed)),
        "transfer": transfer,
    }
    metrics = _metrics(sections, sample, true_motion, settings) | {"seconds": time.perf_counter() - start}
    if left_out := {source.name: SILENT for source in sources if source.name not in sample.source}:
        metrics["not_measured"]["sources"] = left_out
    return TokenizerMeasurement(json_ready(metrics), sample, encoded, predictions, transfers, pictures)


def json_ready(value: Any) -> Any:
    """The value with tuples as lists and numbers that are not finite as `None`: JSON has no word for them."""
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _take_sample(
    sources: Sequence[EpisodeSource], image_processor: LatentActionTokenizerImageProcessor, settings: QualitySettings
) -> tuple[TrueMotion, PairSample]:
    """The pairs to measure on, with the dimensions in which something moves."""
    sources = sources_with_motion(sources)
    motion = choose_motion(sources, settings.motion, settings.motion_dims)
    sample = sample_pairs(sources, motion, image_processor.resize_frames, settings)
    # The data is of single precision: sums of equal actions differ in their last digits.
    moves = sample.scale > 1e-6 * np.maximum(np.abs(sample.motion).max(axis=0), 1e-30)
    still = [dim for dim, moving in zip(motion.dims, moves, strict=True) if not moving]
    if len(still) == len(moves):
        names = sorted(set(sample.source.tolist()))
        raise DataError(f"{names}: {motion.kind}s {still} move alike in every pair; give other `motion_dims`")
    if still:
        logger.warning("%ss %s move alike in every pair and are left out", motion.kind, still)
    kept = TrueMotion(motion.kind, tuple(dim for dim in motion.dims if dim not in still))
    place = None if sample.place is None else sample.place[:, moves]
    return kept, dataclasses.replace(sample, motion=sample.motion[:, moves], scale=sample.scale[moves], place=place)


def _probe(
    codes: np.ndarray, controls: dict[str, np.ndarray], sample: PairSample, bootstrap: EpisodeBootstrap, seed: int
) -> tuple[dict[str, Any], HeldOutPredictions]:
    """Scores of the probes on codes and controls, and what the linear ones read from codes."""
    motion = sample.standardised
    tasks = {"codes": (codes, motion), "shuffled": (codes, _shuffled_within_bodies(sample, seed))}
    tasks |= {name: (features, motion) for name, features in controls.items()}
    true = motion[sample.held_out_rows()]
    scores: dict[str, dict[str, Any]] = {name: {} for name in tasks}
    predictions = {}
    fits = [(name, kind) for name in tasks for kind in PROBES]
    for name, kind in tqdm(fits, desc="probes", unit="probe"):
        predictions[name, kind] = predict_held_out(PROBES[kind], *tasks[name], sample, seed)
        scores[name][kind] = score_predictions(predictions[name, kind], true, sample, bootstrap)
    return scores, predictions["codes", "linear"]


def _shuffled_within_bodies(sample: PairSample, seed: int) -> np.ndarray:
    """Motions of other pairs of the same body: a probe that still predicts has found a fault of the evaluation."""
    random, order = np.random.default_rng(seed), np.arange(len(sample))
    for body in range(len(sample.bodies)):
        rows = sample.training_rows(body)
        order[rows] = random.permutation(rows)
    return sample.standardised[order]


def _predictability(
    codes: np.ndarray, sample: PairSample, bootstrap: EpisodeBootstrap, seed: int
) -> dict[str, Any] | None:
    """[`embodiment_predictability`] of codes and true motion, where there are bodies to tell apart."""
    if len(sample.bodies) == 1:
        return None
    features = {"codes": codes, "true_motion": sample.standardised}
    return embodiment_predictability(features, sample, bootstrap, seed)


def _metrics(
    sections: dict[str, Any], sample: PairSample, motion: TrueMotion, settings: QualitySettings
) -> dict[str, Any]:
    """The sections with what they are of, their main figures, and what could not be measured."""
    several = len(sample.bodies) > 1
    return {
        "summary": summarise(sections),
        "settings": dataclasses.asdict(settings) | {"motion": motion.kind, "motion_dims": motion.dims},
        "data": describe_data(sample),
        "cross_embodiment": cross_embodiment_matrices(sections["probes"], sample) if several else None,
        **sections,
        "not_measured": _not_measured(sample),
    }


def _not_measured(sample: PairSample) -> dict[str, Any]:
    """Sections that there are not, and bodies that R² leaves out, with the reason of each."""
    missing: dict[str, Any] = {}
    if len(sample.bodies) == 1:
        missing |= dict.fromkeys(("cross_embodiment", "embodiment_predictability"), ONE_BODY)
    still = [
        name
        for body, name in enumerate(sample.bodies)
        if not all(
            varying_dims(sample.standardised[rows]).any()
            for rows in (sample.training_rows(body), sample.held_out_rows(body))
        )
    ]
    if still:
        missing["bodies"] = dict.fromkeys(still, STILL)
    return missing


def _by_body(sample: PairSample, measure: Callable[[np.ndarray], object]) -> dict[str, Any]:
    """A figure of all pairs, and of each body's."""
    by_body = {name: measure(np.flatnonzero(sample.body == body)) for body, name in enumerate(sample.bodies)}
    return {"all": measure(np.arange(len(sample))), "by_body": by_body}
