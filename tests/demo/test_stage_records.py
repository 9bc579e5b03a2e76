# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path

import pytest

from cyclemimic.demo.settings import DemoConfig
from cyclemimic.demo.stage_records import StageRecords, describe

RUN = {"seed": 0, "quick": True, "sizes": (1, 2)}


@pytest.fixture
def records(tmp_path) -> StageRecords:
    return StageRecords(tmp_path / "stages", RUN)


def test_a_stage_runs_once(records, tmp_path):
    calls = []

    def stage():
        calls.append(1)
        return {"history": [{"loss": 0.5}], "sizes": (1, 2)}

    record = records.run("tokenizer", stage)
    assert record["name"] == "tokenizer" and record["results"] == {"history": [{"loss": 0.5}], "sizes": [1, 2]}
    assert 0 <= record["seconds"] < 10 and record["peak_memory_bytes"] > 0
    assert records.run("tokenizer", stage) == record
    # Also in a later run that asks for the same.
    assert StageRecords(tmp_path / "stages", dict(reversed(RUN.items()))).run("tokenizer", stage) == record
    assert calls == [1]


def test_an_interrupted_stage_runs_again(records):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.run("label", interrupted)
    assert [path.name for path in records.folder.iterdir()] == ["run.json"]
    assert records.run("label", lambda: {"labels": 3})["results"] == {"labels": 3}


def test_a_half_written_record_does_not_count(records):
    (records.folder / ".label.json.1.partial").write_text('{"name": "la')
    assert records.run("label", lambda: {"labels": 3})["results"] == {"labels": 3}


def test_results_that_are_not_json_leave_no_record(records):
    with pytest.raises(TypeError):
        records.run("label", lambda: {"labels": object()})
    assert [path.name for path in records.folder.iterdir()] == ["run.json"]


def test_the_folder_of_another_run_is_refused(records):
    StageRecords(records.folder, RUN)
    for other in (RUN | {"seed": 1, "quick": False}, {"sizes": (1, 2)}):
        with pytest.raises(ValueError, match="holds another run, whose `quick` is True instead of (False|None);"):
            StageRecords(records.folder, other)
    assert json.loads((records.folder / "run.json").read_text()) == RUN | {"sizes": [1, 2]}


def test_describe():
    described = describe(DemoConfig(Path("out"), quick=True))
    assert described.items() >= {"output": "out", "data": None, "quick": True, "seed": 0}.items()
