# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as parquet
import pytest
import torch
from transformers import GPT2Tokenizer, LlavaForConditionalGeneration, LlavaProcessor, SiglipImageProcessorPil

from cyclemimic import CycleMimicForLatentActionPrediction, CycleMimicProcessor
from cyclemimic.data import LabelledMixture, LatentLabels, encode_video
from cyclemimic.models.cyclemimic import make_tiny_backbone_config

from ..label_files import write_labels


def predict(folder):
    model = CycleMimicForLatentActionPrediction.from_pretrained(folder).eval()
    processor = CycleMimicProcessor.from_pretrained(folder)
    image = np.zeros((32, 32, 3), np.uint8)
    return model.predict_latent_actions(**processor(image, "go right")), model, processor


def test_output_can_be_loaded(pretrained):
    codes, model, processor = predict(pretrained)
    assert codes.shape == (1, 4)
    assert model.config.hidden_size == 32
    assert processor.num_image_tokens == 4


def test_goes_on_from_a_policy(verb, pretrained, square_data, labels, tmp_path):
    output = tmp_path / "output"
    config = tmp_path / "pretrain.yaml"
    config.write_text(
        f"policy: {pretrained}\ndata: [{square_data}]\nlabels: {labels}\nmax_steps: 1\nuse_cpu: true\nimage_shift: 2\n"
        "per_device_train_batch_size: 4\nsave_strategy: 'no'\ndisable_tqdm: true\n"
    )
    assert verb("pretrain", "--config", config, "--output_dir", output) == 0
    assert predict(output)[1].config.hidden_size == 32
    card = (output / "README.md").read_text()
    assert "| squares | 100.00% | 4 | 48 | 10 | square | observation.images.main | 0 | unknown |" in card
    assert "| optimizer | adamw_torch_fused, learning rate 2e-05 (constant), weight decay 0 |" in card
    assert "Latent actions: labels (licence unknown), made by the tokenizer tokenizer at " in card
    assert "above and of pretrained (licence unknown) bind it" in card and str(pretrained.parent) not in card


@pytest.fixture
def backbone(tmp_path):
    """A LLaVA checkpoint with its own processor, which knows nothing of latent actions."""
    own = CycleMimicProcessor.from_texts(["go right"], image_size=32, patch_size=8)
    config = make_tiny_backbone_config(own, 32, 8, hidden_size=32, num_text_layers=1)
    tokenizer = GPT2Tokenizer(vocab={}, merges=[]).train_new_from_iterator(
        ["go right"], vocab_size=400, new_special_tokens=["<pad>", "<image>"], show_progress=False
    )
    tokenizer.pad_token = "<pad>"
    config.text_config.vocab_size = len(tokenizer)
    config.image_token_index = config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
    )
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path / "backbone")
    processor.save_pretrained(tmp_path / "backbone")
    return tmp_path / "backbone"


def test_makes_a_policy_of_a_backbone(verb, backbone, square_data, labels, tmp_path):
    output = tmp_path / "output"
    flags = ["--backbone", backbone, "--data", square_data, "--labels", labels, "--output_dir", output]
    training = "--max_steps 1 --per_device_train_batch_size 4 --use_cpu --save_strategy no --disable_tqdm true"
    assert verb("pretrain", *flags, "--num_act_tokens", "2", *training.split()) == 0
    codes, model, processor = predict(output)
    assert codes.shape == (1, 4)
    assert processor.num_image_tokens == 16
    assert model.config.num_act_tokens == processor.num_act_tokens == len(model.config.act_token_ids) == 2
    assert model.get_input_embeddings().weight.shape[0] >= len(processor.tokenizer)


