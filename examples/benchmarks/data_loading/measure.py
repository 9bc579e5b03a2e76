# SPDX-License-Identifier: Apache-2.0
"""
Frame pairs a second from the training loader against PyAV's plain decoding of the same files, and memory over time.

    python measure.py
    python measure.py --data path/to/data_set another

Without data, films are written first: smooth noise that moves, 240 x 320 at 10 frames a second, H.264 and AV1. Rates are
per CPU second, so that other work on the machine hardly changes them. Prints a table.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import psutil
from av.video.reformatter import VideoReformatter

from cyclemimic import LatentActionTokenizerImageProcessor
from cyclemimic.data import (
    EpisodeSource,
    LatentActionTokenizerCollator,
    MixtureDataset,
    PairAugmentation,
    WeightedSource,
    open_source,
)

CODECS = {"h264": ("libx264", {"preset": "veryfast", "g": "10"}), "av1": ("libsvtav1", {"preset": "10", "g": "10"})}
HEIGHT, WIDTH, FPS = 240, 320, 10
BATCH_SIZE = 64
PLAIN = "plain decoding, frames"
AUGMENTATION = PairAugmentation(reversed_share=0.5, min_crop=0.8, color_jitter=0.1)


def write_films(folder: Path, codec: str, num_films: int, num_frames: int) -> Path:
    """Films of a smooth random picture that a window wanders over; returns their folder."""
    encoder, options = CODECS[codec]
    root, random = folder / codec, np.random.default_rng(0)
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder's own log: errors only
    root.mkdir()
    for film in range(num_films):
        coarse = random.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        scene = np.kron(coarse, np.ones((12, 12, 1), np.uint8))
        with av.open(str(root / f"{film}.mp4"), "w") as container:
            stream = container.add_stream(encoder, rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for index in range(num_frames):
                top, left = (int(100 + 90 * np.sin(index / period)) for period in (17.0, 23.0))
                image = np.ascontiguousarray(scene[top : top + HEIGHT, left : left + WIDTH])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(stream.encode())
    return root


def decode_plainly(root: Path) -> int:
    """Decode every frame of every video of a folder to RGB, one after the other; return how many."""
    count = 0
    for path in sorted(root.rglob("*.mp4")):
        with av.open(str(path)) as container:
            converter = VideoReformatter()
            container.streams.video[0].thread_type = "NONE"
            for frame in container.decode(video=0):
                converter.reformat(frame, format="rgb24").to_ndarray()
                count += 1
    return count


def draw(pairs: MixtureDataset, start: int, stop: int) -> Iterator[dict]:
    """Items `start` to `stop` of an endless mixture."""
    for number in range(start, stop):
        epoch, index = divmod(number, len(pairs))
        pairs.set_epoch(epoch)
        yield pairs[index]


def rate(work: Callable[[], int]) -> float:
    """What is done a CPU second."""
    start = time.process_time()
    return work() / (time.process_time() - start)


def collate_batches(pairs: MixtureDataset, collator: LatentActionTokenizerCollator, start: int, stop: int) -> int:
    """Make batches of the items; return the number of items."""
    batch = []
    for item in draw(pairs, start, stop):
        batch.append(item)
        if len(batch) == BATCH_SIZE:
            collator(batch)
            batch.clear()
    return stop - start


def measure_rates(
    root: Path, source: EpisodeSource, size: int, num_pairs: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """
    Rates of plain decoding and of the loader's steps, and their shares of plain decoding in the same round; a round each,
    after one that only fills the loader's segments.
    """
    processor = LatentActionTokenizerImageProcessor(size=size)
    raw, resized = (
        MixtureDataset([WeightedSource(source, 1.0, 1.0, 0.5)], transform)
        for transform in (None, processor.resize_frames)
    )
    plain, augmented = LatentActionTokenizerCollator(processor), LatentActionTokenizerCollator(processor, AUGMENTATION)
    steps: dict[str, Callable[[int, int], int]] = {
        "pairs of whole frames": lambda start, stop: sum(1 for _ in draw(raw, start, stop)),
        f"pairs resized to {size}": lambda start, stop: sum(1 for _ in draw(resized, start, stop)),
        "batches of them": lambda start, stop: collate_batches(resized, plain, start, stop),
        "batches, augmented": lambda start, stop: collate_batches(resized, augmented, start, stop),
    }
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in (PLAIN, *steps)}
    drawn = dict.fromkeys((raw, resized), 0)
    for number in range(rounds + 1):
        decoding = rate(lambda: decode_plainly(root))
        found = {PLAIN: decoding}
        for name, step in steps.items():
            pairs = raw if "whole" in name else resized
            start, drawn[pairs] = drawn[pairs], drawn[pairs] + num_pairs
            found[name] = rate(lambda step=step, start=start: step(start, start + num_pairs))
        if number > 0:
            for name, value in found.items():
                measured[name].append((value, value / decoding))
    return measured


def measure_memory(sources: Sequence[EpisodeSource], size: int, num_pairs: int) -> tuple[float, float]:
    """Resident memory in MiB after a tenth of the pairs of a mixture, and after all of them."""
    transform = LatentActionTokenizerImageProcessor(size=size).resize_frames
    pairs = MixtureDataset(
        [WeightedSource(source, weight, 1.0, 0.5) for weight, source in enumerate(sources, start=1)], transform
    )
    for _ in draw(pairs, 0, num_pairs // 10):
        pass
    early = psutil.Process().memory_info().rss
    for _ in draw(pairs, num_pairs // 10, num_pairs):
        pass
    return early / 2**20, psutil.Process().memory_info().rss / 2**20


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, metavar="DIR", help="data sets of mp4 files with one camera")
    parser.add_argument("--size", type=int, default=224, help="pixels of a resized frame (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=3000, help="pairs a measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind (default: %(default)s)")
    parser.add_argument(
        "--memory_pairs", type=int, default=20_000, help="pairs drawn for memory (default: %(default)s)"
    )
    parser.add_argument("--films", type=int, default=8, help="films to write of each kind (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=300, help="frames a film (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        roots = arguments.data or [
            write_films(Path(folder), codec, arguments.films, arguments.frames) for codec in CODECS
        ]
        sources = [open_source(root) for root in roots]
        for root, source in zip(roots, sources, strict=True):
            print(f"\n{source.name}: {sum(episode.num_frames for episode in source)} frames\n")
            print(
                "| median of the rounds | a CPU second | of plain decoding | lowest | highest |\n|---|---|---|---|---|"
            )
            rates = measure_rates(root, source, arguments.size, arguments.pairs, arguments.rounds)
            for name, rounds in rates.items():
                values, shares = zip(*rounds, strict=True)
                columns = [statistics.median(shares), min(shares), max(shares)]
                print(f"| {name} | {statistics.median(values):.0f} | {' | '.join(f'{x:.2f}' for x in columns)} |")
        early, late = measure_memory(sources, arguments.size, arguments.memory_pairs)
        print(
            f"\nmemory after {arguments.memory_pairs // 10} pairs of a mixture: {early:.0f} MiB, after "
            f"{arguments.memory_pairs}: {late:.0f} MiB ({100 * (late / early - 1):+.1f} %)"
        )


if __name__ == "__main__":
    main()
