# SPDX-License-Identifier: Apache-2.0
"""Weights that are pickled, or elsewhere, are refused however they are asked for; here because the Hub is one way."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageTextToText, Dinov2Config, Dinov2Model

import cyclemimic
from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerModel,
    cli,
)
from cyclemimic.commands.train_tokenizer import TrainTokenizerArguments, load_or_make_tokenizer

from .conftest import Repository

MODELS = Path(cyclemimic.__file__).parent / "models"
WITHOUT = "must hold its weights as safetensors, got .* without; convert them by"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def with_pickle(folder, copy):
    """A copy of a checkpoint with a hostile pickle in place of its safetensors."""
    shutil.copytree(folder, copy)
    for path in copy.glob("*.safetensors*"):
        path.unlink()
    torch.save({"weight": Payload(copy.parent / "run")}, copy / "pytorch_model.bin")
    return copy


def with_index(folder, copy, shard):
    """A copy of a checkpoint whose index has one name for all weights."""
    shutil.copytree(folder, copy)
    names = [name for path in sorted(copy.glob("*.safetensors")) for name in load_file(path)]
    for path in copy.glob("*.safetensors"):
        path.unlink()
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    return copy


def put(hub, name, folder):
    """Puts a folder on the Hub that `push_folder` would refuse."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    hub.repositories[name] = Repository(False, {"a" * 40: files})
    return name


def test_the_model_folders_have_one_text():
    texts = [path.read_text() for path in MODELS.glob("*/safe_weights_*.py")]
    assert len(texts) == 2 and texts[0] == texts[1]


@pytest.mark.parametrize("is_on_hub", [False, True])
@pytest.mark.parametrize("kind", [LatentActionTokenizerModel, LatentActionTokenizerForPreTraining, AutoModel])
def test_tokenizer(hub, tokenizer, tmp_path, kind, is_on_hub):
    pickled = with_pickle(tokenizer, tmp_path / "pickled")
    elsewhere = with_index(tokenizer, tmp_path / "elsewhere", "../other.safetensors")
    in_disguise = with_index(tokenizer, tmp_path / "in_disguise", "weights.bin")
    shutil.copy(pickled / "pytorch_model.bin", in_disguise / "weights.bin")
    for folder, message in (
        (pickled, WITHOUT),
        (elsewhere, r"must name weights beside its config, as \*.safetensors, got '../other.safetensors'"),
        (in_disguise, r"must name weights beside its config, as \*.safetensors, got 'weights.bin'"),
    ):
        checkpoint = put(hub, f"me/{folder.name}", folder) if is_on_hub else folder
        with pytest.raises(ValueError, match=message):
            kind.from_pretrained(checkpoint)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [LatentActionTokenizerModel, CycleMimicForActionPrediction])
def test_a_folder_without_a_checkpoint(tmp_path, kind):
    with pytest.raises(OSError, match=r"model\.safetensors"):
        kind.from_pretrained(tmp_path)


def test_what_is_safe_loads_from_everywhere(hub, tokenizer, tmp_path):
    expected = LatentActionTokenizerModel.from_pretrained(tokenizer).state_dict()
    nested = tmp_path / "nested" / "part"
    shutil.copytree(tokenizer, nested)
    for found in (
        LatentActionTokenizerModel.from_pretrained(put(hub, "me/tokenizer", tokenizer)),
        LatentActionTokenizerModel.from_pretrained(tmp_path / "nested", subfolder="part"),
        AutoModel.from_pretrained("me/tokenizer", revision="a" * 40),
        AutoModel.from_pretrained("me/tokenizer", local_files_only=True),
    ):
        assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


def test_pickle_is_not_to_be_asked_for(tokenizer):
    with pytest.raises(ValueError, match="`use_safetensors` must be true or left out, got False"):
        LatentActionTokenizerModel.from_pretrained(tokenizer, use_safetensors=False)


def test_file_alone(tokenizer, tmp_path):
    pickled = with_pickle(tokenizer, tmp_path / "pickled")
    config = LatentActionTokenizerModel.config_class.from_pretrained(tokenizer)
    with pytest.raises(ValueError, match=WITHOUT):
        LatentActionTokenizerModel.from_pretrained(pickled / "pytorch_model.bin", config=config)


def test_converted_pickle_loads(policy, tmp_path):
    expected = CycleMimicForActionPrediction.from_pretrained(policy).state_dict()
    copy = shutil.copytree(policy, tmp_path / "copy")
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=WITHOUT):
        CycleMimicForActionPrediction.from_pretrained(copy)
    save_file(torch.load(copy / "pytorch_model.bin", weights_only=True), copy / "model.safetensors")
    found = CycleMimicForActionPrediction.from_pretrained(copy).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("file", ["adapter_model.bin", "../other.safetensors", "model.safetensors.index.json"])
