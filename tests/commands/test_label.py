# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cyclemimic.commands import label
from cyclemimic.data import LatentLabels, encode_video


def test_labels_every_pair(labels, tokenizer):
    written = LatentLabels.from_folder(labels)
    assert len(written) == 4 * 10
    assert written.tokenizer == "tokenizer" and len(written.metadata["tokenizer_revision"]) == 40
    assert written.metadata["interval_s"] == 0.3
    assert written.lookup("squares", 3, 9).shape == (4,)
    card = (labels / "README.md").read_text()
    assert "Latent actions of 40 pairs" in card and "| squares | 100.00% | 4 | 48 | 10 |" in card
    assert f"the tokenizer tokenizer at {written.metadata['tokenizer_revision']} reads" in card
    # What is published says nothing of this machine.
    published = [path for path in labels.iterdir() if path.suffix in (".parquet", ".md")]
    assert len(published) == 2 and not any(str(tokenizer.parent).encode() in path.read_bytes() for path in published)


def test_pairs_are_as_far_apart_as_in_the_tokenizers_training(tokenizer, square_data, verb, tmp_path, caplog):
    config = json.loads((tokenizer / "config.json").read_text()) | {"interval_s": 0.3, "min_interval_s": 0.2}
    trained = shutil.copytree(tokenizer, tmp_path / "trained")
    (trained / "config.json").write_text(json.dumps(config))
    for name, given, expected in (
        ("as-trained", [], (0.3, 0.2)),
        ("shortest", ["--min_interval_s", 0.1], (0.3, 0.1)),
        ("other", ["--interval_s", 0.4], (0.4, 0.2)),
    ):
        caplog.clear()
        flags = ["--tokenizer", trained, "--data", square_data, "--output", tmp_path / name, "--device", "cpu", *given]
        assert verb("label", *flags) == 0
        metadata = LatentLabels.from_folder(tmp_path / name).metadata
        assert (metadata["interval_s"], metadata["min_interval_s"]) == expected
        assert caplog.text.count(f"`interval_s` is 0.4 s, where {trained} was trained on 0.3 s") == (name == "other")
    (trained / "config.json").write_text(json.dumps(config | {"interval_s": None, "min_interval_s": None}))
    flags = ["--tokenizer", trained, "--data", square_data, "--output", tmp_path / "unknown", "--device", "cpu"]
    assert verb("label", *flags) == 0
    assert LatentLabels.from_folder(tmp_path / "unknown").metadata["interval_s"] == 1.0
    assert f"{trained} does not say how far apart its pairs were; taking `interval_s` 1.0" in caplog.text


def test_the_card_says_what_was_left_out_and_each_interval(tokenizer, square_data, verb, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    encode_video(films / "a.mp4", np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8), 10)
    (films / "b.mp4").write_bytes(b"no film")
    own = f"{{path: {square_data}, weight: 2, name: squares, interval_s: 0.5, min_interval_s: 0.4}}"
    (tmp_path / "mixture.yaml").write_text(
        f"sources: [{own}, {{path: films, weight: 8}}, {{path: nothing, weight: 1}}]"
    )
    flags = ["--tokenizer", tokenizer, "--data", tmp_path / "mixture.yaml", "--output", tmp_path / "labels"]
    times = ["--interval_s", 0.3, "--min_interval_s", 0.2, "--leave_out_missing", "--skip_broken"]
    assert verb("label", *flags, *times, "--device", "cpu") == 0
    card = (tmp_path / "labels" / "README.md").read_text()
    assert "the one 0.3 s later (at an episode's end at least 0.2 s); of squares 0.5 s (at least 0.4 s)" in card
    assert "were left out: nothing." in card
    (row,) = [line for line in card.splitlines() if line.startswith("| films |")]
    assert row.split("|")[-3].strip() == "1 (1)"  # how many are broken, and which


