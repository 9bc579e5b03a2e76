# SPDX-License-Identifier: Apache-2.0
"""torch.compile by the layer: what matters of its speed, without the minutes that one graph of a whole step takes."""

from __future__ import annotations

import torch
from transformers.modeling_layers import GradientCheckpointingLayer


def compile_layers(model: torch.nn.Module, backend: str = "inductor") -> None:
    """
    Sends each transformer layer of a model through torch.compile, in place; names of weights stay as they are. Layers alike
    share what is compiled, so that it takes as long for twelve as for one.

    Args:
        model (`torch.nn.Module`): Of this package, or any of transformers.
        backend (`str`, *optional*, defaults to `"inductor"`): Of torch.compile.
    """
    for part in model.modules():
        if isinstance(part, GradientCheckpointingLayer):
            part.compile(backend=backend)
