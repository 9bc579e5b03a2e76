# SPDX-License-Identifier: Apache-2.0
"""The code that published cards show, executed as it stands there: it loads from the Hub what was pushed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor, cli
from cyclemimic.data import LatentLabels
from cyclemimic.hub.published_card import publish_card
from cyclemimic.hub.upload import push_folder
from cyclemimic.labeling import label_videos

from ..documents import code_blocks
from ..label_files import write_labels
from ..trainers.small_trainers import make_policy_trainer, make_sources, make_tokenizer_trainer

IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
FRAMES = {"image": IMAGE, "current_frame": IMAGE, "future_frame": IMAGE[::-1]}


def card_of(hub, name: str) -> str:
    return hub.repositories[name].at("main")[1]["README.md"].decode()


def execute(code: str) -> dict[str, Any]:
    names: dict[str, Any] = dict(FRAMES)
    with torch.no_grad():
        exec(compile(code, "card", "exec"), names)
    return names


def execute_alone(hub, blocks: list[str], folder: Path) -> None:
    """In a process that has transformers and cannot import the package."""
    no_package = "import sys\nsys.modules['cyclemimic'] = None\n"
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        **{"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "home")},
    }
    program = no_package + "\n".join(blocks)
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, env=environment, timeout=300
    )
    assert process.returncode == 0, process.stderr


def test_models_are_loaded_with_the_package_and_without(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # in which the folders are known by their names alone
    trainers = {
        "eyes": (make_tokenizer_trainer, {}, "tokenizer", "LatentActionTokenizerModel"),
        "arm": (make_policy_trainer, {}, "policy", "CycleMimicForActionPrediction"),
        "reader": (make_policy_trainer, {"finetunes": False}, "policy", "CycleMimicForLatentActionPrediction"),
    }
    shown, alone = {}, []
    for name, (make, arguments, variable, kind) in trainers.items():
        trainer = make(tmp_path / name, max_steps=1, **arguments)
        trainer.train()
        trainer.save_model()
        execute(code_blocks((tmp_path / name / "README.md").read_text(), "python")[0])
        push_folder(tmp_path / name, f"me/{name}_there")
        own, other = code_blocks(card_of(hub, f"me/{name}_there"), "python")
        (tmp_path / name).rename(tmp_path / f"{name}_gone")
        shown[name] = execute(own)
        assert shown[name]["checkpoint"] == f"me/{name}_there"
        assert 'options = {"revision": "main", "trust_remote_code": True}' in other
        alone.append(f"{other}\nassert type({variable}).__name__ == {kind!r}")
    assert shown["eyes"]["future"].shape == (1, 3, 16, 16)
    assert shown["arm"]["actions"].shape == (1, 3, 2)
    assert shown["reader"]["codes"].shape == (1, 4)
    execute_alone(hub, alone, tmp_path)


def test_labels_are_loaded_from_the_hub(hub, tokenizer, tmp_path, monkeypatch):
    from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel

    monkeypatch.chdir(tmp_path)
    parts = [
        part.from_pretrained(tokenizer) for part in (LatentActionTokenizerModel, LatentActionTokenizerImageProcessor)
    ]
    label_videos(*parts, make_sources(), tmp_path / "labels", 0.3, 0.1, "me/tokenizer")
    names = execute(code_blocks((tmp_path / "labels" / "README.md").read_text(), "python")[0])
    assert len(names["labels"]) == len(LatentLabels.from_folder(tmp_path / "labels"))
    push_folder(tmp_path / "labels", "me/codes")
    (tmp_path / "labels").rename(tmp_path / "elsewhere")
    card = card_of(hub, "datasets/me/codes")
    own, rows = code_blocks(card, "python")
    assert "LatentLabels.from_hub(dataset)" in own and 'dataset = "me/codes"' in rows
    assert len(execute(own)["labels"]) == len(names["labels"])
    pytest.importorskip("datasets")
    execute_alone(hub, [f"{rows}\nassert len(rows) == {len(names['labels'])}"], tmp_path)


@pytest.fixture
def adapter(hub, square_data, tmp_path) -> Path:
    """What `finetune --lora_rank` leaves of a policy on the Hub and labels there."""
    frames, episodes = np.tile(np.arange(9), 4), np.repeat(np.arange(4), 9)
    columns = {"source": ["squares"] * 36, "episode_index": episodes, "frame_index": frames}
    columns |= {"future_index": frames + 3, "instruction": ["go"] * 36, "codes": np.full((36, 4), 3)}
    write_labels(tmp_path / "codes", columns, 16, 4, "me/tokenizer", {"interval_s": 0.3, "min_interval_s": 0.3})
    push_folder(tmp_path / "codes", "me/codes")
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1"
    run = "--labels me/codes --max_steps 2 --learning_rate 0.01 --save_strategy no --use_cpu --disable_tqdm true"
    data = ["--data", str(square_data), *run.split(), "--output_dir"]
    assert cli.main(["pretrain", *data, str(tmp_path / "pretrained"), *tiny.split()]) == 0
    push_folder(tmp_path / "pretrained", "me/pretrained")
    flags = ["--policy", "me/pretrained", "--lora_rank", "4", "--action_decoder_context", "act"]
    assert cli.main(["finetune", *data, str(tmp_path / "policy"), *flags]) == 0
    return tmp_path / "policy" / "adapter"


def test_an_adapter_acts_as_the_policy_it_is_of(hub, adapter, capsys):
    assert cli.main(["push", str(adapter), "me/adapter"]) == 0
    card = ModelCard(card_of(hub, "me/adapter"))
    assert (card.data.library_name, card.data.base_model) == ("peft", "me/pretrained")
    assert card.data.datasets == ["me/codes"]
    (code,) = code_blocks(card.text, "python")
    assert 'base_model = "me/pretrained"\ncheckpoint = "me/adapter"' in code
    names = execute(code)
    policy = CycleMimicForActionPrediction.from_pretrained(adapter.parent).eval()
    processor = CycleMimicProcessor.from_pretrained(adapter.parent)
    inputs = processor(IMAGE, "go right")
    with torch.no_grad():
        expected = policy.predict_action_chunk(**inputs)
        actions = names["policy"].predict_action_chunk(**names["processor"](IMAGE, "go right"))
        base = names["policy"].unload().predict_action_chunk(**inputs)
    torch.testing.assert_close(actions, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(base, expected, atol=1e-3)
    physical = names["processor"].post_process_actions(actions)
    torch.testing.assert_close(torch.as_tensor(physical), torch.as_tensor(processor.post_process_actions(expected)))


def test_a_base_model_is_named_where_pefts_card_names_it_and_nowhere_else():
    card = "---\nbase_model: policy\ntags:\n- base_model:adapter:policy\n- lora\n---\nA policy adapter of `policy` for policy learning.\n"
    text = publish_card(card, "me/adapter", "me/base", "policy")
    assert "base_model: me/base" in text and "base_model:adapter:me/base" in text
    assert "A policy adapter of `me/base` for policy learning." in text
    path = "/home/me/my policies/base"
    card = f"---\nbase_model: {path}\n---\nAn adapter of {path} (see [{path}]({path}))."
    assert path not in publish_card(card, "me/adapter", "me/base", path)
