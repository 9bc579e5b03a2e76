# SPDX-License-Identifier: Apache-2.0
"""How large a demo is: what is recorded, which models, how many steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class DemoConfig:
    """What the user asked for.

    Args:
        output (`Path`): Folder of results; a stage that is done there is not done again.
        data (`Path`, *optional*): A LeRobot data set to learn from; without, experts are filmed in a simulator.
        camera (`str`, *optional*): Camera of `data` to read.
        quick (`bool`): Prove the path, with no claim on success.
        seed (`int`): Seed of every stage.
    """

    output: Path
    data: Path | None = None
    camera: str | None = None
    quick: bool = False
    seed: int = 0


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of a demo, chosen for two CPU cores. Sizes of models are the keyword arguments of their configurations.

    Args:
        tasks (`tuple[str, ...]`): Simulator tasks; empty for recorded data.
        videos_per_task (`int`): Videos of a task, whose actions are not used.
        demonstrations_per_task (`int`): Labelled demonstrations of a task (of the data set, for recorded data).
        rollouts_per_task (`int`): Closed-loop trials of a task and policy.
        clips_per_task (`int`): How many of them are filmed for the report.
        push_rate (`float`), video_noise, demonstration_noise (`float`): Of [`cyclemimic.demo.filming.Shot`].
        action_repeat (`int`): Control steps of 1/80 s that an action lasts, in recording and in evaluation.
        interval_s, min_interval_s (`float`): Time between the frames of a pair, and the least at an episode's end. An
            action chunk covers the same time.
        executed_share (`float`): Share of a predicted chunk that is executed before the policy looks again.
        tokenizer_image_size, policy_image_size (`int`): Pixels.
        tokenizer, action_decoder, backbone (`dict`): Model sizes.
        tokenizer_steps, pretraining_steps, finetuning_steps (`int`): Optimizer steps.
        tokenizer_learning_rate, pretraining_learning_rate, finetuning_learning_rate (`float`): Peaks.
        batch_size (`int`): Of every training.
        reversed_share, min_crop (`float`): Of [`LatentActionTokenizerTrainingArguments`].
        image_shift (`int`): Of [`CycleMimicTrainingArguments`].
    """

    tasks: tuple[str, ...] = ("button-press-topdown-v3", "drawer-open-v3", "window-open-v3")
    videos_per_task: int = 120
    demonstrations_per_task: int = 5
    rollouts_per_task: int = 20
    clips_per_task: int = 2
    push_rate: float = 1.0
    video_noise: float = 0.1
    demonstration_noise: float = 0.15
    action_repeat: int = 2
    interval_s: float = 0.15
    min_interval_s: float = 0.05
    executed_share: float = 0.5
    tokenizer_image_size: int = 32
    policy_image_size: int = 128
    tokenizer: dict[str, Any] = field(
        default_factory=lambda: {
            "patch_size": 8,
            "vision_config": None,
            "hidden_size": 64,
            "num_attention_heads": 2,
            "num_encoder_layers": 2,
            "num_decoder_layers": 3,
            "num_discriminator_layers": 2,
            "codebook_dim": 8,
            # Little of the picture moves, and the experts' way can be told from the scene: the codes carry the motion
            # only where what moves counts for most of the loss.
            "motion_weight": 3.0,
            # A decoder that draws the hand where it will be needs not be told how it moves; one that moves it does.
            "num_motions": 3,
            "cycle_start_copy_ratio": 0.7,
            "cycle_weight": 0.02,
        }
    )
    backbone: dict[str, Any] = field(
        default_factory=lambda: {"patch_size": 16, "hidden_size": 96, "num_text_layers": 2}
    )
    action_decoder: dict[str, Any] = field(
        default_factory=lambda: {
            "action_decoder_context": "act",
            "action_decoder_hidden_size": 96,
            "action_decoder_num_heads": 4,
            "action_decoder_num_layers": 2,
        }
    )
    tokenizer_steps: int = 3000
    pretraining_steps: int = 3000
    finetuning_steps: int = 700
    tokenizer_learning_rate: float = 2e-3
    pretraining_learning_rate: float = 2e-3
    finetuning_learning_rate: float = 1e-3
    batch_size: int = 64
    reversed_share: float = 0.5
    min_crop: float = 0.7
    image_shift: int = 4


def settings_for(config: DemoConfig) -> DemoSettings:
    """The sizes that go with what the user asked for."""
    settings = DemoSettings()
    if config.data is not None:
        # Real data runs at 5 to 50 frames a second; a second is what the field takes between frames of a pair.
        settings = replace(settings, tasks=(), interval_s=1.0, min_interval_s=0.5)
    if config.quick:
        settings = replace(
            settings,
            videos_per_task=3,
            demonstrations_per_task=2,
            rollouts_per_task=2,
            clips_per_task=1,
            tokenizer_steps=60,
            pretraining_steps=30,
            finetuning_steps=30,
            batch_size=32,
        )
    return settings
