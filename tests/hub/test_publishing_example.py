# SPDX-License-Identifier: Apache-2.0
"""The example that publishes, executed as the others are by `tests/test_examples.py`; here because the Hub is."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from cyclemimic import LatentActionTokenizerModel

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "07_publish.py"


def test_what_is_published_is_loaded_by_commit(hub, tokenizer, labels, monkeypatch, capsys):
    flags = ["--tokenizer", str(tokenizer), "--labels", str(labels), "--owner", "me"]
    monkeypatch.setattr(sys, "argv", ["07_publish.py", *flags])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    commits = {name: repository.at("main")[0] for name, repository in hub.repositories.items()}
    size = sum(weight.numel() for weight in LatentActionTokenizerModel.from_pretrained(tokenizer).parameters())
    assert capsys.readouterr().out.splitlines() == [
        f"me/cyclemimic-tokenizer at {commits['me/cyclemimic-tokenizer']}: {size} weights",
        f"me/cyclemimic-labels at {commits['datasets/me/cyclemimic-labels']}: 3 labels of me/tokenizer",
    ]
    assert all(repository.is_private for repository in hub.repositories.values())
