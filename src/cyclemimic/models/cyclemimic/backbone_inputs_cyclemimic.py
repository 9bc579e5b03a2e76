# SPDX-License-Identifier: Apache-2.0
"""What families of backbones read beside token ids, pixels and attention mask, and what they do behind their vocabulary head."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

# The one place where a backbone's name counts.
# What its `token_type_ids` set apart.
_TOKEN_TYPES = {
    # Image tokens, which see each other in both directions.
    "gemma3": "image",
    # Latent action and ACT tokens: all that comes before them sees all of it, also what comes later.
    "paligemma": "answer",
}
# The field of its text configuration by which logits are multiplied, or divided (-1).
_LOGIT_FACTORS = {
    "cohere_compass": ("logit_scale", 1),
    "granite4_vision": ("logits_scaling", -1),
    "granite_docling": ("logits_scaling", -1),
    "hyperclovax_vision_v2": ("logits_scaling", 1),
    "inkling_mm_model": ("logits_mup_width_multiplier", -1),
    "muse_glimmer": ("output_multiplier", 1),
    "muse_spark": ("output_multiplier", 1),
}


def token_types_of(backbone: PreTrainedModel) -> tuple[str, str] | None:
    """
    The argument by which the backbone takes token types with a whole sequence, and the tokens of type 1, `"image"` or
    `"answer"`; `None` where it takes none. They are needed in training and with the prompt of a prediction: without them
    its mask would be another than the one it was pretrained with. Tokens that are read later, through the cache, follow
    causally in every family.
    """
    kind = _TOKEN_TYPES.get(backbone.config.model_type)
    if kind is not None:
        return "token_type_ids", kind
    # Wherever transformers has an argument of this name, it means 0 for text and 1 for images.
    named = "mm_token_type_ids"
    return (named, "image") if named in inspect.signature(backbone.base_model.forward).parameters else None


def finish_logits(config: PreTrainedConfig, logits: torch.Tensor) -> torch.Tensor:
    """
    What the backbone of this configuration makes of its vocabulary head's output, of all tokens or of some; or its language
    model, by whose cap models around it were pretrained that leave it out.
    """
    text_config = config.get_text_config()
    name, exponent = _LOGIT_FACTORS.get(config.model_type, ("", 1))
    factor = getattr(text_config, name, None)
    if factor not in (None, 1):
        logits = logits * factor**exponent
    # Gemma's.
    cap = getattr(text_config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def position_ids(
    backbone: PreTrainedModel,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    is_image: torch.Tensor,
    image_grid_thw: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Positions that count attended tokens only, so that padding on either side changes nothing: of shape
    `(batch_size, sequence_length)`, or `(3, batch_size, sequence_length)` where the backbone places image tokens by
    time, row and column (Qwen-VL and its kin).

    Raises:
        ValueError: several images of a prompt stand side by side, which backbones of the second kind take for one.
    """
    body: Any = backbone.base_model
    if image_grid_thw is not None and hasattr(body, "get_rope_index"):
        if len(image_grid_thw) > len(input_ids):
            _check_apart(is_image, len(image_grid_thw))
        return body.get_rope_index(
            input_ids,
            mm_token_type_ids=is_image.int(),
            image_grid_thw=image_grid_thw,
            attention_mask=attention_mask,
        )[0]
    return (attention_mask.cumsum(dim=-1) - 1).clamp(min=0)


def merge_cameras(images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    What the processor made of the images of several cameras, each tensor of shape `(batch_size, num_cameras, …)`, as a
    backbone takes several images of a prompt.
    """
    # SmolVLM and its kin have an axis for the images of a prompt, which is 1 long an image here; the others take the
    # images of all prompts in one row.
    axis = 1 if images["pixel_values"].ndim == 6 else 0
    return {name: values.flatten(axis, axis + 1) for name, values in images.items()}


def _check_apart(is_image: torch.Tensor, num_images: int) -> None:
    starts = is_image & ~torch.nn.functional.pad(is_image, (1, 0))[:, :-1]
    if starts.sum() != num_images:
        raise ValueError(
            "`prompt_template` must have a mark of the tokenizer beside {image}, such as <|vision_start|>, to keep the "
            f"images of several cameras apart for this backbone, got {int(starts.sum())} runs of image tokens for "
            f"{num_images} images."
        )


def next_position(positions: torch.Tensor) -> torch.Tensor:
    """Position of the token that would follow, `(batch_size, 1)`, after `positions` of [`position_ids`]."""
    positions = positions.amax(dim=0) if positions.ndim == 3 else positions
    return positions.amax(dim=-1, keepdim=True) + 1
