# SPDX-License-Identifier: Apache-2.0
"""Writes the cards of checkpoints that are planned: python model_cards/make_cards.py"""

from __future__ import annotations

from pathlib import Path

import jinja2
import yaml

FOLDER = Path(__file__).resolve().parent


def planned_cards() -> dict[str, str]:
    """File name → text."""
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((FOLDER / "planned.md.jinja").read_text(encoding="utf-8"))
    cards = yaml.safe_load((FOLDER / "planned.yaml").read_text(encoding="utf-8"))
    return {f"{card['name']}.md": template.render(card) for card in cards}


if __name__ == "__main__":
    for name, text in planned_cards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
