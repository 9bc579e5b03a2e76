"""Stage 1, video -> latent action tokenizer (AC3). Only frames are read.

python examples/01_train_tokenizer.py --data demo_output/data --output outputs/tokenizer
"""

import argparse

from transformers import set_seed

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerTrainer,
    LatentActionTokenizerTrainingArguments,
)
from cyclemimic.data import FramePairDataset, open_source

# Small enough for a CPU. `LatentActionTokenizerForPreTraining.from_vision_model("facebook/dinov2-base")` is the paper's.
SMALL = {"image_size": 32, "patch_size": 8, "vision_config": None, "hidden_size": 64, "num_attention_heads": 2}
SMALL |= {"num_encoder_layers": 2, "num_decoder_layers": 3, "num_discriminator_layers": 2, "codebook_dim": 8}
# What moves is a small part of the picture: let it count, and let AC3 join once a good part of it is explained.
SMALL |= {"motion_weight": 3.0, "num_motions": 3, "cycle_weight": 0.02, "cycle_start_copy_ratio": 0.7}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["demo_output/data"], help="LeRobot data sets")
    parser.add_argument("--output", default="outputs/tokenizer")
    parser.add_argument("--interval_s", type=float, default=0.15, help="seconds between the frames of a pair")
    parser.add_argument("--max_steps", type=int, default=3000)
    arguments = parser.parse_args()

    training = LatentActionTokenizerTrainingArguments(
        output_dir=arguments.output,
        max_steps=arguments.max_steps,
        per_device_train_batch_size=64,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        adam_beta2=0.95,
        interval_s=arguments.interval_s,
        min_interval_s=arguments.interval_s / 3,
        reversed_share=0.5,
        min_crop=0.7,
        save_strategy="no",
    )
    set_seed(training.seed)
    image_processor = LatentActionTokenizerImageProcessor(size=SMALL["image_size"])
    trainer = LatentActionTokenizerTrainer(
        model=LatentActionTokenizerForPreTraining(LatentActionTokenizerConfig(**SMALL)),
        args=training,
        train_dataset=FramePairDataset(
            [open_source(path) for path in arguments.data],
            training.interval_s,
            training.min_interval_s,
            transform=image_processor.resize_frames,
        ),
        processing_class=image_processor,
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
