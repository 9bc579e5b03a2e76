# SPDX-License-Identifier: Apache-2.0
"""Training arguments of the latent action tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from cyclemimic.data import PairAugmentation
from cyclemimic.data.pairs import check_intervals
from cyclemimic.trainers.training_fields import LatentActionTokenizerTrainingFields, use_one_gpu


@dataclass
class LatentActionTokenizerTrainingArguments(LatentActionTokenizerTrainingFields, TrainingArguments):
    r"""
    [`~transformers.TrainingArguments`] with the defaults of paper §3.4 where it gives them.

    Args:
        interval_s (`float`, *optional*, defaults to 1.0): Seconds between the two frames of a pair.
        min_interval_s (`float`, *optional*, defaults to 0.5): Shortest pair taken near an episode's end, in seconds.
        reversed_share (`float`, *optional*, defaults to 0.0), min_crop (`float`, *optional*, defaults to 1.0),
        color_jitter (`float`, *optional*, defaults to 0.0): Of [`~cyclemimic.data.PairAugmentation`].
        sample_steps (`int`, *optional*, defaults to 500): Steps between two pictures of reconstructed and transferred
            frames; 0 draws none.
        compile_layers (`bool`, *optional*, defaults to `False`): Each transformer layer through torch.compile. The first
            steps then take a minute, where `torch_compile`, one graph of a whole step, may take many.

    The rest is [`~transformers.TrainingArguments`]'s.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate (paper §3.4)."})
    weight_decay: float = field(default=1e-2, metadata={"help": "Weight decay of AdamW (paper §3.4)."})
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
    # Ψ has no gradients until AC3 joins. Trainer's own default, no beside gradient checkpointing, is for the reentrant form
    # of that.
    ddp_find_unused_parameters: bool | None = field(
        default=True, metadata={"help": "Whether DDP looks for parameters without gradients."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        use_one_gpu(self)
        if self.label_smoothing_factor != 0:
            raise ValueError(
                f"`label_smoothing_factor` must be 0, got {self.label_smoothing_factor}: it changes no loss here."
            )
        if self.sample_steps < 0:
            raise ValueError(f"`sample_steps` must be at least 0, got {self.sample_steps}.")
        check_intervals(self.interval_s, self.min_interval_s)
        _ = self.augmentation  # refuses what is out of its range

    @property
    def augmentation(self) -> PairAugmentation:
        """What is done to the pairs, for [`~cyclemimic.data.LatentActionTokenizerCollator`]."""
        return PairAugmentation(self.reversed_share, self.min_crop, self.color_jitter)
