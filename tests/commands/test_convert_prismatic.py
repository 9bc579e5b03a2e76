# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic import CycleMimicForLatentActionPrediction, PrismaticForConditionalGeneration
from cyclemimic.models.cyclemimic import convert_prismatic_to_hf

from ..models.cyclemimic.prismatic_checkpoints import VISION, openvla_weights, save_openvla


@pytest.fixture(autouse=True)
def _tiny_towers(monkeypatch):
    monkeypatch.setitem(convert_prismatic_to_hf.VISION_BACKBONES, "tiny", VISION)


@pytest.fixture
def checkpoint(tmp_path):
    weights = {name: value.float() for name, value in openvla_weights().items()}
    return save_openvla(tmp_path / "openvla", weights)


def test_converted_backbone_is_pretrained(verb, checkpoint, square_data, labels, tmp_path, capsys):
    backbone, output = tmp_path / "backbone", tmp_path / "output"
    assert verb("convert-prismatic", "--checkpoint", checkpoint, "--output", backbone) == 0
    printed = capsys.readouterr().out
    assert f"Saved: {backbone}; left out, because nothing reads it: vision_backbone.featurizer.blocks.2" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backbone", "openvla"]
    flags = ["--backbone", backbone, "--data", square_data, "--labels", labels, "--output_dir", output]
    training = "--max_steps 1 --per_device_train_batch_size 4 --use_cpu --save_strategy no --disable_tqdm true"
    assert verb("pretrain", *flags, *training.split()) == 0
    policy = CycleMimicForLatentActionPrediction.from_pretrained(output)
    assert policy.config.backbone_config.model_type == "prismatic"
    assert policy.config.num_image_tokens == 4


def test_nothing_is_left_of_a_conversion_that_failed(verb, refuses, checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "backbone"
    line = refuses("convert-prismatic", "--checkpoint", tmp_path / "absent", "--output", output)
    assert "absent/config.json: must be a JSON file of the checkpoint" in line
    (tmp_path / "taken").mkdir()
    line = refuses("convert-prismatic", "--checkpoint", checkpoint, "--output", tmp_path / "taken")
    assert "exists already" in line

    def fail(self, *arguments, **keywords):
        raise OSError("the disk went away")

    monkeypatch.setattr(PrismaticForConditionalGeneration, "save_pretrained", fail)
    line = refuses("convert-prismatic", "--checkpoint", checkpoint, "--output", output)
    assert "the disk went away" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["openvla", "taken"]
