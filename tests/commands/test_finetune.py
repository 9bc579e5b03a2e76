# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cyclemimic import CycleMimicForActionPrediction, CycleMimicForLatentActionPrediction, CycleMimicProcessor
from cyclemimic.commands.finetune import FinetuneArguments, choose_chunk_size
from cyclemimic.data import (
    LatentLabels,
    LeRobotWriter,
    compute_action_statistics,
    compute_state_statistics,
    open_source,
)
from cyclemimic.models.cyclemimic.action_bins_cyclemimic import bin_centres, to_bins
from cyclemimic.policies import load_for_actions

from .conftest import TRAINING, run_verb


@pytest.fixture(scope="module")
def slow_data(tmp_path_factory) -> Path:
    """As `square_data`, at half its frame rate and with actions ten times as large."""
    root = tmp_path_factory.mktemp("data") / "slow"
    random = np.random.default_rng(1)
    with LeRobotWriter(root, 5, "square", ["x", "y", "z", "gripper"]) as writer:
        for _ in range(4):
            frames = random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
            writer.add_episode(frames, random.normal(0, 1, (12, 4)), "go left")
    return root


BRIDGE = Path(__file__).resolve().parents[3] / "shared" / "data" / "bridge_rlds" / "bridge_dataset"


@pytest.fixture(scope="module")
def wide_data(tmp_path_factory) -> Path:
    """One episode with actions of size 5, at 10 fps."""
    root = tmp_path_factory.mktemp("data") / "wide"
    with LeRobotWriter(root, 10, "square", list("abcde")) as writer:
        writer.add_episode(np.zeros((12, 32, 32, 3), np.uint8), np.zeros((12, 5)), "go left")
    return root


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


def test_labels_are_made_once_of_a_training_that_goes_on(
    verb, pretrained, tokenizer, square_data, tmp_path, monkeypatch
):
    flags = [
        "--policy",
        pretrained,
        "--data",
        square_data,
        "--tokenizer",
        tokenizer,
        "--output_dir",
        tmp_path / "output",
    ]
    training = "--interval_s 0.3 --min_interval_s 0.2 --save_steps 1 --per_device_train_batch_size 4 --use_cpu".split()
    assert verb("finetune", *flags, *training, "--max_steps", "1") == 0
    monkeypatch.setattr("cyclemimic.labeling._encode_episode", lambda *_: pytest.fail("labelled again"))
    assert verb("finetune", *flags, *training, "--max_steps", "2", "--resume_from_checkpoint", "true") == 0
    assert len(LatentLabels.from_folder(tmp_path / "output" / "labels")) == 40


def test_a_tokenizer_says_how_far_apart_the_pairs_of_its_labels_are(
    verb, pretrained, tokenizer, square_data, tmp_path
):
    config = json.loads((tokenizer / "config.json").read_text()) | {"interval_s": 0.3, "min_interval_s": 0.2}
    trained = shutil.copytree(tokenizer, tmp_path / "trained")
    (trained / "config.json").write_text(json.dumps(config))
    output = tmp_path / "output"
    flags = ["--policy", pretrained, "--data", square_data, "--tokenizer", trained, "--output_dir", output]
    training = "--max_steps 1 --per_device_train_batch_size 4 --use_cpu --save_strategy no --disable_tqdm true"
    assert verb("finetune", *flags, *training.split()) == 0
    assert LatentLabels.from_folder(output / "labels").metadata["interval_s"] == 0.3
    assert CycleMimicProcessor.from_pretrained(output).chunk_size == 3


def test_a_training_on_labels_that_an_earlier_version_began_goes_on(verb, pretrained, labels, square_data, tmp_path):
    output = tmp_path / "output"
    flags = ["--policy", pretrained, "--data", square_data, "--labels", labels, "--output_dir", output]
    training = "--save_steps 1 --per_device_train_batch_size 4 --use_cpu --disable_tqdm true".split()
    assert verb("finetune", *flags, *training, "--max_steps", "1") == 0
    path = output / "checkpoint-1" / "settings.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"interval_s": 1.0, "min_interval_s": 0.5}))
    assert verb("finetune", *flags, *training, "--max_steps", "2", "--resume_from_checkpoint", "true") == 0


