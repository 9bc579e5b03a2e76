# SPDX-License-Identifier: Apache-2.0
"""Configuration of the policy as LeRobot has them: what to load, and which features of a data set it reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from lerobot.configs import NormalizationMode, PreTrainedConfig
from lerobot.optim import AdamWConfig

from cyclemimic import CycleMimicConfig as ModelConfig
from cyclemimic.checkpoints import read_config


@PreTrainedConfig.register_subclass("cyclemimic")
@dataclass
class CycleMimicConfig(PreTrainedConfig):
    """
    Configuration of [`CycleMimicPolicy`]. Architecture, processor and statistics come with the checkpoint; here is
    what LeRobot asks of a policy.

    Args:
        checkpoint_path (`str`, *optional*): CycleMimic checkpoint, a folder or an id on the Hub, which may end
            with `@` and a revision: pretrained, to fine-tune it, or fine-tuned. Not read where a LeRobot checkpoint is loaded (`--policy.path`), which has its
            own.
        tokenizer_path (`str`, *optional*): Latent action tokenizer that labels the frames of a training batch; needed
            for training alone.
        dataset (`str`, *optional*): Whose action statistics to act by, where the checkpoint has several; in training
            those of the data, under its own name.
        instruction (`str`, *optional*): What to do where data, simulator or robot name no task, as LeRobot's PushT.
        cameras (`list[str]`, *optional*): Image features to see with, in the policy's order; by default those that
            the checkpoint names, or the only one there is.
        use_robot_state (`bool`, *optional*, defaults to `False`): Whether a policy that was only pretrained learns to
            read `observation.state`. One that was fine-tuned reads it or not, as then.
        chunk_size (`int`, *optional*, defaults to the checkpoint's): Actions predicted at once, which a policy that
            was only pretrained takes from here. The frames of a latent action are as far apart.
        n_action_steps (`int`, *optional*, defaults to the checkpoint's): Actions executed before the policy looks
            again.
        optimizer_lr (`float`, *optional*, defaults to 2e-5), optimizer_weight_decay (`float`, *optional*, defaults to
            0), optimizer_grad_clip_norm (`float`, *optional*, defaults to 1): As `cyclemimic finetune` has them.

    Raises:
        ValueError: `n_action_steps` out of range, or no such checkpoint.
    """

    checkpoint_path: str | None = None
    tokenizer_path: str | None = None
    dataset: str | None = None
    instruction: str | None = None
    cameras: list[str] | None = None
    use_robot_state: bool = False
    chunk_size: int | None = None
    n_action_steps: int | None = None
    # The checkpoint's own processor normalises and clips; by its own statistics, which leave grippers of -1 and 1 alone, or by
    # those of the data, between its percentiles.
    normalization_mapping: dict[str, NormalizationMode] = field(
        default_factory=lambda: {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.IDENTITY,
            "ACTION": NormalizationMode.IDENTITY,
        }
    )
    optimizer_lr: float = 2e-5
    optimizer_weight_decay: float = 0.0
    optimizer_grad_clip_norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        # LeRobot asks how many actions to read before there is a policy.
        if None in (self.chunk_size, self.n_action_steps) and self.checkpoint_path is not None:
            loaded = cast(ModelConfig, read_config("checkpoint_path", self.checkpoint_path, "cyclemimic"))
            self.chunk_size = loaded.chunk_size if self.chunk_size is None else self.chunk_size
            if self.n_action_steps is None and self.chunk_size == loaded.chunk_size:
                self.n_action_steps = loaded.num_executed_steps
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ValueError(f"`chunk_size` must be at least 1, got {self.chunk_size}.")
        if self.chunk_size is not None and self.n_action_steps is None:
            self.n_action_steps = max(1, self.chunk_size // 2)
        if self.chunk_size is not None and not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"`n_action_steps` must be in [1, {self.chunk_size}], the actions of a chunk, "
                f"got {self.n_action_steps}."
            )

    @property
    def observation_delta_indices(self) -> list[int]:
        """The frame, and that which its latent action leads to: a chunk later, as in `cyclemimic finetune`."""
        return [0, self.chunk_size]

    @property
    def action_delta_indices(self) -> list[int]:
        """The chunk."""
        return list(range(self.chunk_size))

    @property
    def reward_delta_indices(self) -> None:
        """None."""
        return None

    @property
    def drop_n_last_frames(self) -> int:
        """Frames too near to an episode's end for a latent action: those that `cyclemimic label` leaves out."""
        return self.chunk_size // 2

    def validate_features(self) -> None:
        """
        Raises:
            ValueError: no image feature, or no action.
        """
        if not self.image_features or self.action_feature is None:
            raise ValueError(
                "`input_features` and `output_features` must hold an image and `action`, got "
                f"{sorted(self.input_features or {})} and {sorted(self.output_features or {})}."
            )

    def get_optimizer_preset(self) -> AdamWConfig:
        """AdamW, as `cyclemimic finetune` uses it."""
        return AdamWConfig(
            lr=self.optimizer_lr,
            weight_decay=self.optimizer_weight_decay,
            grad_clip_norm=self.optimizer_grad_clip_norm,
        )

    def get_scheduler_preset(self) -> None:
        """None: a constant learning rate (paper §4)."""
        return None


__all__ = ["CycleMimicConfig"]
