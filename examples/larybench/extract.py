# SPDX-License-Identifier: Apache-2.0
"""Latent actions of LARYBench's image pairs or videos, as its own `extract` leaves them for `classify` and `regress`.

python examples/larybench/extract.py --tokenizer OWNER/NAME --rows LARYBench/data/calvin_metadata_val.csv \\
    --root "$DATA_DIR/regression/calvin/val_stride5" --tokens "$LARY_LA_DIR/calvin/val/cyclemimic" \\
    --output LARYBench/data/val_la_calvin_5_cyclemimic.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.checkpoints import choose_device, load_tokenizer
from cyclemimic.demo.stage_records import keep_run
from cyclemimic.labeling import tokenizer_revision

# Columns of its tables that name frames: two images, or a video and the numbers of its frames.
PAIR, VIDEO = ("src_img", "tgt_img"), ("video_path", "sample_indices")


class Row:
    """
    One row of a table.

    Args:
        number (`int`): Which, from 0.
        values (`dict[str, str]`): By column.
        root (`Path`): Folder that paths of the table start from.
        tokens (`Path`): Folder of what is extracted.
    """

    def __init__(self, number: int, values: dict[str, str], root: Path, tokens: Path) -> None:
        self.values, self.root = values, root
        self.target = tokens.absolute() / f"latent_action_{number:08d}.npz"

    def read_frames(self) -> list[np.ndarray]:
        """
        Frames of which each two in a row are a pair: uint8 of shape `(height, width, 3)`.

        Raises:
            ValueError: a file is not below the root, or cannot be read.
        """
        try:
            if VIDEO[0] in self.values:
                indices = [max(0, int(index)) for index in str(self.values[VIDEO[1]]).split(",")]
                if len(indices) < 2:
                    raise ValueError(f"`{VIDEO[1]}` must name two frames or more, got {self.values[VIDEO[1]]}")
                return _read_video(self._path(VIDEO[0]), indices)
            return [_read_image(self._path(column)) for column in PAIR]
        except (OSError, ValueError) as error:
            raise ValueError(f"row {self.target.stem.rsplit('_', 1)[1]} cannot be read: {error}") from error

    def _path(self, column: str) -> Path:
        path = os.path.normpath(self.root / str(self.values[column]))
        if not Path(path).is_relative_to(os.path.normpath(self.root)):
            raise ValueError(f"`{column}` must be below {self.root}, got {self.values[column]}")
        return Path(path)


def _read_image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _read_video(path: Path, indices: Sequence[int]) -> list[np.ndarray]:
    """Frames by their number; behind the last one, as LARYBench has it, the last."""
    found: dict[int, np.ndarray] = {}
    last: av.VideoFrame | None = None
    with av.open(str(path)) as container:
        for number, frame in enumerate(islice(container.decode(video=0), max(indices) + 1)):
            if number in indices:
                found[number] = frame.to_ndarray(format="rgb24")
            last = frame
    if last is None:
        raise ValueError(f"{path} has no frame")
    if len(found) < len(set(indices)):
        found |= {index: last.to_ndarray(format="rgb24") for index in indices if index not in found}
    return [found[index] for index in indices]


class FramesOfRows(torch.utils.data.Dataset[tuple[Row, list[np.ndarray] | ValueError]]):
    """Rows with their frames, which processes of the loader read, or with why they could not: raised there it would be a page."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Row, list[np.ndarray] | ValueError]:
        row = self.rows[index]
        try:
            return row, row.read_frames()
        except ValueError as error:
            return row, error


def read_rows(arguments: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """
    The rows of the table, and its columns.

    Raises:
        ValueError: it names no frames.
    """
    with arguments.rows.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or ())
        if not any(set(needed) <= set(columns) for needed in (PAIR, VIDEO)):
            raise ValueError(f"`rows` must have the columns {PAIR} or {VIDEO}, got {columns} in {arguments.rows}")
        rows = [Row(number, values, arguments.root, arguments.tokens) for number, values in enumerate(reader)]
    return rows, [column for column in columns if column != "la_path"]