def test_labels_by_itself_and_goes_on_from_a_finetuned_policy(verb, policy, tokenizer, square_data, tmp_path):
    flags = ["--policy", policy, "--data", square_data, "--tokenizer", tokenizer, "--dataset_name", "again"]
    training = "--num_episodes 2 --interval_s 0.3 --min_interval_s 0.2 --max_steps 1 --per_device_train_batch_size 4 --use_cpu"
    quiet = "--save_strategy no --disable_tqdm true --output_dir"
    output = tmp_path / "output"
    assert verb("finetune", *flags, *training.split(), *quiet.split(), output) == 0
    statistics = CycleMimicProcessor.from_pretrained(output).action_statistics
    assert sorted(statistics) == ["again", "squares"]
    assert statistics["squares"] == CycleMimicProcessor.from_pretrained(policy).action_statistics["squares"]
    assert statistics["again"] != statistics["squares"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output"]


def test_each_data_set_is_normalised_by_its_own_statistics(
    verb, pretrained, tokenizer, square_data, slow_data, tmp_path, monkeypatch
):
    normalised: dict[str, list[float]] = {"squares": [], "slow": []}
    encode = CycleMimicProcessor._encode_actions

    def record(self, actions, mask, dataset, batch_size):
        encoded = encode(self, actions, mask, dataset, batch_size)
        for name, chunk in zip(dataset, encoded[0], strict=True):
            normalised[name] += chunk[:, 2].abs().tolist()
        return encoded

    monkeypatch.setattr(CycleMimicProcessor, "_encode_actions", record)
    flags = ["--policy", pretrained, "--data", square_data, slow_data, "--tokenizer", tokenizer, "--chunk_size", "3"]
    training = "--interval_s 0.4 --min_interval_s 0.2 --max_steps 6 --per_device_train_batch_size 8 --use_cpu"
    quiet = "--save_strategy no --disable_tqdm true --output_dir"
    assert verb("finetune", *flags, *training.split(), *quiet.split(), tmp_path / "output") == 0
    # The actions of the slow data set are ten times as large; by its own statistics that does not show.
    means = [np.mean(values) for values in normalised.values()]
    assert all(0.3 < mean < 0.7 for mean in means), means
    processor = CycleMimicProcessor.from_pretrained(tmp_path / "output")
    assert sorted(processor.action_statistics) == ["slow", "squares"]
    for path, fps in ((square_data, 10), (slow_data, 5)):
        source = open_source(path)
        expected = {
            **compute_action_statistics([source]),
            **{"fps": fps, "camera": source[0].camera, "last_episode": len(source) - 1},
        }
        assert processor.action_statistics[source.name] == expected


def test_goes_on_from_a_finetuned_policy_with_other_statistics_of_the_name(
    verb, policy, labels, square_data, tmp_path, caplog
):
    flags = ["--policy", policy, "--data", square_data, "--labels", labels, "--output_dir", tmp_path / "output"]
    training = "--num_episodes 2 --max_steps 1 --use_cpu --save_strategy no --disable_tqdm true"
    assert verb("finetune", *flags, *training.split()) == 0
    assert "the action statistics of squares are replaced by others" in caplog.messages
    expected = compute_action_statistics([open_source(square_data, episodes=range(2))])
    statistics = CycleMimicProcessor.from_pretrained(tmp_path / "output").action_statistics
    of_data = {"fps": 10, "camera": "observation.images.main", "last_episode": 1}
    assert statistics == {"squares": expected | of_data}


def test_decoder_without_image_states(verb, pretrained, labels, square_data, tmp_path):
    flags = ["--policy", pretrained, "--data", square_data, "--labels", labels, "--output_dir", tmp_path / "output"]
    training = "--action_decoder_context act --backbone_learning_rate 1e-4 --max_steps 1 --use_cpu --save_strategy no"
    assert verb("finetune", *flags, *training.split(), "--disable_tqdm", "true") == 0
    model = CycleMimicForActionPrediction.from_pretrained(tmp_path / "output")
    assert model.config.action_decoder_context == "act" and not model.action_decoder.reads_image


@pytest.mark.parametrize("part", ["--lora_rank 4 --lora_alpha 8 --lora_dropout 0.1", "--freeze_backbone"])
def test_a_part_of_the_policy_is_trained_and_the_whole_is_saved(verb, pretrained, labels, square_data, part, tmp_path):
    output = tmp_path / "output"
    flags = ["--policy", pretrained, "--data", square_data, "--labels", labels, "--output_dir", output]
    training = f"{part} --max_steps 2 --save_steps 1 --per_device_train_batch_size 4 --use_cpu --disable_tqdm true"
    assert verb("finetune", *flags, *training.split()) == 0
    assert act(output)[0].shape == (1, 3, 4)
    assert (output / "adapter" / "adapter_model.safetensors").exists()
    rest = "the rows of the new tokens and the action decoder"
    trained = f"{rest}; the backbone is frozen" if "freeze" in part else f"adapters of rank 4, alpha 8; {rest}"
    size = CycleMimicForActionPrediction.from_pretrained(output).num_parameters() / 1e6
    for folder, words in ((output, "fine-tuned on demonstrations"), (output / "adapter", f"(PEFT): {trained}.")):
        card = (folder / "README.md").read_text()
        assert words in card and "| steps | 2, of 4 samples |" in card and str(tmp_path) not in card
        assert f"| trained | {trained} |" in card and f"| parameters | {size:.1f} million |" in card
    before = CycleMimicForLatentActionPrediction.from_pretrained(pretrained).state_dict()
    after = CycleMimicForActionPrediction.from_pretrained(output).state_dict()
    changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
    rows = {"backbone.model.language_model.embed_tokens.weight", "backbone.lm_head.weight"}
    assert rows <= changed and (changed == rows) == (part == "--freeze_backbone")
    # Going on after the end replaces what was saved.
    last = ["--max_steps", "3", "--resume_from_checkpoint", "true"]
    assert verb("finetune", *flags, *training.replace("--max_steps 2 ", "").split(), *last) == 0
    finetuned = ["--policy", output, *flags[2:-1], tmp_path / "again"]
    assert verb("finetune", *finetuned, *training.split()) == 0
    assert act(tmp_path / "again")[0].shape == (1, 3, 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data {data} --labels {labels}", "the following arguments are required: --policy"),
        ("--policy {pretrained} --data {data}", "One of `labels` and `tokenizer` must be given, got neither"),
        (
            "--policy {pretrained} --data bridge --labels {labels}",
            "`data` must be data sets here, got the mixture bridge; give its data sets one by one",
        ),
        (
            "--policy {pretrained} --data {data} --labels {labels} --tokenizer {tokenizer}",
            "One of `labels` and `tokenizer` must be given, got both",
        ),
        (
            "--policy {pretrained} --data {data} --labels {labels} --labels_revision v1",
            "leave out their revision, got 'v1'",
        ),
        (
            "--policy {pretrained} --data {data} --tokenizer {tokenizer} --labels_revision v1",
            "left out without `labels`",
        ),
        (
            "--policy {pretrained} --data {data} --labels {labels} --interval_s 0.5",
            "`interval_s` must be left out with `labels`",
        ),
        (
            "--policy {pretrained} --data {two_cameras} --labels {labels}",
            "`labels` must be of squares's camera observation.images.front, got those of observation.images.main",
        ),
        ("--policy {tokenizer} --data {data} --labels {labels}", "must be a checkpoint of model type cyclemimic"),
        ("--policy {pretrained} --data {data} --tokenizer {pretrained}", "model type latent_action_tokenizer"),
        ("--policy {pretrained} --data {data} --labels {labels} --chunk_size 0", "`chunk_size` must be"),
        (
            "--policy {policy} --data {data} --labels {labels} --chunk_size 5",
            "got {{'chunk_size': 3, 'action_dim': 4}}",
        ),
        ("--policy {policy} --data {data} --labels {labels} --lora_rank 0", "`lora_rank` must be at least 1, got 0"),
        ("--policy {policy} --data {data} --labels {labels} --action_decoder_context act", "got {{'chunk_size': 3"),
        (
            "--policy {pretrained} --data {data} --labels {labels} --action_decoder_context all",
            "action_decoder_context",
        ),
        (
            "--policy {pretrained} --data {data} {slow} --labels {labels} --chunk_size 3 --dataset_name both",
            "`dataset_name` must be left out with several data sets, which keep their names ['squares', 'slow'], got "
            "'both'",
        ),
        (
            "--policy {pretrained} --data {data} {slow} --labels {labels}",
            "`chunk_size` must be given for data of several frame rates, {{'squares': 10.0, 'slow': 5.0}}, got None",
        ),
        (
            "--policy {pretrained} --data {data} {slow} --labels {labels} --chunk_size 3",
            "`labels` must be of every data set, got those of ['squares'], none of ['slow']",
        ),
        (
            "--policy {pretrained} --data {data} {wide} --labels {labels}",
            "`data` must have actions of one size, got {{'squares': 4, 'wide': 5}}",
        ),
    ],
)
def test_bad_input(
    refuses,
    square_data,
    slow_data,
    wide_data,
    two_camera_data,
    tokenizer,
    labels,
    pretrained,
    policy,
    tmp_path,
    flags,
    message,
):
    names = {"data": square_data, "slow": slow_data, "wide": wide_data, "tokenizer": tokenizer, "labels": labels}
    names |= {"pretrained": pretrained, "policy": policy, "two_cameras": two_camera_data}
    output = tmp_path / "output"
    assert message.format() in refuses("finetune", "--use_cpu", "--output_dir", output, *flags.format(**names).split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flags", ["--action_decoding all", "--action_decoder_context all", "--chunk_size 0"])
def test_nothing_is_labelled_before_all_is_checked(refuses, pretrained, tokenizer, square_data, flags, monkeypatch):
    monkeypatch.setattr("cyclemimic.labeling.label_videos", lambda *_, **__: pytest.fail("labelled"))
    own = ["--policy", pretrained, "--data", square_data, "--tokenizer", tokenizer, "--output_dir", "absent"]
    assert flags.split()[0].removeprefix("--") in refuses("finetune", "--use_cpu", *own, *flags.split())


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"interval_s": 0.5}, 5),
        ({"interval_s": 1.0, "own_intervals": {"squares": [0.3, 0.2], "other": [2.0, 1.0]}}, 3),
        ({"interval_s": 1.0, "own_intervals": {"other": [2.0, 1.0]}}, 10),
        ({}, "`chunk_size` must be given where labels do not say"),
        (
            {"interval_s": 1.0, "own_intervals": {"squares": [0.3, 0.2]}},
            "`chunk_size` must be given .* several intervals",
        ),
    ],
)
def test_chunks_are_as_long_as_the_pairs_of_their_data(metadata, expected, labels, square_data):
    source = open_source(square_data)
    of_all = LatentLabels.from_folder(labels)
    of_all.metadata = metadata
    wanted = FinetuneArguments(policy="policy", data=["data"])
    if isinstance(expected, int):
        assert choose_chunk_size(wanted, [source], of_all) == expected
    else:
        with pytest.raises(ValueError, match=expected):
            choose_chunk_size(wanted, [source, open_source(square_data, name="squares too")], of_all)


