# SPDX-License-Identifier: Apache-2.0
"""The policies that pretraining and fine-tuning start with, and their processors."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from cyclemimic import (
    CycleMimicConfig,
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
)
from cyclemimic.checkpoints import load_whole, read_config
from cyclemimic.data import LatentLabels
from cyclemimic.hub.names import load_pinned
from cyclemimic.hub.redaction import first_line
from cyclemimic.models.cyclemimic import make_tiny_backbone_config
from cyclemimic.models.cyclemimic.image_batches_cyclemimic import IMAGE_INPUTS
from cyclemimic.models.cyclemimic.new_rows_cyclemimic import initialise_rows
from cyclemimic.models.cyclemimic.processing_cyclemimic import CONFIG_FIELDS, DEFAULT_PROMPT_TEMPLATE
from cyclemimic.models.cyclemimic.safe_weights_cyclemimic import load_safetensors

Policy = tuple[CycleMimicForLatentActionPrediction, CycleMimicProcessor]

# Settings of image processors that show a model an image in tiles beside the whole.
_TILING = {"do_image_splitting", "do_pan_and_scan"}
# Pixels of an image for backbones that take any size: the paper's.
_SQUARE_SIZE = 224
_PROBE_INSTRUCTION = "open the drawer"


def load_policy(checkpoint: str, camera_names: Sequence[str] | None = None) -> Policy:
    """
    A policy checkpoint, to pretrain it further, in full precision; with the cameras of these names, or one where there are
    none, and without what a fine-tuning before taught it: video tells neither the robot's state nor its actions.
    """
    config = cast(CycleMimicConfig, read_config("policy", checkpoint, "cyclemimic"))
    inputs: dict[str, Any] = {"state_dim": None}
    if camera_names is not None or config.num_cameras > 1:
        inputs["camera_names"] = None if camera_names is None else list(camera_names)
    forgotten: dict[str, Any] = {
        "n_action_steps": None,
        "temporal_ensemble_coeff": None,
        "action_decoding": "act",
        "action_loss_weight": 1.0,
        "latent_action_loss_weight": 1.0,
    }
    load_processor = partial(CycleMimicProcessor.from_pretrained, action_statistics=None, state_statistics=None)
    load_model = CycleMimicForLatentActionPrediction.from_pretrained
    model = load_whole(load_model, "policy", checkpoint, dtype=torch.float32, **forgotten, **inputs)
    return model, load_pinned(load_processor, checkpoint, **inputs)


def make_policy_of_backbone(
    backbone: str,
    labels: LatentLabels,
    pad_vocabulary_to: int | None = None,
    camera_names: Sequence[str] | None = None,
    num_act_tokens: int = 1,
) -> Policy:
    """
    A policy on a pretrained vision-language model, in full precision, whose tokenizer gets a word for every code of the labels
    and `num_act_tokens` query tokens; its vocabulary is padded to a multiple of `pad_vocabulary_to`.

    Raises:
        ValueError: no such model, or one that does not take an image as a fixed number of placeholder tokens.
    """
    try:
        config = load_pinned(AutoConfig.from_pretrained, backbone, trust_remote_code=False)
        source = load_pinned(AutoProcessor.from_pretrained, backbone, trust_remote_code=False)
    # Some processors need packages for video, even where none is read.
    except (OSError, ValueError, ImportError) as error:
        reason = first_line(error)
        raise ValueError(f"`backbone` must be a checkpoint folder or a Hub id, got {backbone}: {reason}") from error
    image_token_id = getattr(config, "image_token_id", None)
    if image_token_id is None:
        raise ValueError(
            f"`backbone` must be a model whose config has an `image_token_id`, got {backbone} ({config.model_type})."
        )
    processor = processor_for_backbone(
        config, source, labels.codebook_size, labels.num_latent_tokens, camera_names, num_act_tokens
    )
    pretrained = load_pinned(
        partial(load_safetensors, AutoModelForImageTextToText.from_pretrained), backbone, dtype=torch.float32
    )
    model = CycleMimicForLatentActionPrediction.from_backbone(pretrained, processor, pad_vocabulary_to)
    return model, processor


def processor_for_backbone(
    config: PreTrainedConfig,
    source: ProcessorMixin,
    codebook_size: int,
    num_latent_tokens: int,
    camera_names: Sequence[str] | None = None,
    num_act_tokens: int = 1,
) -> CycleMimicProcessor:
    """
    The policy's processor, made of a backbone's own: with its image processor, its tokenizer, and what it writes around
    an image, as part of the prompt.

    Raises:
        ValueError: an image is not one run of placeholder tokens, or text does not give the backbone's own ids again.
    """
    image_processor = source.image_processor
    # Where the model reads it.
    source.tokenizer.padding_side = "left"
    for name in _TILING & image_processor.to_dict().keys():
        # One view an image: of the tiles that details are read from, each shape of image has another number.
        setattr(image_processor, name, False)
    probes = [_probe(config, source, shape) for shape in ((256, 256), (128, 384))]
    has_square_size = len(probes[0]) != len(probes[1])
    input_ids = _probe(config, source, (_SQUARE_SIZE, _SQUARE_SIZE)) if has_square_size else probes[0]
    places = [place for place, token in enumerate(input_ids) if token == config.image_token_id]
    if not places or places[-1] - places[0] + 1 != len(places):
        raise ValueError(
            f"`backbone` must be a model that takes an image as one run of placeholder tokens, got {config.model_type}."
        )
    blank = np.zeros((_SQUARE_SIZE, _SQUARE_SIZE, 3), dtype=np.uint8)
    _check_image_inputs(config, image_processor(images=[blank], return_tensors="np"))
    for template in (DEFAULT_PROMPT_TEMPLATE, _prompt_template(source.tokenizer, input_ids, places)):
        make_processor = partial(
            CycleMimicProcessor,
            image_processor=image_processor,
            tokenizer=source.tokenizer,
            num_image_tokens=len(places),
            image_token=source.tokenizer.convert_ids_to_tokens(config.image_token_id),
            codebook_size=codebook_size,
            num_latent_tokens=num_latent_tokens,
            num_act_tokens=num_act_tokens,
            prompt_template=template,
            square_size=_SQUARE_SIZE if has_square_size else None,
        )
        if make_processor()(blank, _PROBE_INSTRUCTION)["input_ids"][0].tolist() == input_ids:
            return make_processor(camera_names=camera_names)
    raise ValueError(
        f"`backbone` must have a processor whose image and prompt can be written as text, got {config.model_type}."
    )


def _check_image_inputs(config: PreTrainedConfig, made: Mapping[str, Any]) -> None:
    """Raises `ValueError` where the backbone reads something of an image that policies do not pass on, or no text beside it."""
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(f"`backbone` must be an image-text-to-text model, got {config.model_type}.")
    kind: Any = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    further = sorted((made.keys() & inspect.signature(kind.forward).parameters.keys()) - set(IMAGE_INPUTS))
    if further:
        raise ValueError(
            f"`backbone` must be a model that reads of an image no more than {list(IMAGE_INPUTS)}, got {config.model_type}, "
            f"which reads {further}."
        )


def _probe(config: PreTrainedConfig, source: Any, shape: tuple[int, int]) -> list[int]:
    """Token ids of a prompt with one image, as the backbone's own processor makes them."""
    placeholder = source.image_token
    # Qwen-VL's marks around an image stand in its chat template, which is not for one who does not chat.
    marks = [getattr(config, f"vision_{end}_token_id", None) for end in ("start", "end")]
    if None not in marks:
        start, end = source.tokenizer.convert_ids_to_tokens(marks)
        placeholder = f"{start}{placeholder}{end}"
    text = DEFAULT_PROMPT_TEMPLATE.format(image=placeholder, instruction=_PROBE_INSTRUCTION)
    blank = np.zeros((*shape, 3), dtype=np.uint8)
    return np.asarray(source(images=[blank], text=[text])["input_ids"][0]).tolist()


