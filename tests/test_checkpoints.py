# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
from cyclemimic.checkpoints import choose_device, load_finetuned, read_config
from cyclemimic.data import LatentLabels
from cyclemimic.models.cyclemimic import make_tiny_backbone_config
from cyclemimic.policies import load_for_actions, load_policy, make_policy_of_backbone
from cyclemimic.trainers.adapters import add_adapter

from .label_files import write_labels


@pytest.mark.parametrize("name", [None, "cuda"])
def test_processes_of_a_machine_take_a_gpu_each(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_device(name) == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "6")
    assert choose_device(name) == torch.device("cuda", 2)


def test_a_device_that_is_not_there():
    assert choose_device(None) == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "gpu"):
        with pytest.raises(ValueError, match=f"`device` must be one that torch can use here, such as cpu, got {name}"):
            choose_device(name)


def test_an_adapter_is_no_whole_checkpoint(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(
        ValueError, match="`policy` must be a whole checkpoint, got the adapter .*; give the folder above"
    ):
        read_config("policy", tmp_path, "cyclemimic")


def test_code_of_a_checkpoint_is_neither_run_nor_asked_for(tmp_path, monkeypatch):
    folder, ran = tmp_path / "evil", tmp_path / "ran"
    folder.mkdir()
    auto_map = {"AutoConfig": "evil.EvilConfig"}
    (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto_map}))
    (folder / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass EvilConfig: pass\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ValueError, match="`policy` must be a checkpoint folder or a Hub id, got .*evil"):
        read_config("policy", folder, "cyclemimic")
    columns = {"source": ["a"], "episode_index": [0], "frame_index": [0], "future_index": [1], "instruction": [None]}
    write_labels(tmp_path / "labels", columns | {"codes": [[3]]}, codebook_size=16, num_latent_tokens=1, tokenizer="t")
    with pytest.raises(ValueError, match="`backbone` must be a checkpoint folder or a Hub id, got .*evil"):
        make_policy_of_backbone(str(folder), LatentLabels.from_folder(tmp_path / "labels"))
    assert not ran.exists()


def test_a_checkpoint_without_all_weights_is_refused(tmp_path):
    processor = CycleMimicProcessor.from_texts(["reach"], image_size=32, patch_size=8, chunk_size=2, action_dim=2)
    processor.add_action_statistics("arm", {"q01": [-1.0] * 2, "q99": [1.0] * 2})
    backbone = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=32)
    policy = CycleMimicForActionPrediction(processor.make_config(backbone, action_decoder_hidden_size=32))
    for each in (policy, processor):
        each.save_pretrained(tmp_path / "whole")
    load_finetuned(tmp_path / "whole", torch.device("cpu"))
    # The names of weights are PEFT's by then, and nothing says so.
    add_adapter(policy, rank=2)
    for each in (policy, processor):
        each.save_pretrained(tmp_path / "adapted")
    message = "`policy` must be a checkpoint with all weights, got .*adapted, which lacks"
    sizes = {"chunk_size": 2, "action_dim": 2}
    for load in (
        load_policy,
        partial(load_for_actions, sizes=sizes, fields={}),
        partial(load_finetuned, device="cpu"),
    ):
        with pytest.raises(ValueError, match=message):
            load(str(tmp_path / "adapted"))


def test_a_field_of_the_wrong_kind_is_one_line(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "cyclemimic", "chunk_size": "12"}))
    with pytest.raises(
        ValueError, match="`policy` must be a checkpoint folder or a Hub id, got .*chunk_size.*12"
    ) as caught:
        read_config("policy", tmp_path, "cyclemimic")
    assert "\n" not in str(caught.value)