@pytest.fixture(scope="module")
def state_data(tmp_path_factory) -> Path:
    """As Metaworld's recordings: actions and states of size 4, at 10 fps."""
    root = tmp_path_factory.mktemp("data") / "felt"
    random = np.random.default_rng(2)
    with LeRobotWriter(root, 10, "square", ["x", "y", "z", "gripper"], ["x", "y", "z", "opening"]) as writer:
        for _ in range(2):
            frames = random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
            writer.add_episode(frames, random.normal(0, 1, (12, 4)), "go left", random.normal(3, 1, (12, 4)))
    return root


@pytest.fixture(scope="module")
def state_policy(state_data, tokenizer, pretrained, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("policies") / "felt"
    flags = ["--policy", pretrained, "--data", state_data, "--tokenizer", tokenizer, "--use_robot_state"]
    training = "--interval_s 0.3 --min_interval_s 0.2 --max_steps 2 --per_device_train_batch_size 4 --use_cpu"
    quiet = ["--save_strategy", "no", "--disable_tqdm", "true", "--output_dir", output]
    assert run_verb("finetune", *flags, *training.split(), *quiet) == 0
    return output


def test_reads_the_robot_state(state_policy, state_data, pretrained):
    processor = CycleMimicProcessor.from_pretrained(state_policy)
    assert processor.state_statistics == {"felt": compute_state_statistics([open_source(state_data)])}
    model = CycleMimicForActionPrediction.from_pretrained(state_policy).eval()
    assert model.config.state_dim == processor.state_dim == 4
    image = np.zeros((32, 32, 3), np.uint8)
    chunks = [model.predict_action_chunk(**processor(image, "go", robot_state=[[x] * 4])) for x in (2, 4)]
    assert chunks[0].shape == (1, 3, 4) and not torch.allclose(*chunks)
    assert CycleMimicProcessor.from_pretrained(pretrained).state_dim is None


def test_the_robot_state_of_a_policy_stays(
    refuses, policy, state_policy, state_data, square_data, tokenizer, tmp_path
):
    flags = ["--use_cpu", "--tokenizer", tokenizer, "--output_dir", tmp_path / "output"]
    flags += ["--interval_s", "0.3", "--min_interval_s", "0.2"]
    line = refuses("finetune", *flags, "--policy", state_policy, "--data", state_data)
    assert "'state_dim': None}, as data and flags say, got {" in line and "'state_dim': 4}" in line
    line = refuses("finetune", *flags, "--policy", policy, "--data", state_data, "--use_robot_state")
    assert "'state_dim': 4}, as data and flags say, got {" in line and "'state_dim': None}" in line
    line = refuses("finetune", *flags, "--policy", policy, "--data", square_data, "--use_robot_state")
    assert "squares has no states; give data sets with states" in line


def test_pretraining_forgets_the_robot_state(verb, state_policy, square_data, labels, tmp_path):
    flags = ["--policy", state_policy, "--data", square_data, "--labels", labels, "--output_dir", tmp_path / "output"]
    assert verb("pretrain", *flags, *TRAINING) == 0
    processor = CycleMimicProcessor.from_pretrained(tmp_path / "output")
    config = CycleMimicForLatentActionPrediction.from_pretrained(tmp_path / "output").config
    assert processor.state_dim is config.state_dim is None and processor.state_statistics == {}


@pytest.mark.parametrize("decoding", ["latent", "discrete"])
def test_baselines_of_action_decoding(decoding, verb, pretrained, square_data, labels, tmp_path):
    flags = ["--data", square_data, "--labels", labels, "--action_decoding", decoding, *TRAINING]
    first, second = tmp_path / "first", tmp_path / "second"
    assert verb("finetune", "--policy", pretrained, *flags, "--output_dir", first) == 0
    actions, processor = act(first)
    assert actions.shape == (1, 3, 4) and processor.num_action_bins == (256 if decoding == "discrete" else None)
    assert verb("finetune", "--policy", first, *flags, "--output_dir", second, "--lora_rank", "2") == 0
    assert act(second)[0].shape == (1, 3, 4)
    flags[5] = "act"
    assert verb("finetune", "--policy", first, *flags, "--output_dir", tmp_path / "third") == 2


def test_words_for_a_gripper_of_two_values(verb, pretrained, tokenizer, tmp_path):
    random = np.random.default_rng(3)
    numbers = np.concatenate([random.normal(0, 1, (12, 2)), np.full((12, 1), 0.5), np.zeros((12, 1))], axis=1)
    numbers[6, 3] = 100.0
    with LeRobotWriter(tmp_path / "data", 10, "square", ["x", "y", "z", "gripper"]) as writer:
        writer.add_episode(random.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8), numbers, "go left")
    flags = ["--policy", pretrained, "--data", tmp_path / "data", "--tokenizer", tokenizer, *TRAINING]
    flags += ["--interval_s", "0.3", "--min_interval_s", "0.2", "--action_decoding", "discrete"]
    assert verb("finetune", *flags, "--output_dir", tmp_path / "output") == 0
    processor = CycleMimicProcessor.from_pretrained(tmp_path / "output")
    batch = processor(np.zeros((32, 32, 3), np.uint8), "go", [[0, 1, 2, 3]], numbers[None, 5:8])
    read = processor.post_process_actions(bin_centres(to_bins(batch["actions"], 256), 256))[0]
    statistics = processor.action_statistics["data"]
    clipped = np.clip(numbers[5:8], statistics["q01"], statistics["q99"])
    half_a_bin = (np.array(statistics["q99"]) - statistics["q01"]) / 512
    assert (np.abs(read - clipped) <= half_a_bin + 1e-5).all()
    assert statistics["q99"][3] == 100 and (read[:, 2] == 0.5).all()


