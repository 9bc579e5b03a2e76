# SPDX-License-Identifier: Apache-2.0
"""What training is told beside Trainer's own arguments. It needs no transformers, so that `--help` is instant."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class SharedTrainingFields:
    """The field that [`SharedTrainingArguments`] adds and describes."""

    compile_layers: bool = field(
        default=False,
        metadata={
            "help": "each transformer layer through torch.compile: faster steps on GPUs, after a minute of compiling"
        },
    )


@dataclass
class LatentActionTokenizerTrainingFields(SharedTrainingFields):
    """The fields that [`LatentActionTokenizerTrainingArguments`] adds and describes."""

    interval_s: float = field(default=1.0, metadata={"help": "seconds between the two frames of a pair"})
    min_interval_s: float = field(default=0.5, metadata={"help": "shortest pair near an episode's end, in seconds"})
    reversed_share: float = field(default=0.0, metadata={"help": "share of the pairs shown backwards in time"})
    min_crop: float = field(default=1.0, metadata={"help": "smallest share of height and width shown of a pair"})
    color_jitter: float = field(default=0.0, metadata={"help": "how far the colours of a pair are changed at random"})
    sample_steps: int = field(
        default=500, metadata={"help": "steps between two pictures of reconstructed and transferred frames; 0: none"}
    )


@dataclass
class CycleMimicTrainingFields(SharedTrainingFields):
    """The fields that [`CycleMimicTrainingArguments`] adds and describes."""

    image_shift: int = field(default=0, metadata={"help": "random shift of training images, in pixels"})
    corrupted_share: float = field(
        default=0.0, metadata={"help": "share of the latent tokens that are read as random ones in training"}
    )
    backbone_learning_rate: float | None = field(
        default=None, metadata={"help": "peak learning rate of the backbone, by default that of all"}
    )
    lora_rank: int | None = field(
        default=None, metadata={"help": "rank of adapters on the backbone; by default it is trained in full"}
    )
    lora_alpha: int = field(default=16, metadata={"help": "adapters are scaled by lora_alpha / lora_rank"})
    lora_dropout: float = field(default=0.0, metadata={"help": "share of the adapters' inputs that is dropped"})
    freeze_backbone: bool = field(
        default=False,
        metadata={"help": "train only the rows of the new tokens and the action decoder, where there is one"},
    )
    freeze_vision: bool = field(default=False, metadata={"help": "leave the backbone's vision models as they are"})