def _prompt_template(tokenizer: PreTrainedTokenizerBase, input_ids: list[int], places: list[int]) -> str:
    """The text of a probe's ids, as a template."""
    # Without what the tokenizer puts there itself.
    opening = os.path.commonprefix([tokenizer("")["input_ids"], input_ids])
    after = [token for token in input_ids[places[-1] + 1 :] if token != tokenizer.eos_token_id]
    prompt, rest = (
        str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
        for ids in (input_ids[len(opening) : places[0]], after)
    )
    return f"{prompt}{{image}}{rest.replace(_PROBE_INSTRUCTION, '{instruction}')}"


def make_tiny_policy(
    instructions: Sequence[str],
    labels: LatentLabels,
    image_size: int,
    hidden_size: int,
    num_layers: int,
    camera_names: Sequence[str] | None = None,
    num_act_tokens: int = 1,
) -> Policy:
    """
    A policy on a small backbone from scratch, with a vocabulary made of the instructions. Its ACT tokens start near the mean of
    the other words, as new words of a pretrained backbone do: pretraining does not read them, and fine-tuning has few steps.
    """
    processor = CycleMimicProcessor.from_texts(
        instructions,
        image_size=image_size,
        codebook_size=labels.codebook_size,
        num_latent_tokens=labels.num_latent_tokens,
        num_act_tokens=num_act_tokens,
        camera_names=camera_names,
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
    model = CycleMimicForLatentActionPrediction(config)
    initialise_rows(cast(torch.Tensor, model.get_input_embeddings().weight), model.act_token_ids)
    return model, processor


def load_for_actions(
    checkpoint: str, sizes: dict[str, Any], fields: dict[str, Any], dtype: torch.dtype | str = torch.float32
) -> tuple[CycleMimicForActionPrediction, CycleMimicProcessor]:
    """
    A policy that predicts actions, and its processor. A pretraining checkpoint says nothing of actions yet: it takes
    `chunk_size`, `action_dim` and what else it sees from `sizes`, as does the processor, which has no statistics then, and
    other fields of the configuration from `fields`. One that was fine-tuned before must have them already. It comes in full precision, in which
    it can be trained, or in another `dtype`.

    Raises:
        ValueError: a fine-tuned checkpoint has other sizes or fields, one of them is not allowed, or it lacks weights.
    """
    config = load_pinned(CycleMimicConfig.from_pretrained, checkpoint)
    if "camera_names" in sizes and sizes["camera_names"] is None and config.num_cameras == 1:
        # A name that it has for its one camera changes nothing.
        sizes = sizes | {"camera_names": config.camera_names}
    wanted = sizes | fields
    known = {name: getattr(config, name) for name in wanted}
    if config.is_finetuned and known != wanted:
        raise ValueError(
            f"`policy` must be of {wanted}, as data and flags say, got {known}, for which it was fine-tuned."
        )
    # A processor that was made for some robot has its statistics before any action was learnt.
    unlearnt = {} if config.is_finetuned else {"action_statistics": None, "state_statistics": None}
    processor = load_pinned(CycleMimicProcessor.from_pretrained, checkpoint, **sizes, **unlearnt)
    if config.is_finetuned or sizes.get("num_action_bins") in (None, config.num_action_bins):
        load_model = CycleMimicForActionPrediction.from_pretrained
        new = () if config.is_finetuned else ("action_decoder.",)
        return load_whole(load_model, "policy", checkpoint, new, dtype=dtype, **wanted), processor
    # Its vocabulary has no words for actions yet.
    pretrained = load_whole(CycleMimicForLatentActionPrediction.from_pretrained, "policy", checkpoint, dtype=dtype)
    others = CycleMimicConfig.__annotations__.keys() - {"backbone_config", *CONFIG_FIELDS}
    kept = {name: getattr(config, name) for name in others}
    model = CycleMimicForActionPrediction.from_backbone(
        pretrained.backbone, processor, new_token_ids=processor.action_bin_token_ids, **(kept | fields)
    )
    return model, processor