def test_words_keep_the_settings_of_the_pretrained_policy(pretrained, tmp_path):
    model = CycleMimicForLatentActionPrediction.from_pretrained(pretrained)
    settings = {"latent_action_loss_weight": 0.25, "action_loss_weight": 3.0, "temporal_ensemble_coeff": 0.1}
    for name, value in settings.items():
        setattr(model.config, name, value)
    model.save_pretrained(tmp_path / "first")
    CycleMimicProcessor.from_pretrained(pretrained).save_pretrained(tmp_path / "first")
    sizes = {"chunk_size": 3, "action_dim": 4, "num_action_bins": 16}
    fields = {"action_decoding": "discrete"}
    acting, processor = load_for_actions(str(tmp_path / "first"), sizes, fields)
    assert {name: getattr(acting.config, name) for name in settings} == settings
    # Pretrained once more, it knows the words: their rows stay as they are.
    acting.save_pretrained(tmp_path / "second")
    again = CycleMimicForLatentActionPrediction.from_pretrained(tmp_path / "second")
    again.save_pretrained(tmp_path / "third")
    processor.save_pretrained(tmp_path / "third")
    last, _ = load_for_actions(str(tmp_path / "third"), sizes, fields)
    for name, value in acting.state_dict().items():
        assert torch.equal(last.state_dict()[name], value), name


@pytest.mark.skipif(not BRIDGE.exists(), reason="the recordings of ../shared/data are not here")
def test_rlds_takes_the_frame_rate_given(verb, pretrained, tokenizer, tmp_path):
    flags = ["--policy", pretrained, "--data", BRIDGE, "--fps", 5, "--tokenizer", tokenizer, "--num_episodes", 1]
    times = "--interval_s 0.4 --min_interval_s 0.2 --max_steps 1 --use_cpu --save_strategy no --disable_tqdm true"
    assert verb("finetune", *flags, "--output_dir", tmp_path / "output", *times.split()) == 0
    actions, processor = act(tmp_path / "output")
    assert actions.shape == (1, 2, 7)  # 0.4 s at 5 actions a second
    assert processor.action_statistics["bridge_dataset"]["fps"] == 5
