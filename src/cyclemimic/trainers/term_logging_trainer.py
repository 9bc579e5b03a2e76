# SPDX-License-Identifier: Apache-2.0
"""A Trainer that logs the terms of the loss, without waiting for the device between two log lines."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
from transformers import PreTrainedModel, Trainer
from transformers.utils import ModelOutput


class TermLoggingTrainer(Trainer):
    """
    [`~transformers.Trainer`] that logs the mean of `logged_terms` beside the loss. The terms are summed on their device
    and read once a log line. All else, from mixed precision to resuming, is Trainer's own.
    """

    logged_terms: ClassVar[tuple[str, ...]] = ()
    """Fields of the model's output, scalars; absent or `None` ones are passed over."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The models take no `num_items_in_batch`: their losses are means, and Trainer's accumulation divides them.
        self.model_accepts_loss_kwargs = False
        # They return a loss from any batch, also one without labels: evaluation reports it.
        self.can_return_loss = True
        self._sums: dict[str, torch.Tensor] = {}
        self._count = 0

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ModelOutput]:
        outputs = model(**inputs)
        if model.training:
            self._add_terms(outputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        # The lines of an evaluation and of a whole training have no `loss`, and the terms are not theirs.
        super().log({**logs, **self._pop_means()} if "loss" in logs else logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if not isinstance(self.model, PreTrainedModel):
            return super()._save(output_dir, state_dict)
        # Left alone, transformers writes the weights of many backbones under the names of older versions.
        # `from_pretrained` knows those, but resuming does not: it would go on from fresh weights, with a warning.
        self.model.save_pretrained = partial(self.model.save_pretrained, save_original_format=False)
        try:
            super()._save(output_dir, state_dict)
        finally:
            del self.model.save_pretrained

    def _add_terms(self, outputs: ModelOutput) -> None:
        for name in self.logged_terms:
            value = outputs.get(name)
            if value is not None:
                self._sums[name] = self._sums.get(name, 0) + value.detach()
        self._count += 1

    def _pop_means(self) -> dict[str, float]:
        means = {name: round(total.item() / self._count, 6) for name, total in self._sums.items()}
        self._sums, self._count = {}, 0
        return means
