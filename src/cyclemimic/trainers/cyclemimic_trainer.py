# SPDX-License-Identifier: Apache-2.0
"""Trainer of the policy, for pretraining on latent actions and for fine-tuning on demonstrations (paper §4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from cyclemimic.data import CycleMimicCollator, DemonstrationDataset, LabelledMixture
from cyclemimic.models.cyclemimic.modeling_cyclemimic import CycleMimicForActionPrediction, CycleMimicPreTrainedModel
from cyclemimic.models.cyclemimic.processing_cyclemimic import CONFIG_FIELDS, CycleMimicProcessor
from cyclemimic.trainers.adapters import add_adapter, check_adapters, check_resumed, merged_copy, weightless_copy
from cyclemimic.trainers.checkpointing_trainer import whole_of
from cyclemimic.trainers.cyclemimic_config import CycleMimicTrainingArguments
from cyclemimic.trainers.term_logging_trainer import TermLoggingTrainer

_IN_FULL = ("actions", "robot_state")
_PRETRAINED = "A vision-language-action policy, pretrained on video to predict latent actions. It does not act yet."
_ACTING = "A vision-language-action policy, fine-tuned on demonstrations to act."


class CycleMimicTrainer(TermLoggingTrainer):
    """
    Trainer for [`CycleMimicForLatentActionPrediction`] and [`CycleMimicForActionPrediction`]. With `lora_rank` or
    `freeze_backbone` in its arguments it trains a part of them through PEFT ([`add_adapter`]). Checkpoints then hold that
    part alone; `save_model` saves the whole model with it merged in, which `from_pretrained` loads as any other, and the
    part by itself in the folder `adapter`, with the processor, unless the model was made in memory: it would fit nothing.

    Args:
        model ([`CycleMimicForLatentActionPrediction`] or [`CycleMimicForActionPrediction`]): In full precision; or a
            [`~peft.PeftModel`] of it, with low-rank adapters of your own. `lora_rank`, `freeze_backbone` and `freeze_vision` change the
            model that is given, for good: it is to be saved through the Trainer.
        args ([`CycleMimicTrainingArguments`]): What and how it is trained.
        others, kwargs: Further arguments of [`~transformers.Trainer`]. For a [`DemonstrationDataset`] or [`LabelledMixture`],
            `data_collator` is a [`CycleMimicCollator`] with the processor in `processing_class` and what the arguments say, if none is
            given.

    Raises:
        ValueError: a quantized model, or one with adapters that the arguments would put others on; `backbone_learning_rate` with
            an optimizer that is not made here; a processor that is not the model's; arguments that ask for other images or
            tokens than the collator makes; for a policy that is to act, one of the package's data sets without chunks of actions of
            its length; a data set whose cameras are in another order than the model's.
    """

    args: CycleMimicTrainingArguments
    arguments_class = CycleMimicTrainingArguments
    card_template = "policy"
    own_datasets = (DemonstrationDataset, LabelledMixture)
    logged_terms = ("latent_action_loss", "action_loss", "latent_token_accuracy", "latent_action_accuracy")

    def __init__(
        self,
        model: CycleMimicPreTrainedModel | PeftModel | None = None,
        args: CycleMimicTrainingArguments | None = None,
        *others: Any,
        **kwargs: Any,
    ) -> None:
        args = self.own_arguments(args)
        if model is None:
            # Trainer makes it by `model_init`.
            if args.freeze_vision or args.freeze_backbone or args.lora_rank is not None:
                raise ValueError(
                    "`model` must be given with `lora_rank`, `freeze_backbone` or `freeze_vision`, got `model_init`."
                )
            super().__init__(model, args, *others, **kwargs)
            self._check()
            return
        if getattr(model, "is_quantized", False):
            method = model.config.quantization_config.quant_method
            raise ValueError(
                f"`model` must have its weights in full, not quantized, to be trained, as it is saved whole; got {method}."
            )
        if args.lora_rank is None and not args.freeze_backbone:
            check_adapters(model)
        if args.freeze_vision:
            for tower in model.vision_towers():
                tower.requires_grad_(False)
        trained: CycleMimicPreTrainedModel | PeftModel = model
        if args.lora_rank is not None or args.freeze_backbone:
            trained = add_adapter(model, args.lora_rank, args.lora_alpha, args.lora_dropout)
        if isinstance(trained, PeftModel):
            # FSDP and ZeRO change the modules themselves, which cannot be copied then.
            self._weightless = weightless_copy(trained)
        super().__init__(trained, args, *others, **kwargs)
        self._check()

    def make_collator(self) -> Any:
        """The package's own, by the arguments."""
        processor: Any = self.processing_class
        if not isinstance(processor, CycleMimicProcessor):
            raise ValueError(f"`processing_class` must be a CycleMimicProcessor, got {type(processor).__name__}.")
        return CycleMimicCollator(processor, **self._of_collator())

    def _of_collator(self) -> dict[str, Any]:
        return {name: getattr(self.args, name) for name in ("image_shift", "corrupted_share")}

    def _check(self) -> None:
        self._check_optimizer()
        collator: Any = self.data_collator
        if isinstance(collator, CycleMimicCollator):
            for name, wanted in self._of_collator().items():
                if wanted and getattr(collator, name) != wanted:
                    raise ValueError(
                        f"`data_collator` must have the `{name}` that `args` ask for, {wanted}, got {getattr(collator, name)}."
                    )
        for processor in (self.processing_class, getattr(collator, "processor", None)):
            if isinstance(processor, CycleMimicProcessor):
                self._check_processor(processor)
        self._check_chunks()
        for name in ("train_dataset", "eval_dataset"):
            self._check_cameras(name)

    def _check_processor(self, processor: CycleMimicProcessor) -> None:
        config: Any = getattr(self.model, "config", None)
        differing = [name for name in CONFIG_FIELDS if getattr(processor, name) != getattr(config, name)]
        if differing:
            name = differing[0]
            raise ValueError(
                f"`processing_class` and the collator's processor must have the model's `{name}`, {getattr(config, name)}, got "
                f"{getattr(processor, name)}."
            )

    def _check_chunks(self) -> None:
        frames, model = whole_of(self.train_dataset), self._policy()
        if not isinstance(model, CycleMimicForActionPrediction) or not isinstance(frames, self.own_datasets):
            return
        chunk_size = getattr(frames, "chunk_size", None)
        if chunk_size != model.config.chunk_size:
            raise ValueError(
                f"`train_dataset` must have chunks of actions of the model's `chunk_size`, {model.config.chunk_size}, got "
                f"{'no actions' if chunk_size is None else chunk_size}."
            )

    def _check_cameras(self, name: str) -> None:
        frames, wanted = whole_of(getattr(self, name)), getattr(self._policy().config, "camera_names", None)
        if wanted is None or not isinstance(frames, DemonstrationDataset):
            return
        for position, store in enumerate(frames._stores):
            for camera in sorted({episode.camera for episode in store.episodes}):
                # By its last part, too, as data sets are opened. What the policy's cameras are called is up to the user: a
                # name that is none of theirs says nothing.
                fits = [camera == other or camera.endswith((f".{other}", f"/{other}")) for other in wanted]
                if any(fits) and not any(fits[position : position + 1]):
                    raise ValueError(
                        f"`{name}` must have the cameras of the model's `camera_names` in their order, {wanted}, got {camera} as "
                        f"number {position + 1}."
                    )

    def _check_optimizer(self) -> None:
        deepspeed: Any = getattr(self.args, "hf_deepspeed_config", None)
        is_given = self.optimizer is not None or (deepspeed is not None and "optimizer" in deepspeed.config)
        if is_given and self.args.backbone_learning_rate is not None:
            raise ValueError(
                "`backbone_learning_rate` must be left out with an optimizer of your own, or DeepSpeed's, got "
                f"{self.args.backbone_learning_rate:g}; give its parameter groups their rates."
            )

    def _prepare_input(self, data: Any) -> Any:
        prepared: Any = super()._prepare_input(data)
        if isinstance(data, Mapping):
            # DeepSpeed's would be rounded to its dtype: of 256 bins, bfloat16 puts one action in six beside its own.
            kept = {name: data[name].to(self.args.device) for name in _IN_FULL if name in data}
            prepared.update(kept)
        return prepared

    def describe_training(self) -> dict[str, Any]:
        """What the Trainer sees by itself for the card: also whether the policy acts."""
        acts = isinstance(self._policy(), CycleMimicForActionPrediction)
        return super().describe_training() | {"acts": acts, "kind": _ACTING if acts else _PRETRAINED}

    def _policy(self) -> Any:
        """The model without what is around it."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return model.get_base_model() if isinstance(model, PeftModel) else model

    def _save_whole_model(self, output_dir: str) -> None:
        if not isinstance(self.model, PeftModel):
            return super()._save_whole_model(output_dir)
        # By all processes: each may hold a part.
        state_dict = self.accelerator.get_state_dict(self.model_wrapped)
        if self.args.should_save:
            # Without what a compiled model puts before its names. Of ZeRO-3, the first process alone has values.
            state_dict = {name.replace("_orig_mod.", ""): value for name, value in state_dict.items()}
            adapted, self.model = self.model, merged_copy(self._weightless, state_dict)
            try:
                self._save(output_dir)
            finally:
                self.model = adapted
            # Of a policy made in memory, there is nothing that an adapter could be put on again.
            base: Any = adapted.get_base_model()
            if base.config.name_or_path:
                self._save_adapter(adapted, Path(output_dir) / "adapter", state_dict)

    def _save_adapter(self, adapted: PeftModel, folder: Path, state_dict: dict[str, torch.Tensor]) -> None:
        adapted.save_pretrained(str(folder), state_dict=state_dict)
        if self.processing_class is not None:  # by whose statistics its actions are read
            self.processing_class.save_pretrained(str(folder))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        check_resumed(self.model, resume_from_checkpoint)
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except ValueError as error:
            # torch's, of groups of parameters that do not fit.
            raise ValueError(
                "`resume_from_checkpoint` must be of a run that trained the same weights at the same rates (`freeze_vision`, "
                f"`backbone_learning_rate`), got {checkpoint}: {error}"
            ) from error

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        is_made_here = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_made_here and self.args.backbone_learning_rate is not None:
            named = (self.model if model is None else model).named_parameters()
            # Anywhere in the name: wrappers put their own before it. Rows of new tokens, where PEFT trains them apart from
            # the others, have as little to forget as the action decoder.
            backbone = {
                id(parameter) for name, parameter in named if "backbone." in name and "trainable_tokens" not in name
            }
            optimizer.param_groups[:] = [
                part
                for group in optimizer.param_groups
                for part in _split(group, backbone, self.args.backbone_learning_rate)
            ]
        return optimizer


def _split(group: dict[str, Any], chosen: set[int], learning_rate: float) -> list[dict[str, Any]]:
    """The parameters whose ids are not in `chosen`, and the others with their own learning rate; no empty groups."""
    others = [parameter for parameter in group["params"] if id(parameter) not in chosen]
    own = [parameter for parameter in group["params"] if id(parameter) in chosen]
    parts = [{**group, "params": others}, {**group, "params": own, "lr": learning_rate}]
    return [part for part in parts if part["params"]]
