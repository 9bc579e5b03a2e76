# SPDX-License-Identifier: Apache-2.0
"""The cards that a training leaves."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig, Trainer

from .card import CardData, render_model_card
from .facts import training_facts

_ACTION_SIZES = ("chunk_size", "action_dim")
_ACTION_FIELDS = (
    *("state_dim", "camera_names", "action_decoding", "action_decoder_context", "action_decoder_hidden_size"),
    *("action_decoder_num_heads", "action_decoder_num_layers", "action_activation"),
)


def write_training_cards(
    trainer: Trainer,
    folder: Path,
    title: str,
    data: CardData,
    template: str,
    backbone: str | None = None,
    **card: object,
) -> None:
    """
    Writes the card of a model that was just trained and saved, and of the adapter, where there is one beside it.

    Args:
        trainer ([`~transformers.Trainer`]): What trained it.
        folder (`Path`): Where it was saved.
        title (`str`): The model's name.
        data ([`CardData`]): What it learned from.
        template (`str`), backbone (`str`, *optional*), card (`object`): Of [`render_model_card`], and what it asks for
            beside facts, configuration and architecture.
    """
    saved = AutoConfig.from_pretrained(folder)
    context = {"facts": training_facts(trainer), "config": saved, **card}
    context["architecture"] = saved.architectures[0]
    # Under which of the Auto classes the saved code knows the model.
    context["auto_class"] = "AutoModel" if card.get("acts") else "AutoModelForPreTraining"
    context["sizes"] = _sizes(saved)
    for name, path in ((template, folder), ("adapter", folder / "adapter")):
        if path.is_dir():
            text = render_model_card(name, title, data, backbone, **context)
            (path / "README.md").write_text(text, encoding="utf-8")


def _sizes(config: PreTrainedConfig) -> dict[str, object]:
    """What a policy must be loaded with for an adapter to fit: its checkpoint may know nothing of actions."""
    values = config.to_dict()
    others = {name: values.get(name) for name in _ACTION_FIELDS}
    changed = {name: value for name, value in others.items() if value != getattr(type(config), name, None)}
    return {name: values[name] for name in _ACTION_SIZES if name in values} | changed
