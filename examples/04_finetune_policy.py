"""Stage 4, pretrained policy and a few demonstrations -> a policy that acts.

python examples/04_finetune_policy.py --policy outputs/pretrained --labels outputs/labels --output outputs/policy
"""

import argparse

from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicProcessor,
    CycleMimicTrainer,
    CycleMimicTrainingArguments,
)
from cyclemimic.data import (
    DemonstrationDataset,
    LatentLabels,
    compute_action_statistics,
    open_source,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="demo_output/data", help="a LeRobot data set")
    parser.add_argument("--demonstrations", type=int, default=15, help="how many of its episodes to use")
    parser.add_argument("--labels", default="outputs/labels")
    parser.add_argument("--policy", default="outputs/pretrained")
    parser.add_argument("--output", default="outputs/policy")
    parser.add_argument("--max_steps", type=int, default=500)
    arguments = parser.parse_args()

    demonstrations = open_source(arguments.data)
    indices = [episode.index for episode in demonstrations]
    demonstrations = open_source(arguments.data, episodes=indices[: arguments.demonstrations])
    labels = LatentLabels.from_folder(arguments.labels)
    statistics = compute_action_statistics([demonstrations])
    # A chunk of actions covers the time between the two frames of a labelled pair.
    chunk_size = max(1, round(labels.metadata["interval_s"] * demonstrations.fps))
    sizes = {"chunk_size": chunk_size, "action_dim": len(statistics["q01"])}
    processor = CycleMimicProcessor.from_pretrained(arguments.policy, **sizes)
    processor.add_action_statistics(demonstrations.name, {**statistics, "fps": demonstrations.fps})
    trainer = CycleMimicTrainer(
        model=CycleMimicForActionPrediction.from_pretrained(arguments.policy, **sizes),
        args=CycleMimicTrainingArguments(
            output_dir=arguments.output, max_steps=arguments.max_steps, learning_rate=5e-4, save_strategy="no"
        ),
        train_dataset=DemonstrationDataset([demonstrations], labels, chunk_size, processor.resize_images),
        processing_class=processor,
    )
    trainer.train()
    trainer.save_model()


if __name__ == "__main__":
    main()
