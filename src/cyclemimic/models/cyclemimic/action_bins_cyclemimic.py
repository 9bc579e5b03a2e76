# SPDX-License-Identifier: Apache-2.0
"""Actions as words: uniform bins of the normalised range, as OpenVLA has them (Kim et al. 2024; a baseline in Table 4)."""

from __future__ import annotations

import torch


def to_bins(actions: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Bins in `[0, num_bins)` of normalised actions; bin k holds `[-1 + 2k / num_bins, -1 + 2(k + 1) / num_bins)`."""
    return ((actions.float() + 1) * (num_bins / 2)).floor().long().clamp(0, num_bins - 1)


def bin_centres(bins: torch.Tensor, num_bins: int) -> torch.Tensor:
    """Normalised actions in the middle of their bins: off by at most half a bin, `1 / num_bins`."""
    return (bins.float() + 0.5) * (2 / num_bins) - 1
