# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic train-tokenizer`: video → latent action tokenizer (paper §3)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemimic.commands.flags import ON_THE_HUB
from cyclemimic.commands.mixture_arguments import MixtureArguments
from cyclemimic.strict_yaml import load_yaml
from cyclemimic.trainers.training_fields import LatentActionTokenizerTrainingFields

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from cyclemimic import (
        LatentActionTokenizerForPreTraining,
        LatentActionTokenizerImageProcessor,
        LatentActionTokenizerTrainingArguments,
    )
    from cyclemimic.data import FramePairDataset, MixtureDataset, WeightedSource

logger = logging.getLogger(__name__)

# What a tokenizer that was saved for use alone is without, and training begins anew.
_NEW_IN_TRAINING = ("discriminator.", "buffer.", "mean_copy_ratio", "steps", "ac3_steps")
# Fields that say what a tokenizer is trained for, and may change as it goes on; the others say what it is.
_OBJECTIVE_FIELDS = {
    *("reconstruction_weight", "codebook_weight", "commitment_weight", "cycle_weight", "adversarial_weight"),
    *("reconstruction_distance", "motion_weight", "cycle_temperature", "cycle_start_copy_ratio", "cycle_ramp_steps"),
    *("generated_share", "cycle_trains_decoder", "generated_noise_std", "dead_code_steps", "buffer_sampling"),
}


@dataclass
class TrainTokenizerArguments:
    """What `cyclemimic train-tokenizer` trains; the help of each field says what it is."""

    tokenizer: str | None = field(
        default=None, metadata={"help": f"checkpoint {ON_THE_HUB} to go on from; by default a new one"}
    )
    tokenizer_config: str | None = field(
        default=None,
        metadata={
            "help": "fields of LatentActionTokenizerConfig: a JSON or YAML file, JSON text, or in --config a mapping; by "
            "default the paper's size. With `tokenizer`, weights and schedule of the losses alone, in place of its own, and AC3 "
            "joins anew"
        },
    )
    vision_model: str = field(
        default="facebook/dinov2-base",
        metadata={
            "help": f"pretrained vision model {ON_THE_HUB} of a new tokenizer, unless its config has a `vision_config`"
        },
    )


def parse(argv: Sequence[str], prog: str) -> tuple[Any, ...]:
    """Parses the flags of the verb, or its YAML file."""
    from cyclemimic.training_arguments import parse_training_arguments, show_own_help

    description = (
        "Trains a latent action tokenizer on pairs of frames of video, with action-centric cycle consistency."
    )
    own = [MixtureArguments, TrainTokenizerArguments, LatentActionTokenizerTrainingFields]
    show_own_help(own, argv, prog, description)
    from cyclemimic import LatentActionTokenizerTrainingArguments

    return parse_training_arguments(
        [MixtureArguments, TrainTokenizerArguments, LatentActionTokenizerTrainingArguments], argv, prog
    )


def run(
    arguments: tuple[MixtureArguments, TrainTokenizerArguments, LatentActionTokenizerTrainingArguments],
) -> str | None:
    """Trains a tokenizer and saves it with its image processor."""
    from transformers import set_seed

    from cyclemimic import LatentActionTokenizerTrainer
    from cyclemimic.cards.card import CardData
    from cyclemimic.commands.inputs import open_mixture_or_sources
    from cyclemimic.commands.settings import settings_of
    from cyclemimic.commands.training import check_same_data, checkpoint_to_resume, train_and_save, whole_weights
    from cyclemimic.data.mixture import is_mixture

    mixture, wanted, training = arguments
    settings = settings_of(training, mixture, wanted, tokenizer_config=read_tokenizer_config(wanted.tokenizer_config))
    checkpoint = checkpoint_to_resume(training, settings)
    times = training.interval_s, training.min_interval_s
    opened = open_mixture_or_sources(mixture, *times)
    set_seed(training.seed)
    with whole_weights(training):
        model, image_processor = load_or_make_tokenizer(wanted)
    if model.config.interval_s not in (None, training.interval_s):
        logger.warning(
            "`interval_s` is %g s, where %s was trained on %g s",
            *(training.interval_s, wanted.tokenizer, model.config.interval_s),
        )
    pairs = make_pairs(opened.sources, any(map(is_mixture, mixture.data)), training, image_processor)
    check_same_data(checkpoint, settings, pairs, opened.sources)
    trainer = LatentActionTokenizerTrainer(
        model=model,
        args=training,
        train_dataset=pairs,
        processing_class=image_processor,
    )
    trainer.settings = settings
    return train_and_save(trainer, checkpoint, CardData.of_mixture(opened), _made_of(wanted))


