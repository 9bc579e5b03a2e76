# SPDX-License-Identifier: Apache-2.0
"""The card that a Trainer writes; what it pushes is tested beside the Hub, in `tests/hub/test_trainer_push.py`."""

from __future__ import annotations

import torch
from huggingface_hub import ModelCard

from cyclemimic.cards.card import CardData

from .small_trainers import make_policy_trainer, make_sources, make_tokenizer_trainer


def test_a_saved_model_has_a_card_of_what_the_trainer_sees(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path / "eyes", max_steps=1)
    trainer.train()
    assert not list((tmp_path / "eyes").glob("**/README.md"))
    trainer.save_model()
    card = ModelCard.load(tmp_path / "eyes" / "README.md")
    assert card.data.library_name == "transformers" and card.data.base_model is None and card.data.datasets is None
    assert "# eyes" in card.text and "| arm | 50.00% | 2 | 16 | 10 |" in card.text
    assert "| steps | 1, of 4 samples |" in card.text and "| seed | 3 |" in card.text
    # After further training it tells of that.
    trainer.state.global_step = 7
    trainer.save_model()
    assert "| steps | 7, of 4 samples |" in (tmp_path / "eyes" / "README.md").read_text()


def test_a_policys_card_tells_of_its_labels_and_its_start(tmp_path):
    trainer = make_policy_trainer(tmp_path / "arm", max_steps=1, lora_rank=2)
    trainer.train()
    trainer.model.config.name_or_path = "someone/else"
    trainer.save_model()
    for folder, library in ((tmp_path / "arm", "transformers"), (tmp_path / "arm" / "adapter", "peft")):
        card = ModelCard.load(folder / "README.md")
        assert (card.data.library_name, card.data.base_model) == (library, "someone/else")
        assert "made by an unknown tokenizer" in card.text
    assert 'text="task 0"' in (tmp_path / "arm" / "README.md").read_text()
    assert "chunk_size=3, action_dim=2, action_decoder_hidden_size=16" in card.text


def test_what_the_trainer_cannot_see_can_be_said(tmp_path):
    trainer = make_policy_trainer(tmp_path / "arm", finetunes=False, max_steps=1)
    trainer.train_dataset = torch.utils.data.Subset(trainer.train_dataset, range(4))
    trainer.train()
    trainer.save_model()
    card = (tmp_path / "arm" / "README.md").read_text()
    assert "does not say what it is made of" in card and "It does not act yet." in card
    trainer.card = {"data": CardData.of_sources(make_sources(), left_out=["lost"]), "kind": "A toy.", "title": "toy"}
    trainer.save_model(str(tmp_path / "other"))
    card = (tmp_path / "other" / "README.md").read_text()
    assert "# toy\n\nA toy." in card and "were left out: lost." in card
