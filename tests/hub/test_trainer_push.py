# SPDX-License-Identifier: Apache-2.0
"""What the Trainers publish; here because the Hub is."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoModelForPreTraining

from cyclemimic import cli
from cyclemimic.trainers import publishing_trainer

from ..trainers.small_trainers import make_policy_trainer, make_tokenizer_trainer

PICKLES = {".bin", ".pt", ".pth", ".pkl"}
WORDS = {"tokenizer": "A latent action tokenizer (CycleMimic)", "policy": "fine-tuned on demonstrations to act"}
MAKERS = {"tokenizer": make_tokenizer_trainer, "policy": make_policy_trainer}


@pytest.fixture(params=MAKERS)
def kind(request) -> str:
    return request.param


def commits_of(hub, name: str) -> list[dict[str, bytes]]:
    """Files after each commit but the empty first."""
    return list(hub.repositories[name].commits.values())[1:]


def assert_fit(files: dict[str, bytes], words: str) -> None:
    assert not [name for name in files if Path(name).suffix in PICKLES or "/" in name or name == "trainer_state.json"]
    assert {"README.md", "config.json", "model.safetensors"} <= files.keys()
    assert any(name.endswith(".py") for name in files)
    card = files["README.md"].decode()
    assert words in card and "generated automatically" not in card and "| seed | 3 |" in card


def test_what_is_pushed_is_the_model_with_its_card(hub, kind, tmp_path):
    trainer = MAKERS[kind](tmp_path / "made", max_steps=1)
    trainer.train()
    commit = trainer.push_to_hub(token=hub.token)
    (files,) = commits_of(hub, "me/made")
    assert_fit(files, WORDS[kind])
    assert (tmp_path / "made" / "training_args.bin").is_file()  # which stays here
    loaded = (AutoModelForPreTraining if kind == "tokenizer" else AutoModel).from_pretrained(
        "me/made", revision=commit.oid
    )
    expected = trainer.model.state_dict()
    assert all(value.equal(expected[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("strategy", ["every_save", "end"])
def test_a_run_that_pushes(hub, kind, strategy, tmp_path):
    changes = {"push_to_hub": True, "hub_model_id": "me/run", "hub_strategy": strategy, "hub_always_push": True}
    trainer = MAKERS[kind](tmp_path / "made", **changes)
    trainer.train()
    during = commits_of(hub, "me/run")
    assert len(during) == (2 if strategy == "every_save" else 0)
    trainer.save_model()
    commits = commits_of(hub, "me/run")
    assert len(commits) == len(during) + 1
    for files in commits:
        assert_fit(files, WORDS[kind])
    steps = [ModelCard(files["README.md"].decode()).text.split("| steps | ")[1][0] for files in commits]
    assert steps == ["2", "4", "4"][-len(commits) :]
    assert not list((tmp_path / "made").glob(".push-*"))


def test_a_checkpoint_of_a_part_waits_for_the_whole(hub, tmp_path, caplog):
    changes = {"push_to_hub": True, "hub_model_id": "me/run", "lora_rank": 2}
    trainer = make_policy_trainer(tmp_path / "made", **changes)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert commits_of(hub, "me/run") == [] and "`save_model` pushes it whole" in caplog.text
    trainer.save_model()
    assert_fit(commits_of(hub, "me/run")[0], WORDS["policy"])


def test_a_checkpoint_that_does_not_arrive_ends_no_training(hub, tmp_path, caplog):
    changes = {"push_to_hub": True, "hub_model_id": "me/run", "hub_token": hub.token, "max_steps": 2}
    trainer = make_tokenizer_trainer(tmp_path / "made", **changes)
    hub.uploads_before_break = 0
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert trainer.state.global_step == 2
    assert "a checkpoint was not pushed: me/run: nothing was committed" in caplog.text
    assert hub.token not in caplog.text and not list((tmp_path / "made").glob(".push-*"))


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_states_of_a_training_are_not_published(hub, strategy, tmp_path):
    with pytest.raises(ValueError, match=f"`hub_strategy` must be end or every_save, .* got {strategy}"):
        make_tokenizer_trainer(tmp_path, push_to_hub=True, hub_strategy=strategy)
    assert hub.repositories == {}


def test_figures_that_were_added_are_pushed(hub, tmp_path):
    trainer = make_tokenizer_trainer(tmp_path / "made", max_steps=1)
    trainer.train()
    trainer.save_model()
    card = tmp_path / "made" / "README.md"
    card.write_text(card.read_text().replace("Nothing has been measured", "| perplexity | 3 |"))
    trainer.create_model_card()
    trainer.push_to_hub(token=hub.token)
    assert b"| perplexity | 3 |" in commits_of(hub, "me/made")[0]["README.md"]
    with pytest.raises(ValueError, match=r"`kwargs` must be left out, .* got \['tags'\]"):
        trainer.push_to_hub(tags="robot")


def test_a_verb_that_pushes_says_which_commit_to_load(hub, square_data, tmp_path, capsys):
    sizes = {"image_size": 16, "patch_size": 8, "vision_config": None, "hidden_size": 16, "num_attention_heads": 2}
    (tmp_path / "tokenizer.json").write_text(json.dumps(sizes))
    flags = ["--data", str(square_data), "--tokenizer_config", str(tmp_path / "tokenizer.json")]
    flags += (
        "--max_steps 1 --interval_s 0.3 --min_interval_s 0.2 --use_cpu true --disable_tqdm true --save_steps 1".split()
    )
    flags += ["--push_to_hub", "true", "--hub_model_id", "me/run", "--output_dir", str(tmp_path / "made")]
    assert cli.main(["train-tokenizer", *flags]) == 0
    during, end = commits_of(hub, "me/run")
    assert end.keys() == during.keys() and b'checkpoint = "me/run"' in end["README.md"]
    commit = hub.repositories["me/run"].at("main")[0]
    assert capsys.readouterr().out.rstrip().endswith(f'loaded exactly so with revision="{commit}"')


def test_the_arguments_say_where_it_is_published(tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(publishing_trainer, "push_folder", lambda *args, **kwargs: sent.append(kwargs))
    trainer = make_policy_trainer(tmp_path, hub_revision="next", hub_private_repo=True, hub_token="a token")
    trainer.hub_model_id = "me/made"
    trainer.push_saved(tmp_path)
    assert [sent[0][name] for name in ("revision", "private", "token")] == ["next", True, "a token"]
    trainer.push_saved(tmp_path, revision="main", private=False, token="another")
    assert [sent[1][name] for name in ("revision", "private", "token")] == ["main", False, "another"]