def _made_of(arguments: TrainTokenizerArguments) -> str | None:
    """The checkpoint whose weights the tokenizer starts with: another tokenizer's or a vision model's, if any."""
    if arguments.tokenizer is not None or "vision_config" in read_tokenizer_config(arguments.tokenizer_config):
        return arguments.tokenizer
    return arguments.vision_model


def make_pairs(
    sources: Sequence[WeightedSource],
    is_mixed: bool,
    training: LatentActionTokenizerTrainingArguments,
    image_processor: LatentActionTokenizerImageProcessor,
) -> FramePairDataset | MixtureDataset:
    """Pairs to train on. What fits into memory is decoded once for all; more, or a mixture, is decoded as it goes."""
    from cyclemimic.commands.training import fits_in_memory, keep_workers, stream_pairs
    from cyclemimic.data import FramePairDataset

    transform = image_processor.resize_frames
    if not is_mixed and fits_in_memory(sources, transform):
        keep_workers(training)
        videos = [weighted.source for weighted in sources]
        return FramePairDataset(videos, training.interval_s, training.min_interval_s, transform)
    return stream_pairs(sources, transform, training)


def load_or_make_tokenizer(
    arguments: TrainTokenizerArguments,
) -> tuple[LatentActionTokenizerForPreTraining, LatentActionTokenizerImageProcessor]:
    """The tokenizer that training starts with, and its image processor.

    Raises:
        ValueError: no such checkpoint, fields that do not fit it or each other.
    """
    import torch

    from cyclemimic import (
        LatentActionTokenizerConfig,
        LatentActionTokenizerForPreTraining,
        LatentActionTokenizerImageProcessor,
    )
    from cyclemimic.checkpoints import load_whole, read_config
    from cyclemimic.commands.inputs import check_left_out
    from cyclemimic.hub.names import load_pinned

    fields = read_tokenizer_config(arguments.tokenizer_config)
    if arguments.tokenizer is not None:
        check_left_out(arguments, ("vision_model",), "with `tokenizer`, which has one or none")
        if others := sorted(fields.keys() - _OBJECTIVE_FIELDS):
            raise ValueError(
                "`tokenizer_config` must have no other fields than the losses' where `tokenizer` names a checkpoint, "
                f"{sorted(_OBJECTIVE_FIELDS)}, got {others}."
            )
        read_config("tokenizer", arguments.tokenizer, "latent_action_tokenizer")
        image_processor = load_pinned(LatentActionTokenizerImageProcessor.from_pretrained, arguments.tokenizer)
        # In full precision, whatever it was saved in: small steps are lost on weights of bfloat16.
        load, new = LatentActionTokenizerForPreTraining.from_pretrained, _NEW_IN_TRAINING
        model = load_whole(load, "tokenizer", arguments.tokenizer, new, dtype=torch.float32, **fields)
        if fields:
            model.restart_ac3()
        return model, image_processor
    # Refuses a wrong field before a download.
    config = LatentActionTokenizerConfig(**fields)
    if "vision_config" in fields:
        if config.vision_config is not None and config.freeze_vision:
            raise ValueError(
                "`tokenizer_config` must leave `vision_config` out (then `vision_model` is loaded), set it to null, or set "
                "`freeze_vision` to false, got a vision model without weights that training leaves as it is."
            )
        model = LatentActionTokenizerForPreTraining(config)
        image_processor = LatentActionTokenizerImageProcessor(size=config.image_size)
        _try_vision_model("vision_config", fields["vision_config"], model, image_processor)
        return model, image_processor
    vision_model = _load_vision_model(arguments.vision_model)
    model = LatentActionTokenizerForPreTraining.from_vision_model(vision_model, **fields)
    normalisation = _normalisation_of(arguments.vision_model)
    image_processor = LatentActionTokenizerImageProcessor(size=config.image_size, **normalisation)
    _try_vision_model("vision_model", arguments.vision_model, model, image_processor)
    return model, image_processor


