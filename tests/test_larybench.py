# SPDX-License-Identifier: Apache-2.0
"""The adapter to LARYBench, on a table of image pairs and one of videos, laid out as its own."""

from __future__ import annotations

import csv
import runpy
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.models.latent_action_tokenizer.encoder_latent_action_tokenizer import (
    LatentActionTokenizerVisionFeatures,
)

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "larybench" / "extract.py"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = LatentActionTokenizerConfig(image_size=16, patch_size=8, vision_config=None, codebook_dim=4, **sizes)
    folder = tmp_path_factory.mktemp("tokenizer")
    LatentActionTokenizerModel(config).save_pretrained(folder)
    LatentActionTokenizerImageProcessor(size=16).save_pretrained(folder)
    return folder


@pytest.fixture
def images(tmp_path) -> list[np.ndarray]:
    """Ten images of a data set, of two sizes, below `data`; `film.mp4` there has as many frames, each of one brightness."""
    random = np.random.default_rng(0)
    made = [random.integers(0, 256, (20 + 4 * (number % 2), 24, 3), dtype=np.uint8) for number in range(10)]
    (tmp_path / "data" / "images").mkdir(parents=True)
    for number, image in enumerate(made):
        Image.fromarray(image).save(tmp_path / "data" / "images" / f"frame_{number}.png")
    with av.open(str(tmp_path / "data" / "film.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=10)
        stream.width = stream.height = 32
        for number in range(10):
            frame = np.full((32, 32, 3), 20 * number, np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    return made


@pytest.fixture
def extract(tokenizer, images, tmp_path, monkeypatch):
    """Writes a table, and extracts what it names; the table that comes of it."""

    def run(rows: list[dict[str, str]], *flags: str, made_by: Path = tokenizer) -> list[dict[str, str]]:
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        places = {"rows": "rows.csv", "root": "data", "tokens": "tokens", "output": "output.csv"}
        given = [text for name, place in places.items() for text in (f"--{name}", str(tmp_path / place))]
        argv = ["extract.py", "--tokenizer", str(made_by), *given, "--workers", "0", "--device", "cpu", *flags]
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(SCRIPT), run_name="__main__")
        with (tmp_path / "output.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return run


def pair(current: int, future: int, **others: str) -> dict[str, str]:
    return {
        "src_img": f"images/frame_{current}.png",
        "tgt_img": f"images/frame_{future}.png",
        "action": "a.npy",
    } | others


def encode(tokenizer: Path, current: list[np.ndarray], future: list[np.ndarray]):
    inputs = LatentActionTokenizerImageProcessor.from_pretrained(tokenizer)(current, future)
    with torch.inference_mode():
        return LatentActionTokenizerModel.from_pretrained(tokenizer).eval().encode(**inputs)


def test_image_pairs(extract, tokenizer, images, tmp_path):
    pairs = [(0, 5), (1, 6), (2, 7)]
    table = extract([pair(*each) for each in pairs], "--batch_size", "2")
    expected = encode(tokenizer, [images[i] for i, _ in pairs], [images[j] for _, j in pairs])
    for number, row in enumerate(table):
        assert row["la_path"] == str(tmp_path / "tokens" / f"latent_action_{number:08d}.npz")
        assert {**pair(*pairs[number]), "la_path": row["la_path"]} == row
        found = np.load(row["la_path"], allow_pickle=False)
        assert found["tokens"].shape == (4, 4) and found["tokens"].dtype == np.float32
        np.testing.assert_array_equal(found["indices"], expected.codes[number])
        np.testing.assert_allclose(found["tokens"], expected.quantized[number], atol=1e-6)


def test_videos_are_pairs_of_frames_in_a_row_each_seen_once(extract, tokenizer, monkeypatch, tmp_path):
    seen: list[int] = []
    look = LatentActionTokenizerVisionFeatures.forward
    monkeypatch.setattr(
        LatentActionTokenizerVisionFeatures,
        "forward",
        lambda self, frames: seen.append(len(frames)) or look(self, frames),
    )
    rows = [
        {"video_path": "film.mp4", "sample_indices": "0,3,6", "action": "push"},
        {"video_path": "film.mp4", "sample_indices": "8,30", "action": "pull"},
    ]
    first, second = (np.load(row["la_path"], allow_pickle=False) for row in extract(rows))
    assert seen == [5] and first["tokens"].shape == (2, 4, 4) and second["indices"].shape == (1, 4)
    with av.open(str(tmp_path / "data" / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    # Behind the tenth frame, the last, stands the tenth.
    expected = encode(tokenizer, [frames[i] for i in (0, 3, 8)], [frames[i] for i in (3, 6, 9)])
    np.testing.assert_array_equal(np.concatenate([first["indices"], second["indices"]]), expected.codes)


def test_goes_on_where_it_was(extract, tokenizer, tmp_path):
    rows = [pair(0, 5), pair(1, 6)]
    extract(rows)
    first, second = sorted((tmp_path / "tokens").glob("*.npz"))
    kept = first.stat().st_mtime_ns
    second.unlink()
    # Of another extraction's table, the paths are not kept.
    extract([row | {"la_path": "elsewhere.npz"} for row in rows])
    assert first.stat().st_mtime_ns == kept and second.exists()
    another = tmp_path / "another"
    LatentActionTokenizerModel(LatentActionTokenizerConfig.from_pretrained(tokenizer)).save_pretrained(another)
    LatentActionTokenizerImageProcessor(size=16).save_pretrained(another)
    with pytest.raises(SystemExit, match=r"`tokens` \(.*\) holds another run, whose `tokenizer` is"):
        extract(rows, made_by=another)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image": "a.png"}, "`rows` must have the columns"),
        (pair(0, 99), "row 00000001 cannot be read: .*No such file"),
        (pair(0, 1, tgt_img="../rows.csv"), "row 00000001 cannot be read: `tgt_img` must be below"),
        (pair(0, 1, tgt_img="/etc/passwd"), "row 00000001 cannot be read: `tgt_img` must be below"),
        (pair(0, 1, tgt_img="film.mp4"), "row 00000001 cannot be read: cannot identify image file"),
        (
            {"video_path": "images/frame_0.png", "sample_indices": "0,x"},
            "row 00000001 cannot be read: invalid literal",
        ),
        ({"video_path": "film.mp4", "sample_indices": "3"}, "`sample_indices` must name two frames or more, got 3"),
        ({"video_path": "empty.mp4", "sample_indices": "0,1"}, "row 00000001 cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_table(extract, tmp_path, row, message):
    (tmp_path / "data" / "empty.mp4").touch()
    good = row | ({"sample_indices": "0,3", "video_path": "film.mp4"} if "video_path" in row else pair(0, 1))
    with pytest.raises(SystemExit, match=message) as error:
        extract([{name: good[name] for name in row}, row])
    assert "\n" not in str(error.value) and not (tmp_path / "output.csv").exists()


def test_a_table_that_could_not_be_written_is_refused_before_anything_is_read(extract, tmp_path):
    with pytest.raises(SystemExit, match="`output` must be in a folder that exists, got .*absent"):
        extract([pair(0, 1)], "--output", str(tmp_path / "absent" / "output.csv"))
    assert not (tmp_path / "tokens").exists()
