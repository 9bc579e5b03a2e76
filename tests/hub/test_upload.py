# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import traceback

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoProcessor, modeling_utils

from cyclemimic import CycleMimicProcessor, LatentActionTokenizerForPreTraining, LatentActionTokenizerModel
from cyclemimic.data.labels.latent_labels import LatentLabels
from cyclemimic.hub.upload import push_folder


def test_what_is_pushed_is_loaded(hub, tokenizer):
    commit = push_folder(tokenizer, "me/tokenizer")
    loaded = AutoModel.from_pretrained("me/tokenizer", revision=commit.oid).state_dict()
    expected = LatentActionTokenizerModel.from_pretrained(tokenizer).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert AutoImageProcessor.from_pretrained("me/tokenizer").size == 16
    published = hub.repositories["me/tokenizer"].commits[commit.oid]
    assert published == {path.name: path.read_bytes() for path in tokenizer.iterdir()}
    assert sum(name.endswith(".safetensors") for name in published) > 1


def test_a_commit_stays_what_it_is(hub, policy, tmp_path):
    first = push_folder(policy, "me/policy")
    later = shutil.copytree(policy, tmp_path / "policy")
    processor = CycleMimicProcessor.from_pretrained(policy)
    processor.add_action_statistics("arm", {"q01": [-9.0] * 7, "q99": [9.0] * 7})
    processor.save_pretrained(later)
    second = push_folder(later, "me/policy")
    bounds = [
        AutoProcessor.from_pretrained("me/policy", revision=commit.oid).action_statistics["arm"]["q99"][0]
        for commit in (first, second)
    ]
    assert bounds == [2, 9]


def test_weights_of_an_earlier_push_do_not_stay(hub, tokenizer, tmp_path):
    push_folder(tokenizer, "me/tokenizer")
    model = LatentActionTokenizerForPreTraining.from_pretrained(tokenizer)
    model.save_pretrained(tmp_path / "whole")
    commit = push_folder(tmp_path / "whole", "me/tokenizer")
    published = hub.repositories["me/tokenizer"].commits[commit.oid]
    assert [name for name in published if ".safetensors" in name] == ["model.safetensors"]
    assert "preprocessor_config.json" in published


def test_an_interrupted_push_goes_on_where_it_was(hub, tokenizer):
    hub.uploads_before_break = 1
    with pytest.raises(OSError, match="me/tokenizer: nothing was committed"):
        push_folder(tokenizer, "me/tokenizer")
    assert len(hub.uploads) == 1 and list(hub.repositories["me/tokenizer"].commits) == ["0" * 40]
    hub.uploads_before_break = None
    push_folder(tokenizer, "me/tokenizer")
    assert len(hub.uploads) == len(set(hub.uploads)) == len(list(tokenizer.glob("*.safetensors")))


def test_private_repository_is_refused_without_token(hub, labels, monkeypatch, tmp_path):
    push_folder(labels, "me/labels", private=True)
    assert len(LatentLabels.from_hub("me/labels")) == 3
    shutil.rmtree(tmp_path / "cache")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(ValueError, match="me/labels is .*RepositoryNotFoundError"):
        LatentLabels.from_hub("me/labels")


def test_labels_are_pushed_and_loaded_by_commit(hub, labels):
    commit = LatentLabels.from_folder(labels).push_to_hub("me/labels")
    loaded = LatentLabels.from_hub("me/labels", commit.oid)
    assert np.array_equal(loaded.lookup("squares", 1, 0), np.arange(8, 12))
    assert list(hub.repositories) == ["datasets/me/labels"]


def test_models_and_processors_push_themselves_with_their_code(hub, tokenizer, policy):
    LatentActionTokenizerModel.from_pretrained(tokenizer).push_to_hub("me/tokenizer")
    CycleMimicProcessor.from_pretrained(policy).push_to_hub("me/processor")
    files = hub.repositories["me/tokenizer"].at("main")[1]
    assert {"modeling_latent_action_tokenizer.py", "quantizer_latent_action_tokenizer.py"} <= files.keys()
    files = hub.repositories["me/processor"].at("main")[1]
    siblings = {f"{name}_cyclemimic.py" for name in ("normalization", "image_batches", "prompts")}
    assert {"processing_cyclemimic.py", "README.md"} | siblings <= files.keys()


