# SPDX-License-Identifier: Apache-2.0
"""The benchmark of labelling by two processes, on a few short films."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path

import pytest

from cyclemimic.data import LatentLabels

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "label_scaling" / "measure.py"


@pytest.fixture
def measure(monkeypatch):
    spec = importlib.util.spec_from_file_location("label_scaling", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_two_shares_are_the_whole_once_both_are_ready(measure, tmp_path):
    data, tokenizer, output = measure.make_data(tmp_path, 4), measure.make_tokenizer(tmp_path), tmp_path / "labels"
    start = threading.Barrier(1)
    measure.label(tokenizer, [data], output, 0, 2, start)
    assert not output.exists()
    measure.label(tokenizer, [data], output, 1, 2, start)
    labels = LatentLabels.from_folder(output)
    # Of 100 frames the last one has none after it.
    assert len(labels) == measure._num_rows(output) == 4 * 99
    assert labels.episodes == [("noise", index) for index in range(4)]


def test_rates_are_medians_and_their_ratio_is_of_rounds(measure, monkeypatch, capsys):
    # Rounds of one process, then of two: ratios of 2, 1.25 and 4, where the medians' would be 2.5.
    taken = iter([1.0, 0.5, 0.5, 0.4, 1.0, 0.25])
    monkeypatch.setattr(measure, "seconds", lambda tokenizer, data, output, num_processes: next(taken))
    monkeypatch.setattr(measure, "_num_rows", lambda output: 1000)
    monkeypatch.setattr(sys, "argv", ["measure.py", "--tokenizer", "tokenizer", "--data", "data"])
    measure.main()
    assert capsys.readouterr().out.splitlines() == [
        "1 process(es): 1,000 pairs a second",
        "2 process(es): 2,500 pairs a second",
        "two processes label 2.00 times as fast as one, the median of 3 rounds",
    ]
