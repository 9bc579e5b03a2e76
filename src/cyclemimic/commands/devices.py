# SPDX-License-Identifier: Apache-2.0
"""Models on the device that they run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Model = TypeVar("Model", bound="PreTrainedModel")


def place(model: Model, device: torch.device) -> Model:
    """The model, moved to the device."""
    # transformers wraps `Module.to` in a way in which type checkers take the device for the model itself.
    movable: Any = model
    return movable.to(device)