def test_token_is_in_no_error_log_or_file(hub, tokenizer, caplog, monkeypatch):
    with caplog.at_level("DEBUG"):
        push_folder(tokenizer, "me/tokenizer")
    wrong = hub.token[:-1] + "X"
    monkeypatch.setenv("HF_TOKEN", wrong)
    hub.is_echoing = True
    with caplog.at_level("INFO"), pytest.raises(OSError, match=r"me/tokenizer: .*Bearer \*\*\*") as raised:
        push_folder(tokenizer, "me/tokenizer")
    told = caplog.text + "".join(traceback.format_exception(raised.value))
    assert "/api/models/me/tokenizer/commit/main" in told
    assert hub.token[:-1] not in told
    published = hub.repositories["me/tokenizer"].at("main")[1]
    assert not any(hub.token.encode() in content for content in published.values())


@pytest.mark.parametrize("repo_id", ["labels", "me/you/labels", "me/../labels", ""])
def test_what_is_no_id_is_not_made(hub, labels, repo_id):
    with pytest.raises(ValueError, match=f"`repo_id` must be OWNER/NAME, got {repo_id}"):
        push_folder(labels, repo_id)
    assert hub.repositories == {}


def test_the_log_names_what_is_published(hub, tokenizer, caplog):
    with caplog.at_level("INFO", "cyclemimic"):
        push_folder(tokenizer, "me/tokenizer")
    (line,) = [record.getMessage() for record in caplog.records if "to be published" in record.getMessage()]
    assert sorted(line.removeprefix("me/tokenizer: to be published are ").split(", ")) == sorted(
        path.name for path in tokenizer.iterdir()
    )


def test_what_has_no_card_is_pushed_with_a_word(hub, tokenizer, tmp_path, caplog):
    with_card = shutil.copytree(tokenizer, tmp_path / "with_card")
    (with_card / "README.md").write_text("# A card")
    push_folder(with_card, "me/with-card")
    push_folder(tokenizer, "me/without")
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"me/without: {tokenizer} has no card, README.md; finished trainings and `label` write one"
    ]


def test_without_token_nothing_is_sent(hub, tokenizer, monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="`HF_TOKEN` must be set .* got none"):
        push_folder(tokenizer, "me/tokenizer")
    assert hub.repositories == {}


def test_adapter_names_its_model_by_id(hub, policy, tmp_path):
    from peft import LoraConfig, get_peft_model

    from cyclemimic import CycleMimicForActionPrediction

    model = CycleMimicForActionPrediction.from_pretrained(policy)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="`base_model` must be the Hub id"):
        push_folder(tmp_path, "me/adapter")
    push_folder(tmp_path, "me/adapter", base_model="me/policy")
    files = hub.repositories["me/adapter"].at("main")[1]
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "me/policy"
    assert not any(str(policy).encode() in content for content in files.values())
    assert "adapter_model.safetensors" in files


@pytest.mark.parametrize("kind", ["tokenizer", "policy", "prismatic"])
def test_no_model_saves_files_that_a_push_refuses(hub, kind, request, tmp_path, monkeypatch):
    folder = request.getfixturevalue(kind)
    folder = folder / "backbone" if kind == "prismatic" else folder
    automatic = AutoModelForImageTextToText if kind == "prismatic" else AutoModel
    model = automatic.from_pretrained(folder)
    split, sizes = modeling_utils.split_torch_state_dict_into_shards, []

    def record(state_dict, max_shard_size, **kwargs):
        sizes.append(max_shard_size)
        return split(state_dict, max_shard_size=max_shard_size, **kwargs)

    monkeypatch.setattr(modeling_utils, "split_torch_state_dict_into_shards", record)
    model.save_pretrained(tmp_path / "saved")
    model.push_to_hub("me/pushed")
    if kind == "prismatic":
        model.model.save_pretrained(tmp_path / "headless")
    assert len(sizes) == 2 + (kind == "prismatic") and set(sizes) == {"5GB"}
    model.save_pretrained(tmp_path / "chosen", max_shard_size="1GB")
    assert sizes[-1] == "1GB"
