# SPDX-License-Identifier: Apache-2.0
"""Trainer of the policy, for pretraining on latent actions and for fine-tuning on demonstrations (paper §4)."""

from __future__ import annotations

from typing import Any

import torch

from cyclemimic.trainers.term_logging_trainer import TermLoggingTrainer


class CycleMimicTrainer(TermLoggingTrainer):
    """Trainer for [`CycleMimicForLatentActionPrediction`] and [`CycleMimicForActionPrediction`]."""

    logged_terms = ("latent_action_loss", "action_loss")

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.args.backbone_learning_rate is not None:
            optimizer = super().create_optimizer(model)
            named = (self.model if model is None else model).named_parameters()
            # Anywhere in the name: wrappers put their own before it.
            backbone = {id(parameter) for name, parameter in named if "backbone." in name}
            optimizer.param_groups[:] = [
                part
                for group in optimizer.param_groups
                for part in _split(group, backbone, self.args.backbone_learning_rate)
            ]
        return super().create_optimizer(model)


def _split(group: dict[str, Any], chosen: set[int], learning_rate: float) -> list[dict[str, Any]]:
    """The parameters whose ids are not in `chosen`, and the others with their own learning rate; no empty groups."""
    others = [parameter for parameter in group["params"] if id(parameter) not in chosen]
    own = [parameter for parameter in group["params"] if id(parameter) in chosen]
    parts = [{**group, "params": others}, {**group, "params": own, "lr": learning_rate}]
    return [part for part in parts if part["params"]]