def test_images_take_the_frame_rate_given(tokenizer, tmp_path):
    (tmp_path / "drive" / "run").mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (32, 32), (40 * number, 0, 0)).save(tmp_path / "drive" / "run" / f"{number}.png")
    flags = f"--tokenizer {tokenizer} --data {tmp_path / 'drive'} --output {tmp_path / 'labels'} --fps 2"
    label.run(label.parse(flags.split(), "cyclemimic label"))
    # A second is two frames, half a second, the least at the end, is one.
    assert len(LatentLabels.from_folder(tmp_path / "labels")) == 5


def test_two_processes_give_the_rows_of_one(tokenizer, square_data, labels, run_python, verb, tmp_path, capsys):
    output = tmp_path / "labels"
    flags = ["--tokenizer", tokenizer, "--data", square_data, "--interval_s", "0.3", "--min_interval_s", "0.2"]
    flags += ["--rows_per_shard", "1", "--device", "cpu", "--output", output]
    launch = ["--standalone", "--nproc_per_node", "2", "-m", "cyclemimic.cli", "label"]
    process = run_python(*launch, *map(str, flags), module="torch.distributed.run")
    assert process.stdout.count("labels of 40 frame pairs") >= 1
    assert len(list(output.glob("*.parquet"))) == 4 and list(tmp_path.iterdir()) == [output]
    one, two = LatentLabels.from_folder(labels), LatentLabels.from_folder(output)
    assert one.episodes == two.episodes
    for episode in one.episodes:
        for values, others in zip(one.episode(*episode), two.episode(*episode), strict=True):
            np.testing.assert_array_equal(values, others)
    assert verb("label", *flags) == 0 and "labels of 40 frame pairs" in capsys.readouterr().out


def test_a_share_that_is_not_the_last_says_so(tokenizer, square_data, verb, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    flags = ["--tokenizer", tokenizer, "--data", square_data, "--output", tmp_path / "labels"]
    assert verb("label", *flags) == 0
    assert "appears when the other processes are" in capsys.readouterr().out


def test_defaults():
    arguments = label.parse("--tokenizer t --data a b --output o".split(), "cyclemimic label")
    assert (arguments.data, arguments.interval_s, arguments.batch_size) == (["a", "b"], None, 128)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "the following arguments are required: --tokenizer, --data"),
        ("--tokenizer {tokenizer} --data {tmp}", "is empty; give a LeRobot data set"),
        ("--tokenizer {tmp} --data {data}", "`tokenizer` must be a checkpoint folder or a Hub id, got"),
        ("--tokenizer {policy} --data {data}", "must be a checkpoint of model type latent_action_tokenizer, got"),
        (
            "--tokenizer {tokenizer} --data {data} --leave_out_missing",
            "`leave_out_missing` must be left out without a",
        ),
        ("--tokenizer {tokenizer} --data {data} --interval_s 0", "`min_interval_s` must be above 0"),
        (
            "--tokenizer {tokenizer} --data {data} --interval_s 9 --min_interval_s 9",
            "no episode has two frames 9 s apart",
        ),
        ("--tokenizer {tokenizer} --data {data} --batch_size 0", "`batch_size` must be at least 1, got 0"),
        ("--tokenizer {tokenizer} --data {data} --rows_per_shard 0", "`rows_per_shard` must be at least 1, got 0"),
        ("--tokenizer {tokenizer} --data {data} --device abacus", "`device` must be one that torch can use here"),
        ("--tokenizer {tokenizer} --data {data} --output {tokenizer}", "tokenizer exists already"),
    ],
)
def test_bad_input(refuses, square_data, tokenizer, policy, tmp_path, flags, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    names = {"data": square_data, "tmp": empty, "tokenizer": tokenizer, "policy": policy}
    output = ["--output", tmp_path / "labels"] if flags else []
    assert message in refuses("label", *output, *flags.format(**names).split())
    assert list(tmp_path.iterdir()) == [empty]
