# SPDX-License-Identifier: Apache-2.0
"""Training arguments of the latent action tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclemimic.data import PairAugmentation
from cyclemimic.data.pairs import check_intervals
from cyclemimic.trainers.shared_config import SharedTrainingArguments
from cyclemimic.trainers.training_fields import LatentActionTokenizerTrainingFields


@dataclass
class LatentActionTokenizerTrainingArguments(LatentActionTokenizerTrainingFields, SharedTrainingArguments):
    r"""
    [`~transformers.TrainingArguments`] with the defaults of paper §3.4 where it gives them.

    Args:
        interval_s (`float`, *optional*, defaults to 1.0): Seconds between the two frames of a pair. `cyclemimic
            train-tokenizer` makes its pairs by it; the Trainer itself trains on the intervals of its data set, and refuses a
            [`~cyclemimic.data.FramePairDataset`] with others than are given here.
        min_interval_s (`float`, *optional*, defaults to 0.5): Shortest pair taken near an episode's end, in seconds, as above.
        reversed_share (`float`, *optional*, defaults to 0.0), min_crop (`float`, *optional*, defaults to 1.0),
        color_jitter (`float`, *optional*, defaults to 0.0): Of [`~cyclemimic.data.PairAugmentation`].
        sample_steps (`int`, *optional*, defaults to 500): Steps between two pictures of reconstructed and transferred
            frames; 0 draws none.
        metric_for_best_model (`str`, *optional*): With `load_best_model_at_end`, `"reconstruction_loss"` by default.

    The rest is [`SharedTrainingArguments`]'s, and [`~transformers.TrainingArguments`]'s.
    """

    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate (paper §3.4)."})
    weight_decay: float = field(default=1e-2, metadata={"help": "Weight decay of AdamW (paper §3.4)."})

    def __post_init__(self) -> None:
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            # The loss of all terms rises when AC3 joins: by it, the best model would be the last without.
            self.metric_for_best_model = "reconstruction_loss"
        super().__post_init__()
        if self.sample_steps < 0:
            raise ValueError(f"`sample_steps` must be at least 0, got {self.sample_steps}.")
        check_intervals(self.interval_s, self.min_interval_s)
        _ = self.augmentation  # refuses what is out of its range

    @property
    def augmentation(self) -> PairAugmentation:
        """What is done to the pairs, for [`~cyclemimic.data.LatentActionTokenizerCollator`]."""
        return PairAugmentation(self.reversed_share, self.min_crop, self.color_jitter)
