# SPDX-License-Identifier: Apache-2.0
"""Training arguments of the policy, for pretraining and for fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclemimic.trainers.shared_config import SharedTrainingArguments
from cyclemimic.trainers.training_fields import CycleMimicTrainingFields


@dataclass
class CycleMimicTrainingArguments(CycleMimicTrainingFields, SharedTrainingArguments):
    r"""
    [`~transformers.TrainingArguments`] with the defaults of paper §4.

    Args:
        image_shift (`int`, *optional*, defaults to 0): Training images are shifted by up to this many pixels in each
            direction, the border repeated. With few demonstrations it is the cheapest remedy against learning them by
            heart.
        corrupted_share (`float`, *optional*, defaults to 0.0): Share of the latent action tokens that the policy reads
            replaced by random ones, so that the action decoder does not rely on them more than predictions deserve.

        backbone_learning_rate (`float`, *optional*): Peak learning rate of the backbone, or of its adapters, where it is to
            be another than that of the action decoder and, with adapters, of the rows of new tokens. A pretrained backbone
            has little to learn from a few demonstrations, and much to forget; these start from nothing.
        lora_rank (`int`, *optional*): Trains the backbone through low-rank adapters of this rank on all its linear
            layers, and in full what it did not know before: action decoder and rows of the new tokens (paper §4). OpenVLA
            uses 32. By default everything is trained in full.
        lora_alpha (`int`, *optional*, defaults to 16): Adapters are scaled by `lora_alpha / lora_rank` (OpenVLA's).
        lora_dropout (`float`, *optional*, defaults to 0.0): Share of the adapters' inputs that is dropped.
        freeze_backbone (`bool`, *optional*, defaults to `False`): The same without adapters.
        freeze_vision (`bool`, *optional*, defaults to `False`): Leaves the backbone's vision models as they are, without
            adapters, too.

    The rest is [`SharedTrainingArguments`]'s, and [`~transformers.TrainingArguments`]'s.
    """

    learning_rate: float = field(default=2e-5, metadata={"help": "Peak learning rate (paper §4, Bridge)."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Schedule of the learning rate (paper §4)."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_shift < 0:
            raise ValueError(f"`image_shift` must be at least 0, got {self.image_shift}.")
        if not 0 <= self.corrupted_share <= 1:
            raise ValueError(f"`corrupted_share` must be in [0, 1], got {self.corrupted_share}.")
        if self.backbone_learning_rate is not None and self.backbone_learning_rate < 0:
            raise ValueError(f"`backbone_learning_rate` must be at least 0, got {self.backbone_learning_rate}.")
        for name in ("lora_rank", "lora_alpha"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"`lora_dropout` must be in [0, 1), got {self.lora_dropout}.")
        if self.lora_rank is None and (self.lora_alpha, self.lora_dropout) != (16, 0.0):
            raise ValueError(
                "`lora_alpha` and `lora_dropout` must be left out without `lora_rank`, which makes the adapters, got "
                f"{self.lora_alpha} and {self.lora_dropout}."
            )
        if self.freeze_backbone and self.backbone_learning_rate is not None:
            raise ValueError(
                "`backbone_learning_rate` must be left out with `freeze_backbone`, of which nothing is trained, got "
                f"{self.backbone_learning_rate}."
            )
        if self.freeze_backbone and self.freeze_vision:
            raise ValueError(
                "`freeze_vision` must be false with `freeze_backbone`, which freezes all of it, got true."
            )
        if self.freeze_backbone and self.lora_rank is not None:
            raise ValueError(f"`freeze_backbone` must not come with `lora_rank`, got rank {self.lora_rank}.")