def test_makes_a_policy_of_a_backbone_with_adapters(verb, backbone, square_data, labels, tmp_path):
    output = tmp_path / "output"
    flags = ["--backbone", backbone, "--data", square_data, "--labels", labels, "--output_dir", output]
    training = "--lora_rank 4 --pad_vocabulary_to 64 --max_steps 1 --per_device_train_batch_size 4 --use_cpu --save_strategy no"
    assert verb("pretrain", *flags, *training.split(), "--disable_tqdm", "true") == 0
    codes, model, processor = predict(output)
    assert codes.shape == (1, 4)
    before = LlavaForConditionalGeneration.from_pretrained(backbone).get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight[: len(before)], before)
    assert len(model.get_input_embeddings().weight) % 64 == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data {data}", "the following arguments are required: --labels"),
        ("--data {data} --labels {labels}", "Exactly one of `policy`, `backbone` and `tiny` must be given, got none"),
        ("--data {data} --labels {labels} --tiny --policy {policy}", "must be given, got ['policy', 'tiny']"),
        ("--data {data} --labels {tmp} --tiny", "holds no labels"),
        (
            "--data {data} --labels {foreign} --tiny",
            "of every data set, got those of ['another'], none of ['squares'].",
        ),
        (
            "--data {data} {other} --labels {labels} --policy {policy}",
            "got those of ['squares'], none of ['circles'].",
        ),
        ("--data {data} --labels {foreign} --policy {policy}", "`labels` must be of 4 tokens out of 16"),
        ("--data {data} --labels {labels} --policy {tokenizer}", "must be a checkpoint of model type cyclemimic"),
        ("--data {data} --labels {labels} --backbone {tmp}", "`backbone` must be a checkpoint folder or a Hub id"),
        (
            "--data {data} --labels {labels} --tiny --pad_vocabulary_to 64",
            "must be at least 1 and come with `backbone`",
        ),
        (
            "--data {data} --labels {labels} --backbone {tmp} --pad_vocabulary_to 0",
            "`pad_vocabulary_to` must be at least",
        ),
        (
            "--data {data} --labels {labels} --policy {policy} --tiny_hidden_size 64",
            "`tiny_hidden_size` must be left out without `tiny`, got 64",
        ),
        (
            "--data {data} --labels {labels} --policy {policy} --num_act_tokens 2",
            "`num_act_tokens` must be left out with `policy`, which has its own, got 2",
        ),
        ("--data {data} --labels {labels} --tiny --num_act_tokens 0", "`num_act_tokens` must be at least 1, got 0"),
        ("--data {data} --labels {labels} --tiny --tiny_hidden_size 33", "`hidden_size` must be a multiple of 32"),
        ("--data {data} --labels {labels} --tiny --image_shift -1", "`image_shift` must be at least 0"),
    ],
)
def test_bad_input(refuses, square_data, tokenizer, labels, pretrained, tmp_path, flags, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    foreign = tmp_path / "foreign"
    row = {"episode_index": [0], "frame_index": [0], "future_index": [3], "instruction": ["go"], "codes": [[1, 2]]}
    write_labels(foreign, {"source": ["another"], **row}, codebook_size=8, num_latent_tokens=2, tokenizer="t")
    names = {"data": square_data, "tmp": empty, "tokenizer": tokenizer, "labels": labels, "policy": pretrained}
    names["other"] = shutil.copytree(square_data, tmp_path / "circles")
    given = flags.format(foreign=foreign, **names).split()
    output = tmp_path / "output"
    assert message in refuses("pretrain", "--use_cpu", "--output_dir", output, *given)
    assert not output.exists()


def test_a_mixture_with_its_labels(verb, square_data, tokenizer, tmp_path):
    mixture, silent = tmp_path / "mixture.yaml", tmp_path / "silent.mp4"
    encode_video(silent, np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8), fps=10)
    own = f"{{path: {square_data}, weight: 2, name: squares, interval_s: 0.2}}"
    mixture.write_text(f"sources: [{own}, {{path: {silent}, weight: 8, name: silent}}]")
    flags = ["--tokenizer", tokenizer, "--data", mixture, "--output", tmp_path / "labels", "--device", "cpu"]
    assert verb("label", *flags, "--interval_s", 0.3, "--min_interval_s", 0.2) == 0
    labels = LatentLabels.from_folder(tmp_path / "labels")
    assert {name for name, _ in labels.episodes} == {"squares", "silent"}

    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1".split()
    training = "--max_steps 2 --per_device_train_batch_size 4 --use_cpu --save_strategy no --disable_tqdm true".split()
    flags = ["--data", mixture, "--labels", tmp_path / "labels", *tiny, "--output_dir", tmp_path / "policy"]
    assert verb("pretrain", *flags, *training) == 0
    assert predict(tmp_path / "policy")[0].shape == (1, 4)


