# SPDX-License-Identifier: Apache-2.0
"""torch.compile by the layer: what matters of its speed, without the minutes that one graph of a whole step takes."""

from __future__ import annotations

import torch
from torch import _dynamo as dynamo
from transformers.modeling_layers import GradientCheckpointingLayer

MOST_GRAPHS = 64


def compile_layers(model: torch.nn.Module, backend: str = "inductor") -> None:
    """
    Sends each transformer layer of a model through torch.compile, in place; names of weights stay as they are. Layers alike
    share what is compiled, so that it takes as long for twelve as for one.

    Args:
        model (`torch.nn.Module`): Of this package, or any of transformers.
        backend (`str`, *optional*, defaults to `"inductor"`): Of torch.compile.
    """
    # All layers share one cache, and there are several kinds, each with and without gradients, AC3 and evaluation: what is past
    # the limit, by default 8, would not be compiled.
    dynamo.config.recompile_limit = max(dynamo.config.recompile_limit, MOST_GRAPHS)
    for part in model.modules():
        if isinstance(part, GradientCheckpointingLayer):
            part.compile(backend=backend)
