# SPDX-License-Identifier: Apache-2.0
"""Verbs that load a model beside what they train, where ZeRO-3 shares out the weights of all that is loaded."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import Dinov2Config, Dinov2Model

from cyclemimic import CycleMimicForActionPrediction, LatentActionTokenizerModel

from ..trainers.test_parity import free_port
from . import zero3_run
from .conftest import INTERVAL, TRAINING

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed: pip install '.[deepspeed]'"
)


@pytest.fixture
def train(tmp_path):
    """Runs a verb in a process of its own."""

    def run(verb: str, *flags: str | Path) -> Path:
        rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "CUDA_VISIBLE_DEVICES": ""}
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        output = tmp_path / "output"
        command = [verb, *flags, "--output_dir", output, *TRAINING]
        ended = subprocess.run(
            [sys.executable, zero3_run.__file__, tmp_path / "deepspeed.json", *command],
            env=os.environ | rank | address,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stderr[-4000:]
        return output

    return run


def test_a_tokenizer_of_a_vision_model(train, square_data, tmp_path):
    shape = {"image_size": 28, "patch_size": 7, "num_hidden_layers": 1}
    vision_model = Dinov2Model(Dinov2Config(hidden_size=32, num_attention_heads=2, **shape))
    vision_model.save_pretrained(tmp_path / "vision")
    fields = {"image_size": 28, "hidden_size": 32, "num_attention_heads": 2, "codebook_dim": 8}
    layers = dict.fromkeys(("num_encoder_layers", "num_decoder_layers", "num_discriminator_layers"), 1)
    config = ["--tokenizer_config", json.dumps(fields | layers)]
    output = train("train-tokenizer", "--data", square_data, "--vision_model", tmp_path / "vision", *config, *INTERVAL)
    trained = LatentActionTokenizerModel.from_pretrained(output).vision_features.vision_model
    for name, value in vision_model.state_dict().items():
        assert torch.equal(trained.state_dict()[name], value), name


def test_labels_by_a_tokenizer(train, square_data, tokenizer, pretrained):
    output = train("finetune", "--policy", pretrained, "--data", square_data, "--tokenizer", tokenizer, *INTERVAL)
    before = CycleMimicForActionPrediction.from_pretrained(pretrained).backbone.state_dict()
    after = CycleMimicForActionPrediction.from_pretrained(output).backbone.state_dict()
    assert {name: value.shape for name, value in after.items()} == {
        name: value.shape for name, value in before.items()
    }
    assert any(not torch.equal(value, before[name]) for name, value in after.items())
