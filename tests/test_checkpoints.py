# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
import torch

from cyclemimic.checkpoints import choose_device, read_config
from cyclemimic.data import LatentLabels
from cyclemimic.policies import make_policy_of_backbone

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
