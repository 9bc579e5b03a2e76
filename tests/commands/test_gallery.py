# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
)
from cyclemimic.commands import gallery
from cyclemimic.data import FramePairDataset, LeRobotWriter

from .conftest import INTERVAL

SPACE = Path(__file__).resolve().parents[2] / "examples" / "space" / "app.py"


@pytest.fixture
def other_body(tmp_path):
    """A data set of another body, and with frames of another size."""
    random = np.random.default_rng(1)
    with LeRobotWriter(tmp_path / "other", fps=10, robot_type="circle", action_names=["x", "y"]) as writer:
        for _ in range(2):
            frames = random.integers(0, 256, (12, 24, 32, 3), dtype=np.uint8)
            writer.add_episode(frames, np.zeros((12, 2), np.float32), "stay")
    return tmp_path / "other"


@pytest.fixture
def coarse_tokenizer(tmp_path_factory) -> Path:
    """A tokenizer of two actions in all: whatever the pairs, bodies share one."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
    codes = {"codebook_size": 2, "num_latent_tokens": 1, "codebook_dim": 4}
    config = LatentActionTokenizerConfig(image_size=16, patch_size=8, vision_config=None, **sizes, **codes)
    folder = tmp_path_factory.mktemp("coarse")
    LatentActionTokenizerModel(config).save_pretrained(folder)
    LatentActionTokenizerImageProcessor(size=16).save_pretrained(folder)
    return folder


def test_shows_what_bodies_share(verb, coarse_tokenizer, square_data, other_body, tmp_path, capsys):
    output = tmp_path / "gallery"
    flags = ["--tokenizer", coarse_tokenizer, "--data", square_data, other_body, "--output", output]
    assert (
        verb("gallery", *flags, "--device", "cpu", *INTERVAL, "--max_pairs", "15", "--actions", "3", "--pairs", "2")
        == 0
    )
    printed = capsys.readouterr().out.splitlines()[-1]
    assert printed.startswith(f"Saved: {output}, ") and printed.endswith("latent actions of 30 frame pairs")
    page = (output / "gallery.html").read_text()
    shared = int(printed.split()[2])
    assert 1 <= shared <= 3 and page.count("of 30 pairs") == shared
    # Each action is shown on both bodies.
    assert page.count("square: ") >= shared and page.count("circle: stay") >= shared
    assert Image.open(output / "gallery.png").size[1] > 128
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gallery", "other"]


def test_only_what_is_shown_is_decoded_twice(verb, coarse_tokenizer, square_data, tmp_path, monkeypatch):
    read: Counter[int] = Counter()
    get_item = FramePairDataset.__getitem__
    monkeypatch.setattr(FramePairDataset, "__getitem__", lambda self, i: read.update([i]) or get_item(self, i))
    flags = ["--tokenizer", coarse_tokenizer, "--data", square_data, "--output", tmp_path / "out", *INTERVAL]
    assert verb("gallery", *flags, "--actions", "1", "--pairs", "2") == 0
    assert len(read) > 20 and read.total() - len(read) == 2


def test_defaults():
    arguments = gallery.parse("--tokenizer t --data a b --output o".split(), "cyclemimic gallery")
    assert (arguments.data, arguments.actions, arguments.pairs, arguments.max_pairs) == (["a", "b"], 8, 4, 1000)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "the following arguments are required: --tokenizer, --data"),
        ("--tokenizer {tmp} --data {data}", "`tokenizer` must be a checkpoint folder or a Hub id, got"),
        ("--tokenizer {tokenizer} --data {data} --pairs 1", "`pairs` must be at least 2, got 1"),
        (
            "--tokenizer {tokenizer} --data {data} --leave_out_missing",
            "`leave_out_missing` must be left out without a",
        ),
        ("--tokenizer {tokenizer} --data {data} --seed -1", "`seed` must be at least 0, got -1"),
        ("--tokenizer {tokenizer} --data {data} --actions 0", "`actions` must be at least 1, got 0"),
        (
            "--tokenizer {tokenizer} --data {data} --interval_s 9 --min_interval_s 9",
            "no episode has two frames 9 s apart",
        ),
        ("--tokenizer {tokenizer} --data {data} --output {tokenizer}", "tokenizer exists already"),
    ],
)
def test_bad_input(refuses, square_data, tokenizer, tmp_path, flags, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    output = ["--output", tmp_path / "gallery"] if flags else []
    names = {"data": square_data, "tmp": empty, "tokenizer": tokenizer}
    assert message in refuses("gallery", *output, *flags.format(**names).split())
    assert list(tmp_path.iterdir()) == [empty]


def test_intervals_of_a_mixture_must_be_the_one_asked_for(verb, coarse_tokenizer, square_data, tmp_path, capsys):
    path = tmp_path / "mixture.yaml"
    path.write_text(f"sources: [{{path: {square_data}, weight: 1, interval_s: 0.4}}]")
    flags = ["--tokenizer", coarse_tokenizer, "--data", path, "--output", tmp_path / "gallery", "--device", "cpu"]
    assert verb("gallery", *flags, "--interval_s", "0.3", "--min_interval_s", "0.2") == 2
    assert (
        "`data` must be looked at with one interval, got a mixture with others for ['squares"
        in capsys.readouterr().err
    )
    assert verb("gallery", *flags, "--interval_s", "0.4", "--min_interval_s", "0.2") == 0


def test_a_label_set_is_where_near_pairs_are_looked_for(tokenizer, labels, square_data):
    flags = ["--serve", "--tokenizer", str(tokenizer), "--data", str(square_data), "--device", "cpu", *INTERVAL]
    made = gallery.open_explorer(gallery.parse([*flags, "--max_pairs", "1000"], "cyclemimic gallery")).labelled
    read = gallery.open_explorer(gallery.parse([*flags, "--labels", str(labels)], "cyclemimic gallery")).labelled
    np.testing.assert_array_equal(read.indices, made.indices)
    np.testing.assert_array_equal(read.codes, made.codes)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--serve --output o", "give either --output, for a gallery on disk, or --serve"),
        ("", "give either --output, for a gallery on disk, or --serve"),
        ("--output o --labels l", "give --labels with --serve only"),
        ("--output o --host 0.0.0.0", "give --host with --serve only"),
        ("--output o --port 7860", "give --port with --serve only"),
        ("--serve --actions 3", "give --actions without --serve only"),
        ("--serve --labels_revision v1", "give --labels_revision with --labels only"),
        ("--serve", "the page needs the package gradio: pip install 'cyclemimic[space]'"),
    ],
)
def test_serving_is_refused(refuses, monkeypatch, flags, message):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert message in refuses("gallery", "--tokenizer", "t", "--data", "d", *flags.split())


def test_labels_of_another_tokenizer(refuses, monkeypatch, coarse_tokenizer, labels, square_data):
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace())
    flags = ["--serve", "--tokenizer", coarse_tokenizer, "--data", square_data, "--labels", labels, "--device", "cpu"]
    assert "`labels` must be made by the tokenizer, got labels of" in refuses("gallery", *flags, *INTERVAL)


@contextmanager
def page_of(command: list[str], temporary: Path, **environment: str) -> Iterator[tuple[str, set[str]]]:
    """A page that a process serves: its address, and those that the process listens on. Ended as a supervisor ends it."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "GRADIO_ANALYTICS_ENABLED": "False", **environment}
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            said: list[str] = []
            for line in iter(process.stdout.readline, ""):
                said.append(line)
                if found := re.match(r"The page is at (http://\S+); Ctrl-C ends it.", line):
                    break
            else:
                pytest.fail("".join(said))
            assert len(list(temporary.glob("cyclemimic-page-*"))) == 1
            sockets = psutil.Process(process.pid).net_connections("inet")
            yield found[1], {opened.laddr.ip for opened in sockets if opened.status == psutil.CONN_LISTEN}
        finally:
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert list(temporary.glob("cyclemimic-page-*")) == []


