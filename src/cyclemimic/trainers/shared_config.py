# SPDX-License-Identifier: Apache-2.0
"""What the training arguments of the tokenizer and of the policy have in common."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from transformers import TrainingArguments

from cyclemimic.trainers.training_fields import SharedTrainingFields

logger = logging.getLogger(__name__)


@dataclass
class SharedTrainingArguments(SharedTrainingFields, TrainingArguments):
    r"""
    [`~transformers.TrainingArguments`] for models of this package.

    Args:
        compile_layers (`bool`, *optional*, defaults to `False`): Each transformer layer through torch.compile. The first
            steps then take a minute, where `torch_compile`, one graph of a whole step, may take many.

    The rest is [`~transformers.TrainingArguments`]'s.

    Raises:
        ValueError: `label_smoothing_factor` is not 0.
    """

    logging_steps: float = field(default=50, metadata={"help": "Steps between two log lines."})
    # Of Trainer's own type, a name or names, the command line can only make one name.
    report_to: list[str] = field(
        default_factory=list, metadata={"help": "Where to log, such as tensorboard, trackio; by default nowhere."}
    )
    # Trainer's own default asks the device after every step.
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Whether logs leave out losses that are not finite; a wait for each step."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "The collator needs every column."})
    # Ψ has no gradients until AC3 joins, and backbones have parts past the layer that is read. Trainer's own default, no
    # beside gradient checkpointing, is for the reentrant form of that.
    ddp_find_unused_parameters: bool | None = field(
        default=True, metadata={"help": "Whether DDP looks for parameters without gradients."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_gpu > 1:
            # Trainer would make replicas in threads (`DataParallel`), whose buffers are lost and whose weights cannot be
            # held fixed.
            logger.warning("training on one of %d GPUs; `accelerate launch` starts a process each", self.n_gpu)
            self._n_gpu = 1
        if self.label_smoothing_factor != 0:
            raise ValueError(
                f"`label_smoothing_factor` must be 0, got {self.label_smoothing_factor}: it changes no loss here."
            )
