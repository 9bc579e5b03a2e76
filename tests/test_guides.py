# SPDX-License-Identifier: Apache-2.0
"""What the guides show works: commands have the flags they are given, the notebook runs from the first cell to the last."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cyclemimic import cli
from cyclemimic.data import encode_video

from .documents import code_blocks, commands, links

GUIDES = Path(__file__).resolve().parents[1] / "examples" / "guides"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(GUIDES.glob("*.md"))}
COMMANDS = [(name, command) for name, page in PAGES.items() for command in commands(page)]


@pytest.mark.parametrize(
    ("page", "command"), COMMANDS, ids=lambda value: value if isinstance(value, str) else value[1]
)
def test_command_has_its_flags(page, command):
    verb, *flags = command[1:]
    cli.VERBS[verb].parse(flags, f"cyclemimic {verb}")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_names(page):
    assert [link for link in links(PAGES[page]) if not (GUIDES / link).exists()] == []
    for block in code_blocks(PAGES[page], "python"):
        compile(block, page, "exec")
        for line in block.splitlines():
            if line.startswith("from cyclemimic"):
                module, _, names = line.removeprefix("from ").partition(" import ")
                assert all(hasattr(importlib.import_module(module), name.strip()) for name in names.split(","))


def film_squares(folder: Path) -> None:
    """Three films of a bright square that goes another way each."""
    folder.mkdir()
    for index, (right, down) in enumerate([(2, 0), (0, 2), (2, 2)]):
        frames = np.full((12, 32, 32, 3), 40, np.uint8)
        for step, frame in enumerate(frames):
            top, left = 2 + down * step // 2, 2 + right * step // 2
            frame[top : top + 8, left : left + 8] = 220
        encode_video(folder / f"film{index}.mp4", frames, fps=10)


# What makes the steps of a guide small; the rest of every command is as the guide has it.
SMALL = {"--max_steps": "2", "--per_device_train_batch_size": "4", "--num_episodes": "2", "--skip_episodes": "2"}
FURTHER = {
    "train-tokenizer": "--use_cpu --save_strategy no",
    "evaluate-tokenizer": "--max_pairs 24 --device cpu",
    "label": "--device cpu",
    "pretrain": "--use_cpu --save_strategy no --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1",
    "finetune": "--use_cpu --save_strategy no",
    "evaluate-policy": "--device cpu",
    "rollout": "--device cpu --num_workers 1 --num_environments 1 --clips 0",
}


def made_small(command: list[str]) -> list[str]:
    """A command of a guide with less to do."""
    small = [SMALL.get(flag, word) for flag, word in zip(["", *command], command, strict=False)]
    if command[0] == "rollout":
        small[small.index("--episodes") + 1] = "1"
    return [*small, *FURTHER.get(command[0], "").split()]


def test_your_robot_in_an_hour(square_data, tmp_path, monkeypatch, capsys):
    page = PAGES["your_robot.md"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_robot").symlink_to(square_data)
    film_squares(tmp_path / "more_videos")
    rows = "".join(f"film{index}.mp4,{text}\n" for index, text in enumerate(["go right", "go down", "go down"]))
    (tmp_path / "more_videos" / "clips.csv").write_text(f"file,text\n{rows}")
    simulator, on_the_robot, of_two_cameras = code_blocks(page, "python")
    simulator = simulator.replace("(7,)", "(4,)").replace("put the banana on the plate", "go right")
    (tmp_path / "my_robot_sim.py").write_text(simulator)
    monkeypatch.syspath_prepend(tmp_path)
    assert [command[1] for command in commands(page)] == ["inspect", *FURTHER]
    for _, *command in commands(page):
        assert cli.main(made_small(command)) == 0, (command, capsys.readouterr().err)
    results = json.loads((tmp_path / "outputs" / "rollout" / "results.json").read_text())
    assert results["success"]["mean"]["trials"] == 1
    errors = json.loads((tmp_path / "outputs" / "errors" / "errors.json").read_text())
    assert (errors["episodes"], errors["frames"]) == (2, 24)
    names: dict[str, object] = {}
    exec(compile(on_the_robot.replace("put the banana on the plate", "go right"), "guide", "exec"), names)
    assert names["actions"].shape == (1, 10, 4)
    compile(of_two_cameras, "guide", "exec")


def test_the_notebook_runs(tmp_path, monkeypatch, capsys):
    notebook = json.loads((GUIDES / "videos_to_latent_actions.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells)
    monkeypatch.chdir(tmp_path)
    film_squares(tmp_path / "my_videos")
    names: dict[str, object] = {}
    torch.manual_seed(0)
    for cell in cells:
        exec(compile("".join(cell["source"]), "notebook", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names["steps"] = 2
    assert names["codes"].shape == (6, 4)
    assert "3 videos" in capsys.readouterr().out
    assert (tmp_path / "latent_actions" / "gallery" / "gallery.html").exists()
    card = (tmp_path / "latent_actions" / "README.md").read_text(encoding="utf-8")
    assert "A latent action tokenizer" in card and "| my\\_videos | 100.00% | 3 |" in card
