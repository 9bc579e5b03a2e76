"""Stage 3, images, instructions and labels -> a policy that predicts latent actions. No robot action is read.

python examples/03_pretrain_policy.py --data demo_output/data --labels outputs/labels --output outputs/pretrained
"""

import argparse

from transformers import set_seed

from cyclemimic import (
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    CycleMimicTrainer,
    CycleMimicTrainingArguments,
)
from cyclemimic.data import DemonstrationDataset, LatentLabels, open_source
from cyclemimic.data.instructions import instructions_of
from cyclemimic.models.cyclemimic import make_tiny_backbone_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["demo_output/data"], help="LeRobot data sets")
    parser.add_argument("--labels", default="outputs/labels")
    parser.add_argument("--output", default="outputs/pretrained")
    parser.add_argument("--max_steps", type=int, default=3000)
    parser.add_argument("--image_size", type=int, default=128)
    arguments = parser.parse_args()

    sources = [open_source(path) for path in arguments.data]
    instructions = instructions_of(sources, may_be_silent=True)
    labels = LatentLabels.from_folder(arguments.labels)
    # A backbone from scratch. `CycleMimicForLatentActionPrediction.from_backbone` takes a pretrained one.
    processor = CycleMimicProcessor.from_texts(instructions, image_size=arguments.image_size)
    set_seed(0)
    backbone = make_tiny_backbone_config(processor, arguments.image_size, num_text_layers=3)
    training = CycleMimicTrainingArguments(
        output_dir=arguments.output,
        max_steps=arguments.max_steps,
        per_device_train_batch_size=64,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        image_shift=4,
        save_strategy="no",
    )
    trainer = CycleMimicTrainer(
        model=CycleMimicForLatentActionPrediction(processor.make_config(backbone)),
        args=training,
        train_dataset=DemonstrationDataset(sources, labels, transform=processor.resize_images),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
