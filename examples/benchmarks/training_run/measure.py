# SPDX-License-Identifier: Apache-2.0
"""
What a training run costs beside its steps: the Trainer against a bare loop of the same steps, how long it waits for data,
and whether its memory stays. The tokenizer is small, on films of moving noise that are made here.

    python measure.py
    python measure.py --steps 2000 --rounds 1

Trainer and loop take turns; medians of the rounds are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import torch

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerTrainer,
    LatentActionTokenizerTrainingArguments,
)
from cyclemimic.data import Episode, FramePairDataset, InMemorySource

IMAGE_SIZE, NUM_EPISODES, NUM_FRAMES = 32, 40, 60


def make_trainer(output_dir: str, steps: int, arguments: argparse.Namespace) -> LatentActionTokenizerTrainer:
    """A trainer of a small tokenizer, with AC3 from the first step."""
    torch.manual_seed(0)
    config = LatentActionTokenizerConfig(
        image_size=IMAGE_SIZE,
        patch_size=8,
        vision_config=None,
        hidden_size=64,
        num_attention_heads=2,
        num_encoder_layers=2,
        num_decoder_layers=3,
        num_discriminator_layers=2,
        codebook_dim=8,
        cycle_start_copy_ratio=1.0,
    )
    image_processor = LatentActionTokenizerImageProcessor(size=IMAGE_SIZE)
    training = LatentActionTokenizerTrainingArguments(
        output_dir=output_dir,
        max_steps=steps,
        per_device_train_batch_size=arguments.batch_size,
        dataloader_num_workers=arguments.workers,
        logging_steps=100,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=arguments.device == "cpu",
        interval_s=0.15,
        min_interval_s=0.05,
        reversed_share=0.5,
        min_crop=0.7,
        sample_steps=0,
    )
    random = np.random.default_rng(0)
    shape = (NUM_EPISODES, NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3)
    films = random.integers(0, 256, shape, dtype=np.uint8)
    episodes = [Episode.from_arrays(film, 20.0, index=index) for index, film in enumerate(films)]
    pairs = FramePairDataset([InMemorySource(episodes)], training.interval_s, training.min_interval_s)
    return LatentActionTokenizerTrainer(
        model=LatentActionTokenizerForPreTraining(config),
        args=training,
        train_dataset=pairs,
        processing_class=image_processor,
    )


def train(trainer: LatentActionTokenizerTrainer) -> tuple[float, list[dict[str, Any]]]:
    """Seconds a step, and the log."""
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    return seconds / trainer.args.max_steps, [line for line in trainer.state.log_history if "loss" in line]


def train_barely(trainer: LatentActionTokenizerTrainer) -> float:
    """Seconds a step of a loop that does what the steps need, on the trainer's own batches."""
    model, steps = trainer.model.train(), trainer.args.max_steps
    # As Trainer's own is.
    optimizer = torch.optim.AdamW(model.parameters(), lr=trainer.args.learning_rate, weight_decay=0.01, fused=True)
    start, step = time.perf_counter(), 0
    while step < steps:
        for batch in trainer.get_train_dataloader():
            optimizer.zero_grad()
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            if step == steps:
                break
    return (time.perf_counter() - start) / steps


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of each training (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=64, help="pairs a step (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of the data loader (default: %(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="trainings of each kind (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    bare, own, lines = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            bare.append(train_barely(make_trainer(folder, arguments.steps, arguments)))
            seconds, log = train(make_trainer(folder, arguments.steps, arguments))
            own.append(seconds)
            lines.append(log)
    overhead = statistics.median(one / other for one, other in zip(own, bare, strict=True)) - 1
    waits = [line["data_wait"] for log in lines for line in log]
    memory = [line["memory_gb"] for line in lines[-1]]
    print(f"a step: bare {1e3 * statistics.median(bare):.1f} ms, Trainer {1e3 * statistics.median(own):.1f} ms")
    print(f"overhead: {100 * overhead:+.1f} %, the median of {arguments.rounds} rounds")
    if waits:
        print(f"waiting for data, {arguments.workers} workers: {100 * statistics.median(waits):.1f} % of the time")
    if len(memory) > 2:
        growth = max(memory[1:]) / memory[1] - 1
        print(f"memory: {memory[1]:.3f} GB after 200 steps, at most {100 * growth:+.1f} % later")


if __name__ == "__main__":
    main()
