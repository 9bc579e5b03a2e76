# SPDX-License-Identifier: Apache-2.0
"""The comparison of AC3 with the Genie objective, on bodies that are coloured squares."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

from cyclemimic.data import LeRobotWriter

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "cross_embodiment"
TINY = {"hidden_size": 16, "num_encoder_layers": 1, "num_decoder_layers": 1, "num_discriminator_layers": 1}


@pytest.fixture
def compare() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("compare")
    for name in ("compare", "step_cost"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def arms(tmp_path_factory) -> list[Path]:
    """A data set a body, whose states are the place of a square."""
    root = tmp_path_factory.mktemp("arms")
    random = np.random.default_rng(0)
    for channel, body in enumerate(("red", "green")):
        with LeRobotWriter(root / body, 10, body, ["y", "z"], ["y", "z"]) as writer:
            for _ in range(5):
                places = 4 + np.cumsum(random.integers(0, 2, (12, 2)), axis=0)
                frames = np.full((12, 32, 32, 3), 30, dtype=np.uint8)
                for frame, (top, left) in zip(frames, places, strict=True):
                    frame[top : top + 8, left : left + 8, channel] = 220
                steps = np.diff(places, axis=0, append=places[-1:]).astype(np.float32)
                writer.add_episode(frames, steps, "move", places.astype(np.float32))
    return [root / "red", root / "green"]


@pytest.fixture
def run_compare(compare, arms, tmp_path, monkeypatch) -> Callable[..., Path]:
    """Runs `compare.py` in this process; returns the folder it writes to."""

    def run(*flags: str) -> Path:
        data = [str(path) for path in arms]
        output = tmp_path / "comparison"
        sizes = ["--config", json.dumps({**TINY, "num_attention_heads": 2, "cycle_start_copy_ratio": 1.0})]
        small = ["--steps", "25", "--batch_size", "8", "--max_pairs", "30", "--motion_dims", "0", "1"]
        argv = ["compare.py", "--train", *data, "--test", *data, "--output", str(output), *sizes, *small, *flags]
        monkeypatch.setattr(sys, "argv", argv)
        compare.main()
        return output

    return run


def cells_of(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    assert len({len(row) for row in rows}) == 1
    return {row[0]: row[1:] for row in rows if not row[0].startswith("-")}


def test_a_folder_of_other_settings_is_refused(run_compare, capsys):
    run_compare("--variants", "genie", "--seeds", "0")
    with pytest.raises(SystemExit):
        run_compare("--variants", "genie", "--seeds", "0", "--learning_rate", "0.1")
    assert "holds another run, whose `learning_rate` is 0.002 instead of 0.1" in capsys.readouterr().err


def test_trains_on_a_mixture(run_compare, arms, tmp_path, capsys):
    mixture = tmp_path / "mixture.yaml"
    times = {"interval_s": 0.4, "min_interval_s": 0.3}
    sources = [{"path": str(path), "weight": 1 + index, **times} for index, path in enumerate(arms)]
    mixture.write_text(yaml.safe_dump({"sources": sources}))
    output = run_compare("--train", str(mixture), "--variants", "ac3", "--seeds", "0")
    assert (output / "ac3" / "seed-0" / "quality.json").exists()
    with pytest.raises(SystemExit):
        run_compare("--train", str(mixture), *map(str, arms), "--output", str(tmp_path / "other"))
    assert "`--train` must be one mixture, or data sets without one" in capsys.readouterr().err


def test_every_variant_gets_a_row_of_what_was_measured(run_compare, capsys):
    output = run_compare("--variants", "genie", "ac3", "genie-equal-compute", "--seeds", "0", "1")
    means, removed = (output / "table.md").read_text().split("\n\n")
    rows = cells_of(means)
    assert set(rows) == {"variant", "genie", "ac3", "genie-equal-compute"} and rows["genie"][0] == "2"
    column = rows["variant"].index("MI, nats")
    measured = [
        json.loads((output / "genie" / f"seed-{seed}" / "quality.json").read_text())["summary"]["mutual_information"]
        for seed in (0, 1)
    ]
    assert rows["genie"][column] == f"{np.mean(measured):.2f} ± {np.std(measured, ddof=1):.2f}"
    assert rows["genie"] != rows["ac3"]
    kinds = ("linear R² across", "MLP R² across", "transfer R² across")
    wanted = [f"| {variant} | {kind} | 0, 1 | " for variant in ("genie", "genie-equal-compute") for kind in kinds]
    assert [line.startswith(start) for line, start in zip(removed.splitlines()[2:], wanted, strict=True)] == [True] * 6
    assert (output / "table.md").read_text() in capsys.readouterr().out


def test_equal_compute_needs_ac3_before_it(run_compare, capsys):
    for variants in (["genie-equal-compute"], ["genie-equal-compute", "ac3"]):
        with pytest.raises(SystemExit):
            run_compare("--variants", *variants)
        assert "`--variants` must have ac3 before genie-equal-compute" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_a_share_of_the_frames_costs_that_share(compare, share):
    sizes = {
        **TINY,
        "num_attention_heads": 2,
        "vision_config": None,
        "patch_size": 8,
        "image_size": 32,
        "codebook_dim": 8,
    }
    of = {
        part: compare.step_operations(compare.LatentActionTokenizerConfig(**sizes, generated_share=part), ac3=True)
        for part in (share, 1.0)
    }
    without = compare.step_operations(compare.LatentActionTokenizerConfig(**sizes), ac3=False)
    assert (of[share] - without) / (of[1.0] - without) == pytest.approx(share, abs=0.02)


def test_equal_compute_is_as_many_operations(run_compare, compare):
    output = run_compare("--variants", "ac3", "genie-equal-compute", "--seeds", "0", "--workers", "1")
    ac3, equal = (
        json.loads((output / name / "seed-0" / "run.json").read_text()) for name in ("ac3", "genie-equal-compute")
    )
    assert 0 < ac3["ac3_steps"] <= 25 == ac3["steps"] < equal["steps"] <= 5 * 25 and equal["ac3_steps"] == 0


def test_what_is_done_is_not_done_again(run_compare, compare, monkeypatch):
    output = run_compare("--variants", "genie", "--seeds", "0")
    (output / "table.md").unlink()
    monkeypatch.setattr(compare, "train", None)
    monkeypatch.setattr(compare, "measure", None)
    assert cells_of((run_compare("--variants", "genie", "--seeds", "0") / "table.md").read_text())["genie"][0] == "1"


def test_variants_go_on_from_one_tokenizer(run_compare, compare, tmp_path, monkeypatch):
    start = run_compare("--variants", "genie", "--seeds", "1") / "genie"
    start.rename(tmp_path / "start")
    started = []
    make_model = compare.make_model

    def remember(*arguments):
        model = make_model(*arguments)
        started.append({name: value.clone() for name, value in model.tokenizer.state_dict().items()})
        return model

    monkeypatch.setattr(compare, "make_model", remember)
    start = tmp_path / "start" / "seed-{seed}" / "tokenizer"
    flags = ["--start", str(start), "--variants", "genie", "ac3", "--seeds", "1"]
    run_compare(*flags, "--output", str(tmp_path / "continued"))
    output = tmp_path / "continued"
    genie, ac3 = (json.loads((output / name / "seed-1" / "run.json").read_text()) for name in ("genie", "ac3"))
    # AC3 joins at the first look.
    assert genie["ac3_steps"] == 0 and ac3["ac3_steps"] > 20
    assert started[0].keys() == started[1].keys()
    assert all(torch.equal(value, started[1][name]) for name, value in started[0].items())


def test_what_ac3_removes_is_told_of_seeds_that_both_have(compare, tmp_path):
    figures = {"genie": (0.5, 0.8), "ac3": (0.75, 0.7, 0.9)}
    for variant, values in figures.items():
        for seed, value in enumerate(values):
            folder = tmp_path / variant / f"seed-{seed}"
            folder.mkdir(parents=True)
            summary = dict.fromkeys(("linear_r2_across", "mlp_r2_across", "transfer_r2_across"))
            summary["linear_r2_across"] = {"value": value, "low": 0, "high": 1}
            (folder / "quality.json").write_text(json.dumps({"summary": summary}))
    arguments = argparse.Namespace(output=tmp_path, seeds=[0, 1, 2], variants=["genie", "ac3"])
    # Half of the error of 0.5 is gone; of 0.2, half as much again has come.
    assert compare.removed_errors(arguments).splitlines()[3:] == ["| genie | linear R² across | 0, 1 | 50%, -50% |"]
