"""Stage 1 looked at, tokenizer and robot data -> what its codes say of the true motion, as figures and as a page.

python examples/06_evaluate_tokenizer.py --data demo_output/data --tokenizer outputs/tokenizer --output outputs/quality
"""

import argparse

from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.checkpoints import choose_device
from cyclemimic.data import open_source
from cyclemimic.evaluation.tokenizer_quality import QualitySettings, measure_tokenizer, write_quality


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["demo_output/data"], help="LeRobot data sets with actions")
    parser.add_argument("--tokenizer", default="outputs/tokenizer")
    parser.add_argument("--output", default="outputs/quality")
    parser.add_argument("--max_pairs", type=int, default=4000, help="frame pairs of each body")
    parser.add_argument("--interval_s", type=float, help="by default as in the tokenizer's training")
    parser.add_argument("--min_interval_s", type=float, help="at an episode's end; by default as in the training, too")
    arguments = parser.parse_args()

    tokenizer = LatentActionTokenizerModel.from_pretrained(arguments.tokenizer).to(choose_device(None))
    interval_s = arguments.interval_s or tokenizer.config.interval_s
    min_interval_s = arguments.min_interval_s or tokenizer.config.min_interval_s
    if interval_s is None or min_interval_s is None:
        parser.error(
            "give --interval_s and --min_interval_s for a tokenizer that does not say how far apart its pairs were"
        )
    measurement = measure_tokenizer(
        tokenizer,
        LatentActionTokenizerImageProcessor.from_pretrained(arguments.tokenizer),
        [open_source(path) for path in arguments.data],
        QualitySettings(interval_s, min_interval_s, max_pairs=arguments.max_pairs),
    )
    page = write_quality(arguments.output, measurement, name=arguments.tokenizer) / "quality.html"

    summary = measurement.metrics["summary"]
    # A codebook whose words are not in use says little, and cycle accuracy alone says nothing: a watermark wins it.
    print(
        f"a perplexity of {summary['perplexity']:.1f} words, cycle accuracy {summary['cycle_token_accuracy']['value']:.2f}"
    )
    print(
        f"R² of the motion in episodes that no probe saw, read by a linear one: {summary['linear_r2_within']['value']:.2f}"
    )
    print(f"All figures, with their intervals, and pictures: {page}")


if __name__ == "__main__":
    main()