def read_page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as response:
        assert response.status == 200
        return response.read().decode("utf-8")


def test_the_page_is_served_to_this_machine_until_sigterm(coarse_tokenizer, square_data, tmp_path):
    flags = ["--tokenizer", str(coarse_tokenizer), "--data", str(square_data), "--device", "cpu", *INTERVAL]
    command = ["-m", "cyclemimic.cli", "gallery", "--serve", "--max_pairs", "8", *flags]
    with page_of(command, tmp_path / "temporary") as (address, listens_on):
        assert listens_on == {"127.0.0.1"} and address.startswith("http://127.0.0.1:")
        page = read_page(address)
        assert "Latent actions" in page and "Data: squares." in page


def test_the_space_serves_what_its_variables_name(coarse_tokenizer, square_data, other_body, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        "TOKENIZER": str(coarse_tokenizer),
        "DATA": f"{square_data} {other_body}",
        "INTERVAL_S": "0.3",
        "MAX_PAIRS": "8",
        "GRADIO_SERVER_PORT": str(port),
    }
    with page_of([str(SPACE)], tmp_path / "temporary", **variables) as (_, listens_on):
        assert listens_on == {"0.0.0.0"}
        page = read_page(f"http://127.0.0.1:{port}/")
        assert "other, squares" in page


def test_the_space_says_which_variables_it_lacks():
    environment = {**os.environ, "TOKENIZER": "someone/tokenizer", "DATA": " "}
    process = subprocess.run([sys.executable, SPACE], env=environment, capture_output=True, text=True, timeout=120)
    assert (process.returncode, process.stderr) == (1, "set DATA in the variables of the Space\n")
