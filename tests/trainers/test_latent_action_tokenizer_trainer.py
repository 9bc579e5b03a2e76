# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from transformers import set_seed

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
    LatentActionTokenizerTrainer,
    LatentActionTokenizerTrainingArguments,
)
from cyclemimic.data import FramePairDataset, LatentActionTokenizerCollator


@pytest.fixture
def make_trainer(sources, small_run):
    def make(output_dir, vision_config=None, **changes) -> LatentActionTokenizerTrainer:
        arguments = LatentActionTokenizerTrainingArguments(
            **small_run(output_dir, learning_rate=1e-3, interval_s=0.3, min_interval_s=0.1, reversed_share=0.5)
            | changes
        )
        set_seed(arguments.seed)
        image_processor = LatentActionTokenizerImageProcessor(size=16)
        config = LatentActionTokenizerConfig(
            image_size=16,
            patch_size=8,
            vision_config=vision_config,
            hidden_size=16,
            num_attention_heads=2,
            num_encoder_layers=1,
            num_decoder_layers=1,
            num_discriminator_layers=1,
            codebook_dim=4,
            buffer_batches=2,
            buffer_batch_size=4,
            dead_code_steps=2,
        )
        model = LatentActionTokenizerForPreTraining(config)
        # As far on as if AC3 had just begun: it joins with the first step.
        model.steps.fill_(20)
        model.ac3_steps.fill_(1)
        model.buffer.add(torch.randint(16, (4, 4)), torch.arange(4) % 2)
        pairs = FramePairDataset(
            sources, arguments.interval_s, arguments.min_interval_s, transform=image_processor.resize_frames
        )
        return LatentActionTokenizerTrainer(
            model=model,
            args=arguments,
            train_dataset=pairs,
            eval_dataset=torch.utils.data.Subset(pairs, range(4)),
            data_collator=LatentActionTokenizerCollator(image_processor, arguments.augmentation),
            processing_class=image_processor,
        )

    return make


def test_a_run_logs_every_term_and_saves_what_loads(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert line.keys() >= set(LatentActionTokenizerTrainer.logged_terms)
        assert line["cycle_loss"] > 0 and line["discriminator_loss"] > 0 and line["ac3_scale"] > 0
        assert 1 <= line["codebook_perplexity"] <= 16
    after = trainer.model.state_dict()
    same = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert not [name for name in same if name.endswith(("weight", "codebook", "codes", "steps", "copy_ratio"))]
    assert 0 < trainer.evaluate()["eval_loss"] < 20

    trainer.save_model(str(tmp_path / "last"))
    tokenizer = LatentActionTokenizerModel.from_pretrained(tmp_path / "last")
    assert torch.equal(tokenizer.quantizer.codebook, trainer.model.tokenizer.quantizer.codebook)
    assert LatentActionTokenizerImageProcessor.from_pretrained(tmp_path / "last").size == 16


@pytest.mark.parametrize("vision", ["patches", "dinov2"])
def test_resumed_equals_uninterrupted(vision, make_trainer, tmp_path):
    dinov2 = {"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    # The same schedule of the learning rate, constant, for a run of four steps and one that stops after two.
    changes = {"lr_scheduler_type": "constant", "vision_config": dinov2 if vision == "dinov2" else None}
    whole = make_trainer(tmp_path / "whole", **changes)
    whole.train()
    make_trainer(tmp_path / "parts", max_steps=2, **changes).train()
    resumed = make_trainer(tmp_path / "parts", **changes)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    expected, actual = whole.model.state_dict(), resumed.model.state_dict()
    assert {"buffer.codes", "buffer.embodiment_ids", "steps", "ac3_steps", "mean_copy_ratio"} < expected.keys()
    assert "tokenizer.quantizer.idle_steps" in expected and expected["steps"] == 24
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    terms = [
        {key: value for key, value in trainer.state.log_history[-2].items() if key in trainer.logged_terms}
        for trainer in (whole, resumed)
    ]
    assert terms[0] == terms[1] and terms[0]["cycle_loss"] > 0
