"""Stage 2, tokenizer and video -> latent action labels: four words out of sixteen for every frame pair.

python examples/02_label_videos.py --data demo_output/data --tokenizer outputs/tokenizer --output outputs/labels
"""

import argparse

from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.checkpoints import choose_device
from cyclemimic.data import LatentLabels, open_source
from cyclemimic.labeling import label_videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["demo_output/data"], help="LeRobot data sets")
    parser.add_argument("--tokenizer", default="outputs/tokenizer")
    parser.add_argument("--output", default="outputs/labels")
    parser.add_argument("--interval_s", type=float, help="by default as in the tokenizer's training")
    parser.add_argument("--min_interval_s", type=float, help="at an episode's end; by default as in the training, too")
    arguments = parser.parse_args()

    # Encoder, codebook and decoder; discriminator and buffer of the training checkpoint stay behind.
    tokenizer = LatentActionTokenizerModel.from_pretrained(arguments.tokenizer).to(choose_device(None))
    interval_s = arguments.interval_s or tokenizer.config.interval_s
    min_interval_s = arguments.min_interval_s or tokenizer.config.min_interval_s
    if interval_s is None or min_interval_s is None:
        parser.error(
            "give --interval_s and --min_interval_s for a tokenizer that does not say how far apart its pairs were"
        )
    label_videos(
        tokenizer,
        LatentActionTokenizerImageProcessor.from_pretrained(arguments.tokenizer),
        [open_source(path) for path in arguments.data],
        arguments.output,
        interval_s,
        min_interval_s,
        tokenizer_name=arguments.tokenizer,
    )

    labels = LatentLabels.from_folder(arguments.output)
    source, episode_index = labels.episodes[0]
    frames, codes = labels.episode(source, episode_index)
    print(f"{len(labels)} labels; frame {frames[0]} of {source}, episode {episode_index}: {codes[0].tolist()}")


if __name__ == "__main__":
    main()
