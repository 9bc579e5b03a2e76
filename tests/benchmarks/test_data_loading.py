# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the training loader, on two short films."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cyclemimic.data import open_source

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "data_loading"


@pytest.fixture
def measure() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("measure")
    sys.modules.pop("measure", None)


def test_table_has_a_row_a_step(measure, monkeypatch, capsys):
    flags = "--size 32 --pairs 40 --memory_pairs 100 --films 2 --frames 30"
    monkeypatch.setattr(sys, "argv", ["measure.py", *flags.split()])
    measure.main()
    output = capsys.readouterr().out
    for codec in measure.CODECS:
        assert f"{codec}: 60 frames" in output
    assert output.count("| plain decoding, frames |") == output.count("| batches, augmented |") == 2
    assert "memory after 10 pairs of a mixture" in output


def test_plain_decoding_counts_every_frame(measure, tmp_path):
    root = measure.write_films(tmp_path, "h264", num_films=2, num_frames=15)
    assert measure.decode_plainly(root) == sum(episode.num_frames for episode in open_source(root)) == 30
