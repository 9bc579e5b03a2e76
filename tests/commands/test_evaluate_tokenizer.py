# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from cyclemimic.commands import evaluate_tokenizer
from cyclemimic.commands.evaluate_tokenizer import format_summary, parse_dims
from cyclemimic.hub.integrity import hash_files

from .conftest import INTERVAL


def test_writes_figures_page_and_tokens(verb, tokenizer, square_data, tmp_path, capsys):
    output = tmp_path / "quality"
    flags = ["--tokenizer", tokenizer, "--data", square_data, "--output", output, "--device", "cpu", *INTERVAL]
    assert verb("evaluate-tokenizer", *flags, "--motion_dims", "1,0", "--max_pairs", "24") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["figure", "value", "95", "%", "interval"]
    assert printed[1].startswith("linear_r2_within ") and printed[-1] == f"Saved: {output}"
    figures = json.loads((output / "quality.json").read_text())
    assert figures["tokenizer"] == tokenizer.name and figures["tokenizer_files"] == hash_files(tokenizer)
    # No states in this data.
    assert (figures["settings"]["motion"], figures["settings"]["motion_dims"]) == ("action", [1, 0])
    assert figures["data"]["bodies"]["square"]["pairs"] == 24
    assert figures["cross_embodiment"] is None and "one body" in figures["not_measured"]["cross_embodiment"]
    assert (output / "quality.html").read_text().startswith("<!DOCTYPE html>")
    with np.load(output / "tokens.npz", allow_pickle=False) as tokens:
        assert tokens["tokens"].shape == (24, 4, 8) and tokens["actions"].shape == (24, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["quality"]


def test_defaults():
    arguments = evaluate_tokenizer.parse("--tokenizer t --data a b --output o".split(), "cyclemimic")
    assert (arguments.data, arguments.interval_s, arguments.max_pairs) == (["a", "b"], None, 4000)
    assert arguments.motion is arguments.motion_dims is arguments.camera is None
    assert parse_dims(None) is None and parse_dims("2,0") == (2, 0)


def test_summary_leaves_out_what_is_not_known():
    figure = {"value": 0.5, "low": 0.25, "high": 0.75}
    summary = {"r2": figure, "across": None, "psnr": 23.456789, "alone": figure | {"low": None, "high": None}}
    assert format_summary(summary).splitlines() == [
        "figure  value  95 % interval",
        "r2      0.5    0.250 to 0.750",
        "psnr    23.46",
        "alone   0.5",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "the following arguments are required: --tokenizer, --data"),
        ("--tokenizer {tokenizer} --data {tmp}", "is empty; give a LeRobot data set"),
        ("--tokenizer {tmp} --data {data}", "`tokenizer` must be a checkpoint folder or a Hub id, got"),
        ("--tokenizer {tokenizer} --data {data} --motion pose", "argument --motion: invalid choice: 'pose'"),
        ("--tokenizer {tokenizer} --data {data} --motion state", "squares: has no states"),
        ("--tokenizer {tokenizer} --data {data} --motion_dims x", "`motion_dims` must be numbers with commas"),
        ("--tokenizer {tokenizer} --data {data} --motion_dims 0,4", "`motion_dims` must be in [0, 4), the actions"),
        ("--tokenizer {tokenizer} --data {data} --interval_s 0", "`min_interval_s` must be above 0"),
        ("--tokenizer {tokenizer} --data {data} --interval_s 9 --min_interval_s 9", "at least 2 are needed"),
        ("--tokenizer {tokenizer} --data {data} --max_pairs 0", "`max_pairs` must be at least 1, got 0"),
        (
            "--tokenizer {tokenizer} --data {data} --max_pairs 1",
            "`max_pairs` must take pairs of at least 2 of the 4 episodes of square that have some, as probes are scored "
            "on other episodes than they are fitted on, got 1.",
        ),
        (
            "--tokenizer {tokenizer} --data {data} --leave_out_missing",
            "`leave_out_missing` must be left out without a mixture, of which it leaves data sets out, got True for",
        ),
        ("--tokenizer {tokenizer} --data {data} --batch_size 0", "`batch_size` must be at least 1, got 0"),
        ("--tokenizer {tokenizer} --data {data} --seed -1", "`seed` must be at least 0, got -1"),
        ("--tokenizer {tokenizer} --data {data} --device abacus", "`device` must be one that torch can use here"),
        ("--tokenizer {tokenizer} --data {data} --output {tokenizer}", "tokenizer exists already"),
    ],
)
def test_bad_input(refuses, square_data, tokenizer, tmp_path, flags, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    names = {"data": square_data, "tmp": empty, "tokenizer": tokenizer}
    output = ["--output", tmp_path / "quality"] if flags else []
    assert message in refuses("evaluate-tokenizer", *output, *flags.format(**names).split())
    assert list(tmp_path.iterdir()) == [empty]
