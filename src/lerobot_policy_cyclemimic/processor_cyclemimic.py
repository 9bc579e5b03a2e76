# SPDX-License-Identifier: Apache-2.0
"""The pipelines around the policy: LeRobot's own, which rename, batch and move. What else is to be done, the policy's
`CycleMimicProcessor` does, since it travels with the checkpoint and a pipeline's step cannot."""

from __future__ import annotations

from typing import Any

import torch
from lerobot.processor import PolicyAction, PolicyProcessorPipeline, make_default_pre_post_processors

from .configuration_cyclemimic import CycleMimicConfig


def make_cyclemimic_pre_post_processors(
    config: CycleMimicConfig, dataset_stats: dict[str, dict[str, torch.Tensor]] | None = None
) -> tuple[
    PolicyProcessorPipeline[dict[str, Any], dict[str, Any]], PolicyProcessorPipeline[PolicyAction, PolicyAction]
]:
    """
    Args:
        config ([`CycleMimicConfig`]): The policy's, whose `normalization_mapping` leaves all as it is.
        dataset_stats (`dict`, *optional*): Statistics of the data, a feature each.

    Returns:
        The pipeline before the policy, and that behind it.
    """
    return make_default_pre_post_processors(config, dataset_stats)


__all__ = ["make_cyclemimic_pre_post_processors"]