@torch.inference_mode()
def encode(
    tokenizer: LatentActionTokenizerModel,
    image_processor: LatentActionTokenizerImageProcessor,
    batch: Sequence[tuple[Row, list[np.ndarray] | ValueError]],
) -> Iterator[tuple[Row, np.ndarray, np.ndarray]]:
    """
    Tokens of each row's pairs, float32 of shape `(num_pairs, num_latent_tokens, codebook_dim)`, and their words, int64 of shape
    `(num_pairs, num_latent_tokens)`. A frame that two pairs share is seen once.

    Raises:
        ValueError: of a row that could not be read.
    """
    frames: list[np.ndarray] = []
    counts = []
    for _, read in batch:
        if isinstance(read, ValueError):
            raise read
        frames += read
        counts.append(len(read))
    pixel_values = image_processor(frames)["pixel_values"]
    tokenizer.check_frames(pixel_values)
    features = tokenizer.vision_features(pixel_values.to(tokenizer.device, tokenizer.dtype))
    ends = np.cumsum(counts)
    # The last frame of a row is nobody's current one.
    current = torch.from_numpy(np.delete(np.arange(ends[-1]), ends - 1)).to(tokenizer.device)
    action = tokenizer.encode_features(tokenizer.encoder.read_current(features[current]), features[current + 1])
    tokens, words = action.quantized.float().cpu().numpy(), action.codes.cpu().numpy()
    bounds = np.cumsum(np.array(counts[:-1]) - 1)
    for (row, _), of_tokens, of_words in zip(batch, np.split(tokens, bounds), np.split(words, bounds), strict=True):
        yield row, of_tokens, of_words


def write_tokens(row: Row, tokens: np.ndarray, words: np.ndarray) -> None:
    """As LARYBench does: of an image pair without the axis of pairs. Whole or not at all."""
    if VIDEO[0] not in row.values:
        tokens, words = tokens[0], words[0]
    partial = row.target.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, tokens=tokens, indices=words)
    os.replace(partial, row.target)


def write_table(arguments: argparse.Namespace, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """The table with the column `la_path`, absolute, which LARYBench takes as it is."""
    partial = arguments.output.with_name(f"{arguments.output.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*columns, "la_path"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row.values, "la_path": str(row.target)} for row in rows)
    os.replace(partial, arguments.output)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="folder, or id on the Hub")
    parser.add_argument("--rows", type=Path, required=True, metavar="CSV", help="LARYBench's table of pairs or videos")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="what the paths in it start from")
    parser.add_argument("--tokens", type=Path, required=True, metavar="DIR", help="where the .npz files go")
    parser.add_argument("--output", type=Path, required=True, metavar="CSV", help="the table with their paths")
    parser.add_argument("--batch_size", type=int, default=32, help="rows a forward (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that read frames (default: %(default)s)")
    parser.add_argument("--device", help="torch device (default: a GPU where there is one)")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> int:
    """
    Extracts what is not there yet, then writes the table; returns how many rows it has.

    Raises:
        ValueError, OSError: an argument, or a file of the benchmark, is not as it must be.
    """
    if not arguments.output.parent.is_dir():
        raise ValueError(f"`output` must be in a folder that exists, got {arguments.output}")
    rows, columns = read_rows(arguments)
    tokenizer, image_processor = load_tokenizer(arguments.tokenizer, choose_device(arguments.device))
    made_of = {"tokenizer": tokenizer_revision(tokenizer, image_processor), "rows": arguments.rows.name}
    keep_run(arguments.tokens / "made_of.json", made_of, arguments.tokens, argument="tokens")
    missing = [row for row in rows if not row.target.exists()]
    loader = DataLoader(
        FramesOfRows(missing), arguments.batch_size, collate_fn=list, num_workers=arguments.workers if missing else 0
    )
    for batch in tqdm(loader, unit="batch"):
        for extracted in encode(tokenizer, image_processor, batch):
            write_tokens(*extracted)
    write_table(arguments, rows, columns)
    return len(rows)


def main() -> None:
    arguments = parse()
    try:
        count = run(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"extract.py: {error}")
    print(f"Saved: {arguments.output}, {count} rows")


if __name__ == "__main__":
    main()