def test_config_names_no_other_file(policy, tmp_path, file):
    copy = shutil.copytree(policy, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_weights": file}))
    with pytest.raises(ValueError, match="must name weights beside its config, as"):
        CycleMimicForActionPrediction.from_pretrained(copy)


@pytest.mark.parametrize("is_on_hub", [False, True])
def test_adapter(hub, policy, tmp_path, is_on_hub):
    pickled = tmp_path / "adapter"
    pickled.mkdir()
    torch.save({"weight": Payload(tmp_path / "run")}, pickled / "adapter_model.bin")
    base = with_index(policy, tmp_path / "base", "../other.safetensors")
    adapter = {"peft_type": "LORA", "target_modules": ["q_proj"], "base_model_name_or_path": str(base)}
    (pickled / "adapter_config.json").write_text(json.dumps(adapter))
    checkpoint = put(hub, "me/adapter", pickled) if is_on_hub else pickled
    with pytest.raises(ValueError, match=WITHOUT):
        CycleMimicForActionPrediction.from_pretrained(checkpoint)
    (pickled / "adapter_model.bin").unlink()
    save_file({"weight": torch.zeros(1)}, pickled / "adapter_model.safetensors")
    checkpoint = put(hub, "me/safe", pickled) if is_on_hub else pickled
    with pytest.raises(ValueError, match="base must name weights beside its config"):
        CycleMimicForActionPrediction.from_pretrained(checkpoint)
    assert not (tmp_path / "run").exists()


def test_model_on_the_hub_with_an_adapter_of_another(hub, policy, tmp_path):
    """Of which transformers loads that other one."""
    base = with_index(policy, tmp_path / "base", "../other.safetensors")
    both = shutil.copytree(policy, tmp_path / "both")
    adapter = {"peft_type": "LORA", "target_modules": ["q_proj"], "base_model_name_or_path": put(hub, "me/base", base)}
    (both / "adapter_config.json").write_text(json.dumps(adapter))
    save_file({"weight": torch.zeros(1)}, both / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="me/base must name weights beside its config"):
        CycleMimicForActionPrediction.from_pretrained(put(hub, "me/both", both))


def test_backbone(hub, policy, prismatic, tmp_path):
    """Also one whose class is transformers' own."""
    pickled = with_pickle(prismatic / "backbone", tmp_path / "pickled")
    backbone = CycleMimicForActionPrediction.from_pretrained(policy).backbone
    AutoModelForImageTextToText.from_config(backbone.config).save_pretrained(tmp_path / "llava")
    elsewhere = with_index(tmp_path / "llava", tmp_path / "elsewhere", "../llava/model.safetensors")
    processor = CycleMimicProcessor.from_pretrained(policy)
    with pytest.raises(ValueError, match=WITHOUT):
        AutoModelForImageTextToText.from_pretrained(pickled)
    for folder, message in ((pickled, WITHOUT), (elsewhere, "got '../llava/model.safetensors'")):
        for backbone in (str(folder), put(hub, f"me/{folder.name}", folder)):
            with pytest.raises(ValueError, match=message):
                CycleMimicForLatentActionPrediction.from_backbone(backbone, processor)
    assert not (tmp_path / "run").exists()


def test_vision_model(hub, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(tmp_path / "vision")
    pickled = with_pickle(tmp_path / "vision", tmp_path / "pickled")
    elsewhere = with_index(tmp_path / "vision", tmp_path / "elsewhere", "../vision/model.safetensors")
    for folder, message in ((pickled, WITHOUT), (elsewhere, "got '../vision/model.safetensors'")):
        for vision_model in (str(folder), put(hub, f"me/{folder.name}", folder)):
            with pytest.raises(ValueError, match=f"`vision_model` must be .*{message}"):
                load_or_make_tokenizer(TrainTokenizerArguments(vision_model=vision_model))
    assert not (tmp_path / "run").exists()


def test_verbs_say_it_in_one_line(hub, tokenizer, policy, square_data, tmp_path, capsys):
    put(hub, "me/tokenizer", with_pickle(tokenizer, tmp_path / "tokenizer"))
    put(hub, "me/policy", with_pickle(policy, tmp_path / "policy"))
    made = ["--output", str(tmp_path / "made"), "--device", "cpu"]
    for argv in (
        ["label", "--tokenizer", "me/tokenizer", "--data", str(square_data), *made],
        ["gallery", "--tokenizer", "me/tokenizer", "--data", str(square_data), *made],
        ["serve", "--policy", "me/policy", "--device", "cpu"],
    ):
        assert cli.main(argv) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"cyclemimic {argv[0]}: error: `pretrained_model_name_or_path` must hold its weights")
    assert not (tmp_path / "run").exists() and not (tmp_path / "made").exists()
