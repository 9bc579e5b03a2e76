# SPDX-License-Identifier: Apache-2.0
"""The stages that learn, each through the package's public models, data sets and Trainers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import set_seed

from cyclemimic.checkpoints import choose_device, load_finetuned, load_tokenizer
from cyclemimic.data import (
    CycleMimicCollator,
    DemonstrationDataset,
    EpisodeSource,
    FramePairDataset,
    LatentLabels,
    compute_action_statistics,
)
from cyclemimic.demo.settings import DemoSettings
from cyclemimic.labeling import label_videos
from cyclemimic.models.cyclemimic.modeling_cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicPreTrainedModel,
)
from cyclemimic.models.cyclemimic.processing_cyclemimic import CycleMimicProcessor
from cyclemimic.models.cyclemimic.tiny_cyclemimic import make_tiny_backbone_config
from cyclemimic.models.latent_action_tokenizer.configuration_latent_action_tokenizer import (
    LatentActionTokenizerConfig,
)
from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import (
    LatentActionTokenizerForPreTraining,
)
from cyclemimic.trainers.cyclemimic_config import CycleMimicTrainingArguments
from cyclemimic.trainers.cyclemimic_trainer import CycleMimicTrainer
from cyclemimic.trainers.latent_action_tokenizer_config import LatentActionTokenizerTrainingArguments
from cyclemimic.trainers.latent_action_tokenizer_trainer import LatentActionTokenizerTrainer
from cyclemimic.trainers.publishing_trainer import PublishingTrainer

History = list[dict[str, float]]


def train_tokenizer(
    videos: Sequence[EpisodeSource], settings: DemoSettings, seed: int, output_dir: Path
) -> dict[str, Any]:
    """Stage 1: the latent action tokenizer with AC3, on frames alone."""
    set_seed(seed)
    image_processor = LatentActionTokenizerImageProcessor(size=settings.tokenizer_image_size)
    config = LatentActionTokenizerConfig(image_size=settings.tokenizer_image_size, **settings.tokenizer)
    model = LatentActionTokenizerForPreTraining(config)
    pairs = FramePairDataset(
        videos, settings.interval_s, settings.min_interval_s, transform=image_processor.resize_frames
    )
    arguments = LatentActionTokenizerTrainingArguments(
        interval_s=settings.interval_s,
        min_interval_s=settings.min_interval_s,
        reversed_share=settings.reversed_share,
        min_crop=settings.min_crop,
        **_training_arguments(output_dir, settings, seed, settings.tokenizer_steps, settings.tokenizer_learning_rate),
    )
    trainer = LatentActionTokenizerTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs,
        processing_class=image_processor,
    )
    return {"pairs": len(pairs), "history": _train_and_save(trainer, output_dir, {})}


def label(
    sources: Sequence[EpisodeSource], settings: DemoSettings, tokenizer_dir: Path, output_dir: Path
) -> dict[str, Any]:
    """Stage 2: latent action labels of all frame pairs."""
    # Not resumed: the tokenizer may have been trained again since.
    for folder in (output_dir, output_dir.with_name(output_dir.name + ".partial")):
        shutil.rmtree(folder, ignore_errors=True)
    label_videos(
        *load_tokenizer(tokenizer_dir, choose_device(None)),
        sources,
        output_dir,
        settings.interval_s,
        settings.min_interval_s,
        tokenizer_name=tokenizer_dir.name,
    )
    return {"labels": len(LatentLabels.from_folder(output_dir))}


def make_policy_processor(
    demonstrations: EpisodeSource, instructions: Sequence[str], settings: DemoSettings
) -> CycleMimicProcessor:
    """The policy's processor: a vocabulary from the instructions, action statistics from the demonstrations."""
    statistics = compute_action_statistics([demonstrations])
    processor = CycleMimicProcessor.from_texts(
        instructions,
        image_size=settings.policy_image_size,
        patch_size=settings.backbone["patch_size"],
        codebook_size=settings.tokenizer.get("codebook_size", 16),
        num_latent_tokens=settings.tokenizer.get("num_latent_tokens", 4),
        chunk_size=max(1, round(settings.interval_s * demonstrations.fps)),
        action_dim=len(statistics["q01"]),
    )
    # `fps` tells whoever deploys the policy how long an action lasts.
    processor.add_action_statistics(demonstrations.name, statistics | {"fps": demonstrations.fps})
    return processor


def pretrain(
    videos: Sequence[EpisodeSource],
    labels_dir: Path,
    processor: CycleMimicProcessor,
    settings: DemoSettings,
    seed: int,
    output_dir: Path,
) -> dict[str, Any]:
    """Stage 3: the policy learns to predict latent actions from image and instruction; no robot action is read."""
    set_seed(seed)
    model = CycleMimicForLatentActionPrediction(_policy_config(processor, settings))
    frames = DemonstrationDataset(videos, LatentLabels.from_folder(labels_dir), transform=processor.resize_images)
    arguments = _policy_arguments(
        output_dir, settings, seed, settings.pretraining_steps, settings.pretraining_learning_rate
    )
    collator = CycleMimicCollator(processor, image_shift=settings.image_shift)
    trained = "pretrained on video to predict latent actions. It does not act yet."
    history = _train_policy(model, arguments, frames, collator, output_dir, trained)
    return {"frames": len(frames), "history": history}


