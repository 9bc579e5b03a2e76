# SPDX-License-Identifier: Apache-2.0
"""Models that are used in the middle of something else, such as their own training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and after the block, or an error in it, as it was."""
    # Of each part: some may have been in evaluation mode before.
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
