# SPDX-License-Identifier: Apache-2.0
"""Writes the cards of checkpoints that are planned: python model_cards/make_cards.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml

from cyclemimic.data.mixture import read_mixture
from cyclemimic.hub.names import is_repository_id

FOLDER = Path(__file__).resolve().parent
# What training starts with where the card's commands say nothing else.
BASE_MODELS = {"tokenizer": "facebook/dinov2-base"}
STARTS = {"tokenizer": "of DINOv2", "pretrained": "of Prismatic-7B and the language model in it"}


def planned_cards() -> dict[str, str]:
    """File name → text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cyclemimic.cards"),  # what all cards end with
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.from_string((FOLDER / "planned.md.jinja").read_text(encoding="utf-8"))
    cards = yaml.safe_load((FOLDER / "planned.yaml").read_text(encoding="utf-8"))
    return {f"{card['name']}.md": template.render(card, **_facts(card)).strip() + "\n" for card in cards}


def _facts(card: dict[str, Any]) -> dict[str, Any]:
    entries = read_mixture(card["mixture"])
    total = sum(entry.weight for entry in entries)
    rows = [
        [entry.path, f"{entry.weight / total:.2%}", entry.embodiment or "–", entry.camera or "the only one"]
        for entry in entries
    ]
    names = [*(entry.path for entry in entries), card.get("demonstrations", "")]
    return {
        "rows": rows,
        "datasets": list(dict.fromkeys(name for name in names if is_repository_id(name))),
        "base_model": BASE_MODELS.get(card["stage"]),
        "backbone": None,
        "licence": f"There are no weights yet. Whoever publishes some is bound by the licences of the data sets above and "
        f"{STARTS.get(card['stage'], STARTS['pretrained'])}, and chooses theirs: the training's own card lists what the data "
        "sets say of it.",
    }


if __name__ == "__main__":
    for name, text in planned_cards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
