# SPDX-License-Identifier: Apache-2.0
"""Trainer of the latent action tokenizer (paper §3.4)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from cyclemimic.data import FramePairDataset, LatentActionTokenizerCollator, MixtureDataset, PairAugmentation
from cyclemimic.models.cyclemimic.modeling_cyclemimic import CycleMimicPreTrainedModel
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import (
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerModel,
)
from cyclemimic.trainers.checkpointing_trainer import whole_of
from cyclemimic.trainers.latent_action_tokenizer_config import LatentActionTokenizerTrainingArguments
from cyclemimic.trainers.sample_grid import draw_sample_grid, read_pairs, write_picture
from cyclemimic.trainers.term_logging_trainer import TermLoggingTrainer

logger = logging.getLogger(__name__)

NUM_SAMPLES = 8


class LatentActionTokenizerTrainer(TermLoggingTrainer):
    """
    Trainer for [`LatentActionTokenizerForPreTraining`]: one forward, one backward, one optimizer for all parts. Every
    `sample_steps` it draws into `samples` what has become of the first pairs that it trained on ([`draw_sample_grid`]), where
    it has the image processor as its `processing_class`; resumed, of those in the pictures that are there. The time between the
    frames of a pair goes into the model's `config`, where the data set says it.

    DDP and FSDP2 train as one process with the whole batch does, but for `generated_noise_std`, whose draws are alike on all
    ranks, and a `generated_share` below 1, which each rank takes of its own frames. ZeRO does but for where AC3 joins: DeepSpeed counts AdamW's
    steps for all weights together, so the discriminator, without gradients until then, begins with larger steps.

    Args:
        args, kwargs: As of [`~transformers.Trainer`], with [`LatentActionTokenizerTrainingArguments`]. For a [`FramePairDataset`]
            or [`MixtureDataset`], `data_collator` is a [`LatentActionTokenizerCollator`] with the image processor in
            `processing_class` and the augmentation in the arguments, if none is given.

    Raises:
        ValueError: a model without the losses of pretraining, or a policy; arguments that ask for another augmentation than the
            collator has, or for other intervals than a [`FramePairDataset`] has; one pair a batch or in all, where embeddings are
            standardised.
    """

    args: LatentActionTokenizerTrainingArguments
    arguments_class = LatentActionTokenizerTrainingArguments
    card_template = "tokenizer"
    own_datasets = (FramePairDataset, MixtureDataset)
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

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.model, LatentActionTokenizerModel | CycleMimicPreTrainedModel):
            raise ValueError(
                f"`model` must be a LatentActionTokenizerForPreTraining, got {type(self.model).__name__}."
            )
        self._check_augmentation()
        self._check_intervals()
        config = getattr(self.model, "config", None)
        if getattr(config, "standardize_embeddings", False) and self.args.train_batch_size * self.args.world_size == 1:
            raise ValueError(
                "`per_device_train_batch_size` must be at least 2 on one device, got 1: embeddings are standardised over "
                "the batch (`standardize_embeddings`)."
            )
        if (
            getattr(config, "standardize_embeddings", False)
            and getattr(self.train_dataset, "__len__", lambda: 2)() < 2
        ):
            raise ValueError(
                "`train_dataset` must have at least 2 pairs, got 1: embeddings are standardised over the batch "
                "(`standardize_embeddings`)."
            )
        self.add_callback(_IntervalNoting(self))
        self.add_callback(_AbsenceNoting(self))
        self._samples: dict[str, torch.Tensor] | None = None
        # Parts of a model that is spread over devices cannot be called by themselves.
        is_spread = self.is_fsdp_enabled or is_deepspeed_zero3_enabled()
        can_be_shown = hasattr(self.model, "tokenizer") and self.processing_class is not None
        self._draws = bool(self.args.sample_steps and can_be_shown and not is_spread)
        if self._draws:
            self.add_callback(_SampleDrawing(self))

    def make_collator(self) -> Any:
        """The package's own, by the arguments."""
        image_processor: Any = self.processing_class
        return LatentActionTokenizerCollator(image_processor, self.args.augmentation)

    def _check_augmentation(self) -> None:
        collator, wanted = self.data_collator, self.args.augmentation
        if not isinstance(collator, LatentActionTokenizerCollator) or wanted == PairAugmentation():
            return
        if collator.augmentation != wanted:
            raise ValueError(
                f"`data_collator` must have the augmentation that `args` ask for, {wanted}, got {collator.augmentation}."
            )

    def _check_intervals(self) -> None:
        pairs = whole_of(self.train_dataset)
        if not isinstance(pairs, FramePairDataset):
            return
        for name in ("interval_s", "min_interval_s"):
            wanted, default, found = (getattr(holder, name) for holder in (self.args, type(self.args), pairs))
            # The default cannot be told from none given; nobody asked for it.
            if wanted not in (default, found):
                raise ValueError(
                    f"`train_dataset` must have the `{name}` that `args` ask for, {wanted:g}, got {found:g}."
                )

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Without the codebook: its words are directions from a shift that does not decay, towards which decay would pull them."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not name.endswith("quantizer.codebook")]

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        if self._draws and self._samples is None and model.training:
            self._samples = self._shown_before() or {
                name: inputs[name][:NUM_SAMPLES].detach().clone() for name in ("pixel_values", "future_pixel_values")
            }
        return super().compute_loss(model, inputs, *args, **kwargs)

    @property
    def _sample_folder(self) -> Path:
        return Path(self.args.output_dir) / "samples"

    def _shown_before(self) -> dict[str, torch.Tensor] | None:
        """The pairs that the training which this one resumes has drawn, where its first picture is there."""
        picture = self._sample_folder / _picture_name(self.args.sample_steps)
        if self.state.global_step < self.args.sample_steps or not picture.exists():
            return None
        image_processor: Any = self.processing_class
        return read_pairs(picture, image_processor)

    def draw_samples(self, path: Path) -> None:
        """Writes the picture of now to `path`, a PNG."""
        tokenizer = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).tokenizer
        image_processor: Any = self.processing_class
        write_picture(draw_sample_grid(tokenizer, image_processor, **self._samples), path)


