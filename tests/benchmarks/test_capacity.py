# SPDX-License-Identifier: Apache-2.0
"""What a training step takes beside what is computed, of a tiny tokenizer and a tiny policy."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from cyclemimic import CycleMimicProcessor, LatentActionTokenizerConfig
from cyclemimic.models.cyclemimic import make_tiny_backbone_config

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "capacity"
LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_discriminator_layers": 1}
SIZES = {"image_size": 32, "patch_size": 8, "hidden_size": 32}


@pytest.mark.parametrize("flags", [[], ["--gradient_checkpointing", "--peak", "0.1"]])
def test_a_row_each_for_tokenizer_and_policy(capsys, tmp_path, flags):
    tokenizer = LatentActionTokenizerConfig(vision_config=None, num_attention_heads=2, **SIZES, **LAYERS)
    processor = CycleMimicProcessor.from_texts(["reach"], image_size=32, patch_size=8)
    backbone = make_tiny_backbone_config(processor, **SIZES)
    policy = processor.make_config(backbone, action_decoder_hidden_size=32)
    for name, config in (("tokenizer", tokenizer), ("policy", policy)):
        config.save_pretrained(tmp_path / name)
    models = [str(tmp_path / name) for name in ("tokenizer", "policy")]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        measure = importlib.import_module("measure")
        argv = ["measure.py", "--model", *models, "--device", "cpu", "--batch_size", "4", "--rounds", "1", *flags]
        patch.setattr(sys, "argv", argv)
        measure.main()
    sys.modules.pop("measure", None)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[0] for row in rows] == [f"| {model}" for model in models]
    for row in rows:
        assert row[2] == "–" and float(row[4]) > 0 and ("%" in row[5]) == bool(flags)
