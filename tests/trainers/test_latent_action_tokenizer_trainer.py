# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel, LatentActionTokenizerTrainer
from cyclemimic.data import (
    FramePairDataset,
    LatentActionTokenizerCollator,
    MixtureDataset,
    PairAugmentation,
    WeightedSource,
)

from .small_trainers import make_policy_trainer, make_sources, make_tokenizer_trainer


def test_a_run_logs_every_term_and_saves_what_loads(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path)
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
    pairs = trainer.train_dataset
    assert (tokenizer.config.interval_s, tokenizer.config.min_interval_s) == (pairs.interval_s, pairs.min_interval_s)
    assert (
        f"| pairs | {pairs.interval_s:g} s apart, at an episode's end" in (tmp_path / "last" / "README.md").read_text()
    )
    assert torch.equal(tokenizer.quantizer.codebook, trainer.model.tokenizer.quantizer.codebook)
    assert LatentActionTokenizerImageProcessor.from_pretrained(tmp_path / "last").size == 16


@pytest.mark.parametrize("vision", ["patches", "dinov2"])
def test_resumed_equals_uninterrupted(vision, tmp_path):
    dinov2 = {"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    # The same schedule of the learning rate, constant, for a run of four steps and one that stops after two.
    changes = {"lr_scheduler_type": "constant", "vision_config": dinov2 if vision == "dinov2" else None}
    whole = make_tokenizer_trainer(tmp_path / "whole", **changes)
    whole.train()
    make_tokenizer_trainer(tmp_path / "parts", max_steps=2, **changes).train()
    resumed = make_tokenizer_trainer(tmp_path / "parts", **changes)
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


@pytest.mark.parametrize(
    "start, weight, warned",
    [(0.0, 0.1, True), (1.0, 0.1, False), (0.0, 0.0, False)],
    ids=["absent", "joined", "genie"],
)
def test_ac3_that_never_joined_is_warned_of(start, weight, warned, tmp_path, caplog):
    trainer = make_tokenizer_trainer(tmp_path)
    config = trainer.model.config
    config.cycle_start_copy_ratio, config.cycle_weight, config.adversarial_weight = start, weight, weight
    trainer.model.restart_ac3()
    trainer.train()
    assert ("AC3 never joined: the copy ratio was" in caplog.text) == warned


def test_ac3_that_was_about_to_join_is_warned_of(tmp_path, caplog):
    """The copy ratio is low enough; the next look at it would come after the last step."""
    trainer = make_tokenizer_trainer(tmp_path)
    model = trainer.model
    model.config.cycle_start_copy_ratio = 0.9999
    model.restart_ac3()
    model.mean_copy_ratio.fill_(0.5)
    model.steps.fill_(21)
    trainer.train()
    assert 0 < model.ac3_steps < 19
    assert "AC3 never joined: the copy ratio was" in caplog.text
    assert all(line["ac3_scale"] == 0 for line in trainer.state.log_history if "loss" in line)


def test_one_pair_in_all_is_refused(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path)
    one = torch.utils.data.Subset(trainer.train_dataset, range(1))
    same = {name: getattr(trainer, name) for name in ("model", "args", "data_collator", "processing_class")}
    with pytest.raises(ValueError, match="`train_dataset` must have at least 2 pairs, got 1"):
        LatentActionTokenizerTrainer(train_dataset=one, **same)


def test_without_an_image_processor_nothing_is_drawn(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path)
    pairs = [trainer.data_collator([trainer.train_dataset[index] for index in range(4)])]
    model, arguments = trainer.model, trainer.args
    arguments.sample_steps = 1
    items = [{name: values[row] for name, values in pairs[0].items()} for row in range(4)]
    bare = LatentActionTokenizerTrainer(model=model, args=arguments, train_dataset=items)
    bare.train()
    assert bare.state.global_step == arguments.max_steps and not (tmp_path / "samples").exists()


def parts_of(trainer):
    return {name: getattr(trainer, name) for name in ("model", "args", "train_dataset", "processing_class")}


def test_the_collator_follows_from_the_arguments(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path, min_crop=0.5, color_jitter=0.2)
    parts = parts_of(trainer)
    made = LatentActionTokenizerTrainer(**parts)
    assert made.data_collator == trainer.data_collator
    assert made.data_collator.augmentation == PairAugmentation(0.5, 0.5, 0.2)
    made.train()
    parts["train_dataset"] = torch.utils.data.Subset(parts["train_dataset"], range(8))
    part = LatentActionTokenizerTrainer(**parts)
    assert part.data_collator == trainer.data_collator
    part.model.config.interval_s = None
    part.train()
    assert part.model.config.interval_s == trainer.args.interval_s


def test_an_augmentation_that_the_collator_does_not_have_is_refused(tmp_path):
    parts = parts_of(make_tokenizer_trainer(tmp_path))
    collator = LatentActionTokenizerCollator(parts["processing_class"])
    with pytest.raises(ValueError, match="`data_collator` must have the augmentation that `args` ask for, PairAug"):
        LatentActionTokenizerTrainer(**parts, data_collator=collator)
    parts["args"].reversed_share = 0.0
    collator = LatentActionTokenizerCollator(parts["processing_class"], PairAugmentation(min_crop=0.5))
    assert LatentActionTokenizerTrainer(**parts, data_collator=collator).data_collator is collator


def test_a_mixture_is_read_in_its_own_order(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path)
    parts = parts_of(trainer)
    assert list(trainer._get_train_sampler()) != list(range(len(trainer.train_dataset)))
    sources = [WeightedSource(source, 1.0, 0.3, 0.1) for source in make_sources()]
    mixture = MixtureDataset(sources, parts["processing_class"].resize_frames, batch_size=4)
    made = LatentActionTokenizerTrainer(**parts | {"train_dataset": mixture})
    assert list(made._get_train_sampler()) == list(range(len(mixture)))


def test_a_part_of_a_mixture_is_refused(tmp_path):
    parts = parts_of(make_tokenizer_trainer(tmp_path))
    mixture = MixtureDataset([WeightedSource(source, 1.0, 0.3, 0.1) for source in make_sources()])
    with pytest.raises(
        ValueError, match="`train_dataset` must be a whole mixture, got a Subset of a Mix.*`last_episode`"
    ):
        LatentActionTokenizerTrainer(**parts | {"train_dataset": torch.utils.data.Subset(mixture, range(8))})
    # An evaluation reads from first to last.
    LatentActionTokenizerTrainer(**parts, eval_dataset=torch.utils.data.Subset(mixture, range(8)))


def test_intervals_that_the_data_set_does_not_have_are_refused(tmp_path):
    parts = parts_of(make_tokenizer_trainer(tmp_path))
    for times, name, wanted in (((0.2, 0.1), "interval_s", 0.3), ((0.3, 0.2), "min_interval_s", 0.1)):
        pairs = FramePairDataset(make_sources(), *times)
        for given in (pairs, torch.utils.data.Subset(pairs, range(8))):
            with pytest.raises(ValueError, match=f"must have the `{name}` that `args` ask for, {wanted}, got 0.2"):
                LatentActionTokenizerTrainer(**parts | {"train_dataset": given})
    parts["args"].interval_s, parts["args"].min_interval_s = 1.0, 0.5
    made = LatentActionTokenizerTrainer(**parts)
    made.train()
    assert (made.model.config.interval_s, made.model.config.min_interval_s) == (0.3, 0.1)


def test_what_makes_no_batches_or_has_not_its_losses_is_refused(tmp_path):
    trainer, policy = make_tokenizer_trainer(tmp_path), make_policy_trainer(tmp_path)
    parts = parts_of(trainer)
    allowed = "must be a FramePairDataset or MixtureDataset, or come with a `data_collator`, got Demonstr"
    for changes, message in (
        (
            {"model": trainer.model.tokenizer},
            "`model` must be a LatentActionTokenizerForPreTraining, got LatentActionT",
        ),
        (
            {"model": policy.model},
            "`model` must be a LatentActionTokenizerForPreTraining, got CycleMimicForActionPred",
        ),
        ({"train_dataset": policy.train_dataset}, f"`train_dataset` {allowed}"),
        (
            {"processing_class": None},
            "`processing_class` must be given where `train_dataset` is a FramePair.*, got None",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            LatentActionTokenizerTrainer(**parts | changes)


def test_words_do_not_decay(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path, weight_decay=0.1)
    optimizer, quantizer = trainer.create_optimizer(), trainer.model.tokenizer.quantizer
    decay = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert decay[quantizer.codebook] == 0 and decay[trainer.model.tokenizer.encoder.projection.weight] == 0.1
    assert len(decay) == len(list(trainer.model.parameters()))
