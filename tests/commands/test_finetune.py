# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor


def act(folder):
    model = CycleMimicForActionPrediction.from_pretrained(folder).eval()
    processor = CycleMimicProcessor.from_pretrained(folder)
    chunk = model.predict_action_chunk(**processor(np.zeros((32, 32, 3), np.uint8), "go right"))
    return processor.post_process_actions(chunk), processor


def test_output_can_be_loaded_and_acts(policy):
    actions, processor = act(policy)
    assert actions.shape == (1, 3, 4)  # 0.3 s at 10 actions a second
    assert list(processor.action_statistics) == ["squares"]
    assert processor.action_statistics["squares"]["mask"] == [True, True, True, False]
    assert processor.action_statistics["squares"]["fps"] == 10


def test_labels_by_itself_and_goes_on_from_a_finetuned_policy(verb, policy, tokenizer, square_data, tmp_path):
    flags = ["--policy", policy, "--data", square_data, "--tokenizer", tokenizer, "--dataset_name", "again"]
    training = "--num_episodes 2 --interval_s 0.3 --min_interval_s 0.2 --max_steps 1 --per_device_train_batch_size 4 --use_cpu"
    quiet = "--save_strategy no --disable_tqdm true --output_dir"
    output = tmp_path / "output"
    assert verb("finetune", *flags, *training.split(), *quiet.split(), output) == 0
    assert sorted(CycleMimicProcessor.from_pretrained(output).action_statistics) == ["again", "squares"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]


def test_decoder_without_image_states(verb, pretrained, labels, square_data, tmp_path):
    flags = ["--policy", pretrained, "--data", square_data, "--labels", labels, "--output_dir", tmp_path / "output"]
    training = "--action_decoder_context act --backbone_learning_rate 1e-4 --max_steps 1 --use_cpu --save_strategy no"
    assert verb("finetune", *flags, *training.split(), "--disable_tqdm", "true") == 0
    model = CycleMimicForActionPrediction.from_pretrained(tmp_path / "output")
    assert model.config.action_decoder_context == "act" and not model.action_decoder.reads_image


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data {data} --labels {labels}", "the following arguments are required: --policy"),
        ("--policy {pretrained} --data {data}", "Exactly one of `labels` and `tokenizer` must be given"),
        ("--policy {pretrained} --data {data} --labels {labels} --tokenizer {tokenizer}", "got both or neither"),
        ("--policy {tokenizer} --data {data} --labels {labels}", "must be a checkpoint of model type cyclemimic"),
        ("--policy {pretrained} --data {data} --tokenizer {pretrained}", "model type latent_action_tokenizer"),
        ("--policy {pretrained} --data {data} --labels {labels} --chunk_size 0", "`chunk_size` must be"),
        (
            "--policy {policy} --data {data} --labels {labels} --chunk_size 5",
            "got {{'chunk_size': 3, 'action_dim': 4}}",
        ),
        ("--policy {policy} --data {data} --labels {labels} --action_decoder_context act", "got {{'chunk_size': 3"),
        (
            "--policy {pretrained} --data {data} --labels {labels} --action_decoder_context all",
            "action_decoder_context",
        ),
    ],
)
def test_bad_input(refuses, square_data, tokenizer, labels, pretrained, policy, tmp_path, flags, message):
    names = {"data": square_data, "tokenizer": tokenizer, "labels": labels, "pretrained": pretrained, "policy": policy}
    output = tmp_path / "output"
    assert message.format() in refuses("finetune", "--use_cpu", "--output_dir", output, *flags.format(**names).split())
    assert list(tmp_path.iterdir()) == []
