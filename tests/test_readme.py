# SPDX-License-Identifier: Apache-2.0
"""What README.md shows works: its snippet runs, its commands have the flags they are given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
    cli,
)

from .documents import code_blocks, commands, links

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_snippet_runs(tmp_path, monkeypatch, square_data):
    config = LatentActionTokenizerConfig(
        image_size=32,
        patch_size=8,
        vision_config=None,
        hidden_size=32,
        num_attention_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        codebook_dim=8,
    )
    folder = tmp_path / "demo_output"
    LatentActionTokenizerModel(config).save_pretrained(folder / "tokenizer")
    LatentActionTokenizerImageProcessor(size=32).save_pretrained(folder / "tokenizer")
    (folder / "data").symlink_to(square_data)
    monkeypatch.chdir(tmp_path)
    (snippet,) = code_blocks(README, "python")
    names: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), names)
    assert names["codes"].shape == (1, 4)
    assert [images.shape for images in names["images"]] == 2 * [(1, 32, 32, 3)]
    assert len([line for line in snippet.splitlines() if line]) <= 12


@pytest.mark.parametrize("command", commands(README), ids=lambda command: command[1])
def test_command_has_its_flags(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    verb, *flags = command[1:]
    cli.VERBS[verb].parse(flags, f"cyclemimic {verb}")


def test_pipeline_is_complete():
    verbs = ["train-tokenizer", "evaluate-tokenizer", "gallery", "label", "pretrain", "finetune", "rollout"]
    assert [command[1] for command in commands(README)] == verbs


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_linked_files_exist():
    named = links(README) + re.findall(r"examples/[\w/.]+\.\w+", README)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_length():
    assert len(README.splitlines()) <= 200