def _load_vision_model(checkpoint: str) -> PreTrainedModel:
    from transformers import AutoModel

    from cyclemimic.hub.names import load_pinned
    from cyclemimic.hub.redaction import first_line
    from cyclemimic.models.latent_action_tokenizer.safe_weights_latent_action_tokenizer import load_safetensors

    try:
        return load_pinned(partial(load_safetensors, AutoModel.from_pretrained), checkpoint)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ValueError(
            f"`vision_model` must be a checkpoint folder or a Hub id, got {checkpoint}: {reason}"
        ) from error


def _normalisation_of(vision_model: str) -> dict[str, list[float]]:
    """Mean and deviation by which the vision model's frames were normalised, where its checkpoint says."""
    from transformers import BaseImageProcessor

    from cyclemimic.hub.names import load_pinned

    try:
        fields, _ = load_pinned(BaseImageProcessor.get_image_processor_dict, vision_model)
    except OSError:
        logger.warning("%s has no image processor: frames are normalised as those of ImageNet", vision_model)
        return {}
    if not fields.get("do_normalize", True):
        return {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    return {name: fields[name] for name in ("image_mean", "image_std") if fields.get(name) is not None}


def _try_vision_model(
    name: str,
    given: object,
    model: LatentActionTokenizerForPreTraining,
    image_processor: LatentActionTokenizerImageProcessor,
) -> None:
    """Two blank frames through the vision model, before data is decoded: some lay the images of a batch end to end."""
    import numpy as np
    import torch

    from cyclemimic.hub.redaction import first_line

    blank = np.zeros((2, image_processor.size, image_processor.size, 3), dtype=np.uint8)
    try:
        with torch.no_grad():
            model.tokenizer.vision_features(image_processor.normalize_frames(blank).to(model.dtype))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"`{name}` must make patch tokens of single images of {image_processor.size} pixels, "
            f"got {given}: {first_line(error)}"
        ) from error


def read_tokenizer_config(text_or_file: str | None) -> dict[str, Any]:
    """Fields of a configuration: JSON text, or a file of JSON or YAML; none without either.

    Raises:
        ValueError: it is neither, or no mapping.
    """
    if text_or_file is None:
        return {}
    allowed = "`tokenizer_config` must be a file of JSON or YAML, or JSON text"
    is_text = text_or_file.lstrip().startswith("{")
    if not is_text and not Path(text_or_file).is_file():
        raise ValueError(f"{allowed}, got {text_or_file}, which is no file.")
    try:
        text = text_or_file if is_text else Path(text_or_file).read_text(encoding="utf-8")
        # YAML reads JSON too, but for tabs.
        fields = json.loads(text) if text.lstrip().startswith("{") else load_yaml(text)
    except ValueError as error:
        raise ValueError(f"{allowed}, got {text_or_file}: {error}") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{allowed}, with a mapping of names to values, got {type(fields).__name__}.")
    # Of a saved configuration, not fields to set; how far apart its pairs are, a training says itself.
    ignored = (
        "architectures",
        "auto_map",
        "model_type",
        "transformers_version",
        "dtype",
        "interval_s",
        "min_interval_s",
    )
    return {name: value for name, value in fields.items() if name not in ignored}
