# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from cyclemimic.hub import publication
from cyclemimic.hub.publication import check_weights, read_publication


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def copy(tokenizer, tmp_path):
    return shutil.copytree(tokenizer, tmp_path / "copy")


def test_what_is_no_result_stays_here(copy):
    expected = {path.name for path in copy.iterdir()}
    (copy / "README.md").write_text("A card.")
    for name in (
        "training_args.bin",
        "optimizer.pt",
        ".env",
        ".secrets.json",
        "trainer_state.json",
        "events.out.tfevents.1",
    ):
        (copy / name).write_bytes(b"x")
    (copy / "checkpoint-1").mkdir()
    found = read_publication(copy)
    assert (found.kind, set(found.files)) == ("model", expected | {"README.md"})


def test_labels_are_a_data_set(labels):
    found = read_publication(labels)
    assert (found.repo_type, list(found.files)) == ("dataset", ["labels-00000.parquet"])


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_folder_of_something_else(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="`folder` must be a checkpoint, an adapter or labels, got"):
        read_publication(tmp_path / folder)


def test_link_out_of_the_folder(copy, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (copy / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ValueError, match="`folder` must hold its files itself, got .*notes.txt"):
        read_publication(copy)


def test_pickle_in_the_clothes_of_safetensors_is_not_read(copy, tmp_path):
    (copy / "model-00001-of-00001.safetensors").write_bytes(pickle.dumps(Payload(tmp_path / "run")))
    with pytest.raises(ValueError, match="must be a file of safetensors"):
        read_publication(copy)
    assert not (tmp_path / "run").exists()


def test_pickled_weights_are_refused_unread(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "run")))
    with pytest.raises(ValueError, match="must hold its weights as safetensors, got the pickle pytorch_model.bin"):
        check_weights(tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shard", ["../other.safetensors", "/etc/passwd", "sub/x.safetensors"])
def test_index_out_of_the_folder(copy, shard):
    index = copy / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {"weight": shard}}))
    with pytest.raises(ValueError, match="must name files beside it, got"):
        read_publication(copy)


@pytest.mark.parametrize("name", ["README.md", "config.json", "modeling_latent_action_tokenizer.py"])
def test_token_in_a_file(copy, name):
    with (copy / name).open("a") as file:
        file.write("# hf_" + "a1" * 17)
    with pytest.raises(ValueError, match=f"must hold no access token, and .*{name} does") as raised:
        read_publication(copy)
    assert "hf_a1" not in str(raised.value)


def test_token_where_nobody_looks(copy, labels):
    (copy / "curve.svg").write_text("<svg><!-- hf_" + "a1" * 17 + " --></svg>")
    with pytest.raises(ValueError, match="must hold no access token, and .*curve.svg does"):
        read_publication(copy)
    (copy / "curve.svg").unlink()
    weights = next(copy.glob("*.safetensors"))
    tensors = load_file(weights)
    save_file(tensors, weights, metadata={"format": "pt", "by": "hf_" + "a1" * 17})
    with pytest.raises(ValueError, match=f"must hold no access token, and .*{weights.name} does"):
        read_publication(copy)
    # The data of tensors and tables may spell anything.
    save_file(tensors | {"letters": torch.full((64,), ord("a"), dtype=torch.uint8)}, weights)
    assert weights.name in read_publication(copy, token="a" * 40).files
    assert read_publication(labels, token="abc").kind == "dataset"


def test_processors_of_transformers_need_no_code(copy):
    (copy / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor"}))
    assert "processor_config.json" in read_publication(copy).files


def test_code_that_is_not_there(copy):
    (copy / "modeling_latent_action_tokenizer.py").unlink()
    with pytest.raises(ValueError, match="must hold the code that its `auto_map` names, got no modeling_latent"):
        read_publication(copy)
    config = json.loads((copy / "config.json").read_text())
    del config["auto_map"]
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="`folder` must carry its code, got .* save it again"):
        read_publication(copy)


def test_shard_that_is_too_large(tokenizer, monkeypatch):
    monkeypatch.setattr(publication, "MAX_SHARD_BYTES", 1000)
    with pytest.raises(ValueError, match="must have at most 1000 bytes, got .* in shards"):
        read_publication(tokenizer)


def test_only_adapters_have_a_base_model(tokenizer):
    with pytest.raises(ValueError, match="`base_model` must be left out for what is no adapter"):
        read_publication(tokenizer, base_model="me/policy")


def test_a_model_without_its_weights_is_not_published(copy):
    for path in copy.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"`folder` must hold the weights of its config.json, got none in .*copy\.$"):
        read_publication(copy)
    (copy / "cyclemimic").mkdir()
    save_file({"a": torch.zeros(1)}, copy / "cyclemimic" / "model.safetensors")
    with pytest.raises(ValueError, match="got none in .*copy; push its folder cyclemimic"):
        read_publication(copy)
    # Processors alone are fine, and take nobody's place.
    (copy / "config.json").unlink()
    assert not read_publication(copy).is_replaced("model.safetensors")


def test_a_model_of_which_a_shard_is_missing_is_not_published(copy):
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        ValueError, match="must hold all weights that model.safetensors.index.json names, got no model-00002"
    ):
        read_publication(copy)


def test_weights_take_the_place_of_their_own_kind_alone(copy, labels):
    model = read_publication(copy)
    # An adapter of the weights before would be put on these.
    adapter = ("adapter_model.safetensors", "adapter_config.json")
    for name in ("model-00001-of-00003.safetensors", "model.safetensors", *adapter):
        assert model.is_replaced(name)
    for name in (
        "model-00001-of-00002.safetensors",
        "adapter/model-00001-of-00002.safetensors",
        "a.parquet",
    ):
        assert not model.is_replaced(name)
    assert read_publication(labels).is_replaced("labels-00007.parquet")
    assert not read_publication(labels).is_replaced("model.safetensors")