def finetune(
    demonstrations: EpisodeSource,
    labels_dir: Path,
    processor: CycleMimicProcessor,
    settings: DemoSettings,
    seed: int,
    output_dir: Path,
    pretrained_dir: Path | None,
) -> dict[str, Any]:
    """Stage 4: the policy learns the robot's actions from a few demonstrations, from `pretrained_dir` or from nothing."""
    set_seed(seed)
    if pretrained_dir is None:
        model = CycleMimicForActionPrediction(_policy_config(processor, settings))
    else:
        model = CycleMimicForActionPrediction.from_pretrained(pretrained_dir)
    frames = DemonstrationDataset(
        [demonstrations],
        LatentLabels.from_folder(labels_dir),
        chunk_size=processor.chunk_size,
        transform=processor.resize_images,
    )
    arguments = _policy_arguments(
        output_dir, settings, seed, settings.finetuning_steps, settings.finetuning_learning_rate
    )
    collator = CycleMimicCollator(processor, demonstrations.name, settings.image_shift)
    history = _train_policy(model, arguments, frames, collator, output_dir, "fine-tuned on demonstrations to act.")
    difference = _difference_of_reloaded(model, output_dir, frames)
    if difference != 0:
        raise RuntimeError(f"the policy reloaded from {output_dir} acts differently, by up to {difference}")
    return {"frames": len(frames), "history": history, "reloaded_policy_difference": difference}


def _difference_of_reloaded(
    model: CycleMimicForActionPrediction, saved_dir: Path, frames: DemonstrationDataset
) -> float:
    """Largest difference between the actions of the policy in memory and of the saved one, loaded again."""
    processor = CycleMimicProcessor.from_pretrained(saved_dir)
    reloaded = load_finetuned(saved_dir, model.device)
    items = [frames[index] for index in np.linspace(0, len(frames) - 1, min(8, len(frames))).astype(int)]
    inputs = processor(images=[item["image"] for item in items], text=[item["instruction"] for item in items])
    inputs = inputs.to(model.device)
    model.eval()
    with torch.inference_mode():
        difference = model.predict_action_chunk(**inputs) - reloaded.predict_action_chunk(**inputs)
    return difference.abs().max().item()


def _policy_config(processor: CycleMimicProcessor, settings: DemoSettings) -> Any:
    backbone = make_tiny_backbone_config(processor, image_size=settings.policy_image_size, **settings.backbone)
    return processor.make_config(backbone, **settings.action_decoder)


def _policy_arguments(
    output_dir: Path, settings: DemoSettings, seed: int, steps: int, learning_rate: float
) -> CycleMimicTrainingArguments:
    return CycleMimicTrainingArguments(
        image_shift=settings.image_shift,
        weight_decay=0.05,
        **_training_arguments(output_dir, settings, seed, steps, learning_rate),
    )


def _train_policy(
    model: CycleMimicPreTrainedModel,
    arguments: CycleMimicTrainingArguments,
    frames: Dataset,
    collator: CycleMimicCollator,
    output_dir: Path,
    trained: str,
) -> History:
    trainer = CycleMimicTrainer(
        model=model,
        args=arguments,
        train_dataset=frames,
        data_collator=collator,
        processing_class=collator.processor,
    )
    kind = f"A vision-language-action policy on a small backbone from scratch, {trained}"
    return _train_and_save(trainer, output_dir, {"kind": kind})


def _training_arguments(
    output_dir: Path, settings: DemoSettings, seed: int, steps: int, learning_rate: float
) -> dict[str, Any]:
    return {
        "output_dir": str(partial_dir(output_dir)),
        "max_steps": steps,
        "per_device_train_batch_size": settings.batch_size,
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": min(50, steps // 4),
        "adam_beta2": 0.95,
        "logging_steps": max(1, steps // 60),
        "save_strategy": "no",
        "report_to": "none",
        "seed": seed,
    }


def _train_and_save(trainer: PublishingTrainer, output_dir: Path, card: dict[str, Any]) -> History:
    """Trains, and saves model, processor and card so that `output_dir` appears whole or not at all."""
    partial = partial_dir(output_dir)
    # Where a run that was stopped has left a checkpoint.
    shutil.rmtree(partial, ignore_errors=True)
    trainer.train()
    trainer.card = {"title": output_dir.name, **card}
    trainer.save_model(str(partial))
    shutil.rmtree(output_dir, ignore_errors=True)
    os.replace(partial, output_dir)
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def partial_dir(path: Path) -> Path:
    """Where a folder is written before it takes its name."""
    return path.with_name(f"{path.name}.partial")
