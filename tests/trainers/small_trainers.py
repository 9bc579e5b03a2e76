# SPDX-License-Identifier: Apache-2.0
"""Trainers of models that take milliseconds a step, made alike in tests and in the processes that tests start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import IJepaConfig, LlamaConfig, LlavaConfig, PreTrainedConfig, set_seed

from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    CycleMimicTrainer,
    CycleMimicTrainingArguments,
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerTrainer,
    LatentActionTokenizerTrainingArguments,
)
from cyclemimic.data import (
    CycleMimicCollator,
    DemonstrationDataset,
    Episode,
    EpisodeSource,
    FramePairDataset,
    InMemorySource,
    LatentActionTokenizerCollator,
    LatentLabels,
    compute_action_statistics,
)


def make_sources() -> list[InMemorySource]:
    """Two data sets of two bodies."""
    random = np.random.default_rng(0)
    return [
        InMemorySource(
            [
                Episode.from_arrays(
                    random.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8),
                    fps=10.0,
                    instruction=f"task {index}",
                    actions=random.uniform(-1, 1, (8, 2)),
                    source=body,
                    embodiment=body,
                    index=index,
                )
                for index in range(2)
            ]
        )
        for body in ("arm", "hand")
    ]


def small_run(output_dir: str | Path, **changes: Any) -> dict[str, Any]:
    """Keyword arguments of a `TrainingArguments`, for a few steps on the CPU."""
    return {
        "output_dir": str(output_dir),
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "logging_steps": 2,
        "save_steps": 2,
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 3,
    } | changes


def make_tokenizer_trainer(
    output_dir: str | Path, vision_config: dict[str, Any] | None = None, **changes: Any
) -> LatentActionTokenizerTrainer:
    """Of a tokenizer as far on as if AC3 had just begun: it joins with the first step."""
    own = {"learning_rate": 1e-3, "interval_s": 0.3, "min_interval_s": 0.1, "reversed_share": 0.5}
    arguments = LatentActionTokenizerTrainingArguments(**small_run(output_dir, **own) | changes)
    set_seed(arguments.seed)
    image_processor = LatentActionTokenizerImageProcessor(size=16)
    config = LatentActionTokenizerConfig(
        image_size=16,
        patch_size=8,
        vision_config=vision_config,
        hidden_size=16,
        num_attention_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_discriminator_layers=1,
        codebook_dim=4,
        buffer_batches=2,
        buffer_batch_size=4,
        dead_code_steps=2,
    )
    model = LatentActionTokenizerForPreTraining(config)
    model.steps.fill_(20)
    model.ac3_steps.fill_(1)
    model.buffer.add(torch.randint(16, (4, 4)), torch.arange(4) % 2)
    pairs = FramePairDataset(
        make_sources(), arguments.interval_s, arguments.min_interval_s, transform=image_processor.resize_frames
    )
    return LatentActionTokenizerTrainer(
        model=model,
        args=arguments,
        train_dataset=pairs,
        eval_dataset=torch.utils.data.Subset(pairs, range(4)),
        data_collator=LatentActionTokenizerCollator(image_processor, arguments.augmentation),
        processing_class=image_processor,
    )


def make_labels(sources: Sequence[EpisodeSource]) -> LatentLabels:
    """Random codes for the first six frames of every episode."""
    rows = [(source.name, episode.index, frame) for source in sources for episode in source for frame in range(6)]
    names, episodes, frames = zip(*rows)
    codes = np.random.default_rng(0).integers(0, 16, (len(rows), 4))
    columns = {"source": names, "episode_index": episodes, "frame_index": frames, "codes": codes}
    return LatentLabels(
        columns | {"future_index": np.array(frames) + 2}, {"codebook_size": 16, "num_latent_tokens": 4}
    )


def make_backbone_config(processor: CycleMimicProcessor) -> PreTrainedConfig:
    """A backbone whose weights transformers saves under other names than the model's."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return LlavaConfig(
        vision_config=IJepaConfig(image_size=16, patch_size=8, **sizes),
        text_config=LlamaConfig(vocab_size=len(processor.tokenizer), **sizes),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def make_policy_trainer(output_dir: str | Path, finetunes: bool = True, **changes: Any) -> CycleMimicTrainer:
    """Of a policy that is pretrained on both data sets, or fine-tuned on the first."""
    own = {"learning_rate": 1e-3, "image_shift": 2, "corrupted_share": 0.3}
    arguments = CycleMimicTrainingArguments(**small_run(output_dir, **own) | changes)
    set_seed(arguments.seed)
    sources = make_sources()
    processor = CycleMimicProcessor.from_texts(
        ["task 0", "task 1"], image_size=16, patch_size=8, chunk_size=3, action_dim=2
    )
    processor.add_action_statistics("arm", compute_action_statistics(sources[:1]))
    backbone = make_backbone_config(processor)
    config = processor.make_config(backbone, action_decoder_hidden_size=16, action_decoder_num_heads=2)
    kind = CycleMimicForActionPrediction if finetunes else CycleMimicForLatentActionPrediction
    frames = DemonstrationDataset(
        sources[:1] if finetunes else sources,
        make_labels(sources),
        chunk_size=3 if finetunes else None,
        transform=processor.resize_images,
    )
    dataset_name = "arm" if finetunes else None
    return CycleMimicTrainer(
        model=kind(config),
        args=arguments,
        train_dataset=frames,
        eval_dataset=torch.utils.data.Subset(frames, range(4)),
        data_collator=CycleMimicCollator(processor, dataset_name, arguments.image_shift, arguments.corrupted_share),
        processing_class=processor,
    )
