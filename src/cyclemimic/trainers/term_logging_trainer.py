# SPDX-License-Identifier: Apache-2.0
"""A Trainer that logs the terms of the loss, without waiting for the device between two log lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.utils import ModelOutput

from cyclemimic.data import DemonstrationDataset, FramePairDataset, LabelledMixture, MixtureDataset
from cyclemimic.trainers.checkpointing_trainer import whole_of
from cyclemimic.trainers.compiled_layers import compile_layers
from cyclemimic.trainers.pace import Pace
from cyclemimic.trainers.publishing_trainer import PublishingTrainer

# The package's own, whose items are not yet what a model takes.
_DATASETS = (DemonstrationDataset, FramePairDataset, LabelledMixture, MixtureDataset)


class TermLoggingTrainer(PublishingTrainer):
    """
    [`~transformers.Trainer`] that logs the mean of `logged_terms` beside the loss, in training and in evaluation, and how
    fast training goes ([`Pace`]). The terms are summed on their device and read once a log line, over all processes.

    A term of one's own must be in the model's output, which its `forward` returns: what an overridden `compute_loss` adds to it
    after `super()` comes when the terms have been counted.

    Raises:
        ValueError: arguments of another Trainer; without a `data_collator`, one of the package's data sets that is not for this
            model, or none of what makes batches of it in `processing_class`.
    """

    logged_terms: ClassVar[tuple[str, ...]] = ()
    """Fields of the model's output, tensors or numbers; absent or `None` ones are passed over. Of a vector, the log has the
    mean, and every entry under a number behind the name."""
    arguments_class: ClassVar[type[TrainingArguments]] = TrainingArguments
    """What `args` must be."""
    own_datasets: ClassVar[tuple[type, ...]] = ()
    """Data sets whose items only the package's own collators can make batches of."""

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        data_collator: Any = None,
        *others: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, self.own_arguments(args), data_collator, *others, **kwargs)
        needs = [data_collator is None and self._needs_collator(name) for name in ("train_dataset", "eval_dataset")]
        if any(needs):
            self.data_collator = self.make_collator()
        # The models take no `num_items_in_batch`: their losses are means, and Trainer's accumulation divides them.
        self.model_accepts_loss_kwargs = False
        # They return a loss from any batch, also one without labels: evaluation reports it.
        self.can_return_loss = True
        self._training_terms = _TermMeans(self.logged_terms)
        self._evaluation_terms = _TermMeans(self.logged_terms)
        self._pace = Pace()
        if getattr(self.args, "compile_layers", False):
            self._compile_layers()

    @classmethod
    def own_arguments(cls, args: TrainingArguments | None) -> Any:
        """`args`, or all defaults where there are none; `ValueError` where they lack what this Trainer reads."""
        if args is not None and not isinstance(args, cls.arguments_class):
            raise ValueError(f"`args` must be {cls.arguments_class.__name__}, got {type(args).__name__}.")
        return cls.arguments_class() if args is None else args

    def _needs_collator(self, name: str) -> bool:
        """Whether a data set is one of `own_datasets`, of which there is what makes batches."""
        dataset = whole_of(getattr(self, name))
        if not isinstance(dataset, _DATASETS):
            return False
        if not isinstance(dataset, self.own_datasets):
            allowed = " or ".join(kind.__name__ for kind in self.own_datasets)
            raise ValueError(
                f"`{name}` must be a {allowed}, or come with a `data_collator`, got {type(dataset).__name__}."
            )
        if self.processing_class is None:
            raise ValueError(
                f"`processing_class` must be given where `{name}` is a {type(dataset).__name__} and there is no `data_collator`, "
                "got None."
            )
        return True

    def make_collator(self) -> Any:
        """What makes batches of `own_datasets`."""
        raise NotImplementedError

    def _compile_layers(self) -> None:
        if self.args.torch_compile or is_deepspeed_zero3_enabled():
            other = "`torch_compile`" if self.args.torch_compile else "ZeRO-3"
            raise ValueError(f"`compile_layers` must be false with {other}, got true.")
        compile_layers(self.model)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        batch_size = find_batch_size(inputs)
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            self._training_terms.add(outputs, batch_size)
            self._pace.add(batch_size)
        else:
            # As Trainer gathers the loss: without the samples that are repeated to give every process as many.
            self._evaluation_terms.add(outputs, batch_size, self.gather_function)
        return (loss, outputs) if return_outputs else loss

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        self._pace = Pace()
        return super().train(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        with self._pace.waiting():
            return super().get_batch_samples(*args, **kwargs)

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader:
        """Of what is as it is: a collator that augments has one `for_evaluation`."""
        collator = self.data_collator
        try:
            if hasattr(collator, "for_evaluation"):
                self.data_collator = collator.for_evaluation()
            return super().get_eval_dataloader(*args, **kwargs)
        finally:
            self.data_collator = collator

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        self._evaluation_terms.clear()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        means = self._evaluation_terms.pop(self.accelerator)
        output.metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in means.items()})
        return output

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        # The lines of an evaluation and of a whole training have no `loss`, and the terms of training are not theirs.
        if "loss" in logs:
            logs = {**logs, **self._training_terms.pop(self.accelerator), **self._pace.pop(self.args.world_size)}
        super().log(logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        model: Any = self.model
        if not isinstance(self.model, PreTrainedModel):
            return super()._save(output_dir, state_dict)
        # Left alone, transformers writes the weights of many backbones under the names of older versions.
        # `from_pretrained` knows those, but resuming does not: it would go on from fresh weights, with a warning.
        model.save_pretrained = partial(model.save_pretrained, save_original_format=False)
        try:
            super()._save(output_dir, state_dict)
        finally:
            del model.save_pretrained


class _TermMeans:
    """Means over samples of the terms that outputs hold, kept on their device until they are asked for."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._sums: dict[str, torch.Tensor]
        self.clear()

    def clear(self) -> None:
        """Count from here."""
        self._sums, self._count = {}, 0

    def add(
        self, outputs: ModelOutput, batch_size: int, gather: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> None:
        """Count in the output of a batch, whose terms are means over its samples; by `gather` those of all processes' batches."""
        count = batch_size
        device = next((value.device for value in outputs.values() if isinstance(value, torch.Tensor)), None)
        for name in self.names:
            value = outputs.get(name)
            if value is not None:
                value = value if isinstance(value, torch.Tensor) else torch.tensor(float(value), device=device)
                # In fp32 at least: a sum in bfloat16 soon grows no more.
                precise = value.detach().to(torch.promote_types(value.dtype, torch.float32))
                total = precise * batch_size
                if gather is not None:
                    each = gather(precise.expand(batch_size, *precise.shape).contiguous())
                    total, count = each.sum(dim=0), len(each)
                self._sums[name] = self._sums.get(name, 0) + total
        self._count += count

    def pop(self, accelerator: Accelerator) -> dict[str, float]:
        """The means since the last time, of all processes."""
        sums, count = self._sums, self._count
        self.clear()
        flat = [torch.tensor([float(count)], device=accelerator.device)]
        flat += [total.float().flatten() for total in sums.values()]
        count, *totals = accelerator.reduce(torch.cat(flat)).tolist()
        means: dict[str, float] = {}
        for name, total in sums.items():
            values = [totals.pop(0) / count for _ in range(total.numel())]
            means[name] = round(sum(values) / len(values), 6)
            if total.ndim:
                means |= {f"{name}_{index}": round(value, 6) for index, value in enumerate(values)}
        return means
