# SPDX-License-Identifier: Apache-2.0
"""Trainer of the latent action tokenizer (paper §3.4)."""

from __future__ import annotations

from cyclemimic.trainers.term_logging_trainer import TermLoggingTrainer


class LatentActionTokenizerTrainer(TermLoggingTrainer):
    """Trainer for [`LatentActionTokenizerForPreTraining`]: one forward, one backward, one optimizer for all parts."""

    logged_terms = (
        "reconstruction_loss",
        "codebook_loss",
        "commitment_loss",
        "cycle_loss",
        "generator_loss",
        "discriminator_loss",
        "codebook_perplexity",
        "cycle_accuracy",
        "copy_ratio",
        "ac3_scale",
    )
