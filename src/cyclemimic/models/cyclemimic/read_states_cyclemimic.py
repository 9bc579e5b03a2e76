# SPDX-License-Identifier: Apache-2.0
"""The states that are read of all that a backbone makes."""

from __future__ import annotations

import torch


def gather_marked(hidden_states: torch.Tensor, marks: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    States at the marked positions of each row, in order, and the positions: `(batch_size, count, hidden_size)` and
    `(batch_size, count)`. The count is fixed, unlike with a boolean index, so nothing waits for the device.
    """
    positions = marks.int().topk(count, dim=1).indices.sort(dim=1).values
    index = positions[:, :, None].expand(-1, -1, hidden_states.shape[-1])
    return hidden_states.gather(1, index), positions


def last_attended(hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """State of each row's last token that is not padding, `(batch_size, 1, hidden_size)`."""
    columns = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    last = (attention_mask * columns).argmax(dim=1)
    return hidden_states.gather(1, last[:, None, None].expand(-1, -1, hidden_states.shape[-1]))


__all__ = ["gather_marked", "last_attended"]
