# SPDX-License-Identifier: Apache-2.0
"""Trainer of the policy, for pretraining on latent actions and for fine-tuning on demonstrations (paper §4)."""

from __future__ import annotations

from cyclemimic.trainers.term_logging_trainer import TermLoggingTrainer


class CycleMimicTrainer(TermLoggingTrainer):
    """Trainer for [`CycleMimicForLatentActionPrediction`] and [`CycleMimicForActionPrediction`]."""

    logged_terms = ("latent_action_loss", "action_loss")
