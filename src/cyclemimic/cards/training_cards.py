# SPDX-License-Identifier: Apache-2.0
"""The cards that a training leaves."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, Trainer

from .card import CardData, render_model_card
from .facts import training_facts


def write_training_cards(
    trainer: Trainer, folder: Path, title: str, data: CardData, template: str, **card: object
) -> None:
    """
    Writes the card of a model that was just trained and saved, and of the adapter, where there is one beside it.

    Args:
        trainer ([`~transformers.Trainer`]): What trained it.
        folder (`Path`): Where it was saved.
        title (`str`): The model's name.
        data ([`CardData`]): What it learned from.
        template (`str`), card (`object`): Of [`render_model_card`], and what it asks for beside data, facts, configuration
            and architecture.
    """
    saved = AutoConfig.from_pretrained(folder)
    context = {"data": data, "facts": training_facts(trainer), "config": saved, **card}
    context["architecture"] = saved.architectures[0]
    for name, path in ((template, folder), ("adapter", folder / "adapter")):
        if path.is_dir():
            (path / "README.md").write_text(render_model_card(name, title, **context), encoding="utf-8")
