# SPDX-License-Identifier: Apache-2.0
"""
How many frame pairs a second two processes label, against one.

    OMP_NUM_THREADS=1 python measure.py
    OMP_NUM_THREADS=1 python measure.py --tokenizer demo_output/tokenizer --data demo_output/data

Both label the same data, one after the other, from where everything is imported and loaded. Without `--data` films of moving noise
are made here, and a tokenizer of the demo's width and depth with random weights: how long it takes does not depend on them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

IMAGE_SIZE = 64


def make_data(folder: Path, num_episodes: int) -> Path:
    """A LeRobot data set of noise."""
    from cyclemimic.data import LeRobotWriter

    random, root = np.random.default_rng(0), folder / "noise"
    with LeRobotWriter(root, 10, "noise", ["x"]) as writer:
        for _ in range(num_episodes):
            frames = random.integers(0, 256, (100, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
            writer.add_episode(frames, np.zeros((100, 1)), "move")
    return root


def make_tokenizer(folder: Path) -> Path:
    """As wide and deep as the demo's."""
    from cyclemimic import (
        LatentActionTokenizerConfig,
        LatentActionTokenizerImageProcessor,
        LatentActionTokenizerModel,
    )

    config = LatentActionTokenizerConfig(
        image_size=32,
        patch_size=8,
        vision_config=None,
        hidden_size=64,
        num_attention_heads=2,
        num_encoder_layers=2,
        num_decoder_layers=3,
        codebook_dim=8,
    )
    LatentActionTokenizerModel(config).save_pretrained(folder / "tokenizer")
    LatentActionTokenizerImageProcessor(size=32).save_pretrained(folder / "tokenizer")
    return folder / "tokenizer"


def label(tokenizer: Path, data: list[Path], output: Path, rank: int, world_size: int, start: Any) -> None:
    """One process: what it needs first, then its share once all are ready."""
    from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
    from cyclemimic.data import open_source
    from cyclemimic.labeling import label_videos

    model = LatentActionTokenizerModel.from_pretrained(tokenizer).eval()
    image_processor = LatentActionTokenizerImageProcessor.from_pretrained(tokenizer)
    sources = [open_source(str(path)) for path in data]
    start.wait()
    settings = {
        "interval_s": 0.3,
        "min_interval_s": 0.1,
        "rows_per_shard": 200,
        "rank": rank,
        "world_size": world_size,
    }
    label_videos(model, image_processor, sources, output, tokenizer_name=str(tokenizer), **settings)


def seconds(tokenizer: Path, data: list[Path], output: Path, num_processes: int) -> float:
    """From when all processes are ready to when the last one has ended."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(num_processes + 1)
    processes = [
        context.Process(target=label, args=(tokenizer, data, output, rank, num_processes, start))
        for rank in range(num_processes)
    ]
    for process in processes:
        process.start()
    start.wait()
    begun = time.perf_counter()
    for process in processes:
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)
    return time.perf_counter() - begun


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, help="checkpoint (default: one with random weights)")
    parser.add_argument("--data", type=Path, nargs="+", help="data sets (default: made here)")
    parser.add_argument("--episodes", type=int, default=200, help="of 100 frames, to make (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = arguments.tokenizer or make_tokenizer(folder)
        data = arguments.data or [make_data(folder, arguments.episodes)]
        for index in range(arguments.rounds):
            for num_processes, found in rates.items():
                output = folder / f"labels-{index}-{num_processes}"
                taken = seconds(tokenizer, data, output, num_processes)
                found.append(_num_rows(output) / taken)
    for num_processes, found in rates.items():
        print(f"{num_processes} process(es): {statistics.median(found):,.0f} pairs a second")
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    print(f"two processes label {ratio:.2f} times as fast as one, the median of {arguments.rounds} rounds")


def _num_rows(folder: Path) -> int:
    from cyclemimic.data import LatentLabels

    return len(LatentLabels.from_folder(folder))


if __name__ == "__main__":
    main()
