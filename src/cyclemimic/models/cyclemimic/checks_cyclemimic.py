# SPDX-License-Identifier: Apache-2.0
"""Backbones and batches that a policy refuses: each would be read wrongly, or fail later in words of others."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import torch
from transformers import PreTrainedModel

from .configuration_cyclemimic import CycleMimicConfig
from .prompts_cyclemimic import IGNORED_LABEL

# As LeRobot's columns and the processor's argument are called: the backbone would pass over them without a word.
_MISNAMED = {"action", "action_is_pad", "latent_actions"}


def check_backbone(backbone: object, image_token: str, image_token_id: int) -> None:
    """A backbone takes images, and knows them by the processor's image token."""
    takes = inspect.signature(type(backbone).forward).parameters if isinstance(backbone, PreTrainedModel) else ()
    if not isinstance(backbone, PreTrainedModel) or "pixel_values" not in takes:
        raise ValueError(
            "`backbone` must be a model of images and text, whose `forward` takes `pixel_values`, got "
            f"{type(backbone).__name__}."
        )
    own_id = getattr(backbone.config, "image_token_id", image_token_id)
    if own_id != image_token_id:
        raise ValueError(
            f"`processor` must use the backbone's image token (id {own_id}), got {image_token!r} (id {image_token_id})."
        )


def check_names(names: Iterable[str]) -> None:
    """Of what a batch holds beside the arguments of `forward`."""
    if "position_ids" in names:
        raise ValueError("`position_ids` must be left out, as they follow from `attention_mask`, got some.")
    if unread := sorted(_MISNAMED.intersection(names)):
        raise ValueError(f"The batch must have the processor's names, got {unread}, which nothing reads.")


def check_pixel_values(pixel_values: torch.Tensor, config: CycleMimicConfig) -> None:
    """Floats, and of several cameras an image each."""
    if not pixel_values.is_floating_point():
        got = str(pixel_values.dtype).removeprefix("torch.")
        raise ValueError(f"`pixel_values` must be floats, normalised by the processor, got {got}.")
    names, shape = config.camera_names, tuple(pixel_values.shape)
    if config.num_cameras > 1 and (len(shape) < 4 or shape[1] != len(names)):
        raise ValueError(
            f"`pixel_values` must have shape (batch, {len(names)}, ...), an image of each camera of {names}, got {shape}."
        )


def check_labels(labels: torch.Tensor, config: CycleMimicConfig) -> None:
    """Of more marks, any would be learned. To look is to wait for the device."""
    count, counts = config.num_latent_tokens, (labels != IGNORED_LABEL).sum(dim=1)
    if ((counts != 0) & (counts != count)).any():
        raise ValueError(
            f"`labels` must mark the {count} tokens of a latent action in a row, or none, and be {IGNORED_LABEL} elsewhere, "
            f"got {counts.tolist()} marked."
        )


def check_latent_tokens(input_ids: torch.Tensor, latent_token_ids: torch.Tensor, config: CycleMimicConfig) -> None:
    """A sequence without labels holds a latent action for the tokens after it to read. To look is to wait for the device."""
    counts = torch.isin(input_ids, latent_token_ids).sum(dim=1)
    if (counts != config.num_latent_tokens).any():
        raise ValueError(
            f"`input_ids` must hold the {config.num_latent_tokens} tokens of a latent action, got {counts.tolist()} a row; "
            "of a prompt, `predict_action_chunk` predicts the actions."
        )


def check_actions(
    actions: torch.Tensor | None, mask: torch.Tensor | None, batch_size: int, config: CycleMimicConfig
) -> None:
    """Of another shape they would be broadcast, and learned."""
    steps = batch_size, config.chunk_size
    for name, given, shape in (("actions", actions, (*steps, config.action_dim)), ("actions_mask", mask, steps)):
        if given is not None and tuple(given.shape) != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {tuple(given.shape)}.")


def check_robot_state(robot_state: torch.Tensor | None, batch_size: int, config: CycleMimicConfig) -> None:
    """It is there where the configuration has a `state_dim`, and only there."""
    state_dim = config.state_dim
    shape = None if robot_state is None else tuple(robot_state.shape)
    if shape != (None if state_dim is None else (batch_size, state_dim)):
        allowed = "left out" if state_dim is None else f"given, of shape {(batch_size, state_dim)},"
        raise ValueError(f"`robot_state` must be {allowed} for a policy of `state_dim` {state_dim}, got {shape}.")


__all__ = [
    "check_actions",
    "check_backbone",
    "check_labels",
    "check_latent_tokens",
    "check_names",
    "check_pixel_values",
    "check_robot_state",
]
