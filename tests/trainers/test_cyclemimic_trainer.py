# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import IJepaConfig, LlamaConfig, LlavaConfig, PreTrainedConfig, set_seed

from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    CycleMimicTrainer,
    CycleMimicTrainingArguments,
)
from cyclemimic.data import CycleMimicCollator, DemonstrationDataset, LatentLabels, compute_action_statistics


@pytest.fixture
def labels(sources) -> LatentLabels:
    rows = [(source.name, episode.index, frame) for source in sources for episode in source for frame in range(6)]
    names, episodes, frames = zip(*rows)
    codes = np.random.default_rng(0).integers(0, 16, (len(rows), 4))
    columns = {"source": names, "episode_index": episodes, "frame_index": frames, "codes": codes}
    return LatentLabels(
        columns | {"future_index": np.array(frames) + 2}, {"codebook_size": 16, "num_latent_tokens": 4}
    )


def make_backbone_config(processor: CycleMimicProcessor) -> PreTrainedConfig:
    """A backbone whose weights transformers saves under other names than the model's."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return LlavaConfig(
        vision_config=IJepaConfig(image_size=16, patch_size=8, **sizes),
        text_config=LlamaConfig(vocab_size=len(processor.tokenizer), **sizes),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


@pytest.fixture
def make_trainer(sources, labels, small_run):
    def make(output_dir, finetunes: bool, **changes) -> CycleMimicTrainer:
        arguments = CycleMimicTrainingArguments(**small_run(output_dir, learning_rate=1e-3, image_shift=2) | changes)
        set_seed(arguments.seed)
        processor = CycleMimicProcessor.from_texts(
            ["task 0", "task 1"], image_size=16, patch_size=8, chunk_size=3, action_dim=2
        )
        processor.add_action_statistics("arm", compute_action_statistics(sources[:1]))
        backbone = make_backbone_config(processor)
        config = processor.make_config(backbone, action_decoder_hidden_size=16, action_decoder_num_heads=2)
        kind = CycleMimicForActionPrediction if finetunes else CycleMimicForLatentActionPrediction
        frames = DemonstrationDataset(
            sources[:1] if finetunes else sources,
            labels,
            chunk_size=3 if finetunes else None,
            transform=processor.resize_images,
        )
        return CycleMimicTrainer(
            model=kind(config),
            args=arguments,
            train_dataset=frames,
            eval_dataset=torch.utils.data.Subset(frames, range(4)),
            data_collator=CycleMimicCollator(processor, "arm" if finetunes else None, arguments.image_shift),
            processing_class=processor,
        )

    return make


@pytest.mark.parametrize("finetunes", [False, True])
def test_a_run_logs_every_term_and_saves_what_loads(finetunes, make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, finetunes)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert len(lines) == 2
    for line in lines:
        assert ("latent_action_loss" in line, "action_loss" in line) == (finetunes, finetunes)
        if finetunes:
            assert line["loss"] == pytest.approx(line["latent_action_loss"] + line["action_loss"], abs=1e-3)
        positions = [line[f"latent_token_accuracy_{position}"] for position in range(4)]
        assert line["latent_token_accuracy"] == pytest.approx(np.mean(positions), abs=1e-5)
        assert 0 <= line["latent_action_accuracy"] <= min(positions)
    assert 0 < trainer.evaluate()["eval_loss"] < 20

    trainer.save_model(str(tmp_path / "last"))
    reloaded = type(trainer.model).from_pretrained(tmp_path / "last")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, reloaded.state_dict()[name]), name
    assert CycleMimicProcessor.from_pretrained(tmp_path / "last").chunk_size == 3


def test_backbone_learning_rate(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, True, backbone_learning_rate=1e-4, weight_decay=0.1)
    optimizer = trainer.create_optimizer()
    names = {parameter: name for name, parameter in trainer.model.named_parameters()}
    seen = []
    for group in optimizer.param_groups:
        of_backbone = {names[parameter].startswith("backbone.") for parameter in group["params"]}
        assert of_backbone == {group["lr"] == 1e-4} and group["lr"] in (1e-4, 1e-3)
        assert group["weight_decay"] in (0.0, 0.1)
        seen += [names[parameter] for parameter in group["params"]]
    assert sorted(seen) == sorted(names.values())
    assert trainer.create_optimizer() is optimizer and len(optimizer.param_groups) == 4


def test_backbone_stays_where_its_learning_rate_is_zero(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, True, backbone_learning_rate=0.0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == (not name.startswith("action_decoder.")), name


@pytest.mark.parametrize("finetunes", [False, True])
def test_resumed_equals_uninterrupted(finetunes, make_trainer, tmp_path):
    # The schedule of the learning rate is constant: the same for a run of four steps and one that stops after two.
    whole = make_trainer(tmp_path / "whole", finetunes)
    whole.train()
    make_trainer(tmp_path / "parts", finetunes, max_steps=2).train()
    resumed = make_trainer(tmp_path / "parts", finetunes)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    expected, actual = whole.model.state_dict(), resumed.model.state_dict()
    assert [name for name in expected if not torch.equal(expected[name], actual[name])] == []
    assert whole.state.log_history[-2]["loss"] == resumed.state.log_history[-2]["loss"]