def _picture_name(step: int) -> str:
    return f"step-{step:06d}.png"


class _IntervalNoting(TrainerCallback):
    """Writes into the model's configuration how far apart its pairs are; of data sets that are not ours nothing is known."""

    def __init__(self, trainer: LatentActionTokenizerTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        pairs = whole_of(self.trainer.train_dataset)
        if isinstance(pairs, FramePairDataset | MixtureDataset):
            config: Any = self.trainer.accelerator.unwrap_model(self.trainer.model).config
            config.interval_s, config.min_interval_s = pairs.interval_s, pairs.min_interval_s


class _AbsenceNoting(TrainerCallback):
    """Says so where AC3 had weights and never joined: what was trained is the Genie objective."""

    def __init__(self, trainer: LatentActionTokenizerTrainer) -> None:
        self.trainer = trainer

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        model: Any = self.trainer.accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False)
        if not isinstance(model, LatentActionTokenizerForPreTraining) or not model.config.uses_ac3:
            return
        if state.is_world_process_zero and model.steps > 0 and not model.ac3_has_joined:
            logger.warning(
                "AC3 never joined: the copy ratio was %.2f at the end, and `cycle_start_copy_ratio` is %g; train longer, or "
                "raise it (with 1, AC3 joins at once)",
                *(model.mean_copy_ratio.item(), model.config.cycle_start_copy_ratio),
            )


class _SampleDrawing(TrainerCallback):
    def __init__(self, trainer: LatentActionTokenizerTrainer) -> None:
        self.trainer = trainer

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and state.global_step % self.trainer.args.sample_steps == 0:
            self.trainer.draw_samples(self.trainer._sample_folder / _picture_name(state.global_step))
