# SPDX-License-Identifier: Apache-2.0
"""The cards in `model_cards/`: those of checkpoints that do not exist yet say so, and their commands can be run."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

import cyclemimic
from cyclemimic import cli
from cyclemimic.data.mixture import read_mixture
from cyclemimic.evaluation.environments import libero

from .documents import commands

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "model_cards"
PLANNED = runpy.run_path(str(FOLDER / "make_cards.py"))["planned_cards"]()


def test_planned_cards_are_as_the_template_says():
    written = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    assert {name: written.get(name) for name in PLANNED} == PLANNED
    for name, text in written.items():
        assert ("Not yet trained" in text) == (name in PLANNED)
        assert ModelCard(text).data.library_name == "transformers"
        for heading in ("How to make it" if name in PLANNED else "Use", "Training data", "Licence", "Citation"):
            assert f"\n## {heading}\n" in text, (name, heading)
        assert "\n## Intended use and limits\n" in text and "@inproceedings{" in text


@pytest.mark.parametrize("name", PLANNED)
def test_planned_cards_name_their_data(name):
    card = ModelCard(PLANNED[name])
    of_mixture = read_mixture("bridge" if "bridge" in name else "paper")
    assert all(f"| {entry.path} |" in card.text for entry in of_mixture)
    known = [word for command in commands(PLANNED[name]) for word in command if word.startswith("IPEC-COMMUNITY/")]
    assert set(known) <= set(card.data.datasets) and "ego4d" not in card.data.datasets
    assert card.data.base_model == ("facebook/dinov2-base" if "tokenizer" in name else None)


@pytest.mark.parametrize("name", PLANNED)
def test_commands_have_their_flags(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands(PLANNED[name])
    assert found
    for _, verb, *flags in found:
        # A machine without GPU refuses bf16 otherwise.
        no_gpu = ["--use_cpu", "true"] if verb in ("train-tokenizer", "pretrain", "finetune") else []
        cli.VERBS[verb].parse([*flags, *no_gpu], f"cyclemimic {verb}")


def test_files_and_suites_of_the_commands_are_there():
    words = [word for page in PLANNED.values() for command in commands(page) for word in command]
    assert [word for word in words if word.startswith("examples/") and not (ROOT / word).is_file()] == []
    assert {word.removeprefix("libero:") for word in words if word.startswith("libero:")} == set(libero.MAX_STEPS)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == cyclemimic.__version__
    assert f"## {cyclemimic.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
