# SPDX-License-Identifier: Apache-2.0
"""The policies that pretraining can start with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import AutoConfig, AutoProcessor

from cyclemimic import CycleMimicForLatentActionPrediction, CycleMimicProcessor
from cyclemimic.commands.inputs import read_config
from cyclemimic.data import LatentLabels
from cyclemimic.models.cyclemimic import make_tiny_backbone_config

Policy = tuple[CycleMimicForLatentActionPrediction, CycleMimicProcessor]


def load_policy(checkpoint: str) -> Policy:
    """A policy checkpoint, to pretrain it further."""
    read_config("policy", checkpoint, "cyclemimic")
    model = CycleMimicForLatentActionPrediction.from_pretrained(checkpoint)
    return model, CycleMimicProcessor.from_pretrained(checkpoint)


def make_policy_of_backbone(backbone: str, labels: LatentLabels) -> Policy:
    """
    A policy on a pretrained vision-language model, whose tokenizer gets a word for every code of the labels.

    Raises:
        ValueError: no such model, or one that does not take an image as a fixed number of placeholder tokens.
    """
    try:
        config = AutoConfig.from_pretrained(backbone)
        source = AutoProcessor.from_pretrained(backbone)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"`backbone` must be a checkpoint folder or a Hub id, got {backbone}: {reason}") from error
    image_token_id = getattr(config, "image_token_id", None)
    if image_token_id is None:
        raise ValueError(
            f"`backbone` must be a model whose config has an `image_token_id`, got {backbone} ({config.model_type})."
        )
    image_token = source.tokenizer.convert_ids_to_tokens(image_token_id)
    blank = np.zeros((256, 256, 3), dtype=np.uint8)
    input_ids = np.asarray(source(images=[blank], text=[image_token])["input_ids"][0])
    processor = CycleMimicProcessor(
        image_processor=source.image_processor,
        tokenizer=source.tokenizer,
        num_image_tokens=int((input_ids == image_token_id).sum()),
        image_token=image_token,
        codebook_size=labels.codebook_size,
        num_latent_tokens=labels.num_latent_tokens,
    )
    return CycleMimicForLatentActionPrediction.from_backbone(backbone, processor), processor


def make_tiny_policy(
    instructions: Sequence[str], labels: LatentLabels, image_size: int, hidden_size: int, num_layers: int
) -> Policy:
    """A policy on a small backbone from scratch, with a vocabulary made of the instructions."""
    processor = CycleMimicProcessor.from_texts(
        instructions,
        image_size=image_size,
        codebook_size=labels.codebook_size,
        num_latent_tokens=labels.num_latent_tokens,
    )
    backbone_config = make_tiny_backbone_config(
        processor, image_size, hidden_size=hidden_size, num_text_layers=num_layers
    )
    config = processor.make_config(
        backbone_config,
        action_decoder_hidden_size=hidden_size,
        # As wide as the backbone's heads.
        action_decoder_num_heads=hidden_size // 32,
    )
    return CycleMimicForLatentActionPrediction(config), processor