def test_episodes_of_a_mixture_without_labels_are_not_learnt_from(
    verb, refuses, square_data, tokenizer, tmp_path, caplog
):
    part, whole = tmp_path / "part.yaml", tmp_path / "whole.yaml"
    own = f"path: {square_data}, weight: 2, name: squares"
    part.write_text(f"sources: [{{{own}, last_episode: 2}}]")
    whole.write_text(f"sources: [{{{own}}}]")
    flags = ["--tokenizer", tokenizer, "--data", part, "--output", tmp_path / "labels", "--device", "cpu"]
    assert verb("label", *flags, "--interval_s", 0.3, "--min_interval_s", 0.2) == 0
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1".split()
    training = "--max_steps 2 --per_device_train_batch_size 4 --use_cpu --save_strategy no --disable_tqdm true".split()
    flags = ["--data", whole, "--labels", tmp_path / "labels", *tiny, "--output_dir", tmp_path / "policy"]
    assert verb("pretrain", *flags, *training) == 0
    assert "squares: 1 of 4 episodes have no labels, and are not learnt from" in caplog.text
    whole.write_text(f"sources: [{{{own}, last_episode: 2}}, {{{own}, first_episode: 3}}]")
    flags[-1] = tmp_path / "other"
    assert "`labels` must be of every data set, got those of ['squares'], none of ['squares']" in refuses(
        "pretrain", *flags, *training
    )


def test_data_larger_than_memory_is_decoded_as_it_goes(verb, square_data, tokenizer, monkeypatch, tmp_path):
    """Of its episodes, the last has no label, and is not learnt from."""
    labels, learnt = tmp_path / "labels", []
    flags = ["--tokenizer", tokenizer, "--data", square_data, "--output", labels, "--device", "cpu"]
    assert verb("label", *flags, "--interval_s", 0.3, "--min_interval_s", 0.2) == 0
    (shard,) = labels.glob("*.parquet")
    table = parquet.read_table(shard)
    last = pc.max(table["episode_index"])
    parquet.write_table(table.filter(pc.less(table["episode_index"], last)), shard)

    def note(self, pairs, labels):
        learnt.append({episode.index for episode, _ in pairs.episodes})
        make(self, pairs, labels)

    make = LabelledMixture.__init__
    monkeypatch.setattr(LabelledMixture, "__init__", note)
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1".split()
    training = "--max_steps 2 --per_device_train_batch_size 4 --use_cpu --save_strategy no --disable_tqdm true".split()
    flags = ["--data", square_data, "--labels", labels, *tiny, *training]
    assert verb("pretrain", *flags, "--output_dir", tmp_path / "from_memory") == 0 and not learnt
    monkeypatch.setattr("cyclemimic.data.frame_store.MAX_BYTES", 1000)
    assert verb("pretrain", *flags, "--output_dir", tmp_path / "streamed") == 0
    assert learnt == [set(range(last.as_py()))]
    assert predict(tmp_path / "streamed")[0].shape == (1, 4)
    # Of labels of some frames only, these are picked one by one, as from memory.
    table = parquet.read_table(shard)
    parquet.write_table(table.filter(pc.greater(table["frame_index"], 0)), shard)
    assert verb("pretrain", *flags, "--output_dir", tmp_path / "some_frames") == 0 and len(learnt) == 1


def test_video_files_with_a_table_of_texts(verb, tokenizer, tmp_path):
    data, labels, output = tmp_path / "films", tmp_path / "labels", tmp_path / "policy"
    data.mkdir()
    encode_video(data / "a.mp4", np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8), fps=10)
    (data / "clips.csv").write_text("file,text,start_s,end_s\na.mp4,go left,0,1\na.mp4,go right,1,2\n")
    flags = ["--tokenizer", tokenizer, "--data", data, "--output", labels, "--device", "cpu"]
    assert verb("label", *flags, "--interval_s", 0.3, "--min_interval_s", 0.2) == 0
    assert set(LatentLabels.from_folder(labels).episodes) == {("films", 0), ("films", 1)}

    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1".split()
    training = "--max_steps 1 --per_device_train_batch_size 4 --use_cpu --save_strategy no --disable_tqdm true".split()
    assert verb("pretrain", "--data", data, "--labels", labels, *tiny, "--output_dir", output, *training) == 0
    assert predict(output)[0].shape == (1, 4)
