# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import Dinov2Config, Dinov2Model, Siglip2VisionConfig, Siglip2VisionModel

from cyclemimic import (
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
    LatentActionTokenizerTrainer,
)
from cyclemimic.commands import train_tokenizer
from cyclemimic.commands.inputs import open_mixture_or_sources
from cyclemimic.commands.train_tokenizer import (
    TrainTokenizerArguments,
    load_or_make_tokenizer,
    read_tokenizer_config,
)
from cyclemimic.data import FramePairDataset, MixtureDataset, encode_video

from .conftest import INTERVAL, TRAINING

LAYERS = {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_discriminator_layers": 1}
SMALL = json.dumps({"image_size": 28, "patch_size": 7, "hidden_size": 32, "num_attention_heads": 2, **LAYERS})


def test_output_can_be_loaded(tokenizer):
    model = LatentActionTokenizerForPreTraining.from_pretrained(tokenizer)
    assert model.config.hidden_size == 32
    assert int(model.steps) == 2
    assert LatentActionTokenizerModel.from_pretrained(tokenizer).config.codebook_dim == 8
    assert LatentActionTokenizerImageProcessor.from_pretrained(tokenizer).size == 32
    assert not (tokenizer / "model.partial").exists()


def test_training_goes_on_in_full_precision(tokenizer, tmp_path):
    LatentActionTokenizerForPreTraining.from_pretrained(tokenizer).to(torch.bfloat16).save_pretrained(tmp_path)
    LatentActionTokenizerImageProcessor.from_pretrained(tokenizer).save_pretrained(tmp_path)
    model, _ = load_or_make_tokenizer(TrainTokenizerArguments(tokenizer=str(tmp_path)))
    floats = [value.dtype for value in model.state_dict().values() if value.is_floating_point()]
    assert set(floats) == {torch.float32}


def test_another_objective_to_go_on_with(tokenizer, verb, square_data, tmp_path):
    weights = {
        "cycle_weight": 0.5,
        "adversarial_weight": 0,
        "cycle_trains_decoder": False,
        "cycle_start_copy_ratio": 1,
    }
    arguments = TrainTokenizerArguments(tokenizer=str(tokenizer), tokenizer_config=json.dumps(weights))
    before, _ = load_or_make_tokenizer(TrainTokenizerArguments(tokenizer=str(tokenizer)))
    model, _ = load_or_make_tokenizer(arguments)
    assert {name: getattr(model.config, name) for name in weights} == weights
    assert not hasattr(model, "discriminator")
    # AC3's schedule begins anew.
    assert before.steps > 0 and before.buffer.filled.any() and model.steps == 0 and not model.buffer.filled.any()
    expected = before.tokenizer.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.tokenizer.state_dict().items())
    output = tmp_path / "output"
    flags = ["--data", square_data, "--tokenizer", tokenizer, "--tokenizer_config", json.dumps(weights), *INTERVAL]
    flags += "--use_cpu --disable_tqdm true --max_steps 1 --per_device_train_batch_size 4 --output_dir".split()
    assert verb("train-tokenizer", *flags, output) == 0
    assert LatentActionTokenizerModel.from_pretrained(output).config.cycle_weight == 0.5


def test_yaml_file_goes_on_from_a_checkpoint_and_resumes(verb, refuses, tokenizer, square_data, tmp_path, capsys):
    output = tmp_path / "output"
    config = tmp_path / "train.yaml"
    config.write_text(
        f"data: {square_data}\ntokenizer: {tokenizer}\noutput_dir: {output}\ninterval_s: 0.3\nmin_interval_s: 0.2\n"
        "reversed_share: 0.5\nmax_steps: 2\nsave_steps: 1\nper_device_train_batch_size: 4\nuse_cpu: true\n"
        "disable_tqdm: true\n"
    )
    assert verb("train-tokenizer", "--config", config) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Saved: {output}"
    assert int(LatentActionTokenizerForPreTraining.from_pretrained(output).steps) == 4

    resumed = tmp_path / "resumed.yaml"
    resumed.write_text(f"{config.read_text()}resume_from_checkpoint: true\n")
    flags = ["--config", resumed, "--max_steps", "3"]
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    message = refuses("train-tokenizer", *flags, "--learning_rate", "0.5")
    assert f"the same settings, got {output / 'checkpoint-2'} with learning_rate 0.5 instead of 0.0001" in message
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert verb("train-tokenizer", *flags) == 0
    assert int(LatentActionTokenizerForPreTraining.from_pretrained(output).steps) == 5
    assert verb("train-tokenizer", "--config", config, "--max_steps", "3") == 2  # a finished model lies there

    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    message = refuses("train-tokenizer", "--config", config, "--max_steps", "4", "--resume_from_checkpoint", output)
    assert "must be a checkpoint-N folder, with the states of optimizer and schedule, got" in message
    assert f"{output}, which lacks them" in message
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pretrained_vision_model_is_loaded(dtype, tmp_path):
    vision_config = Dinov2Config(
        image_size=28, patch_size=14, hidden_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    vision_model = Dinov2Model(vision_config).to(dtype)
    vision_model.save_pretrained(tmp_path / "vision")
    arguments = TrainTokenizerArguments(tokenizer_config=SMALL, vision_model=str(tmp_path / "vision"))
    model, image_processor = load_or_make_tokenizer(arguments)
    loaded = model.tokenizer.vision_features.vision_model
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    for name, value in vision_model.state_dict().items():
        assert torch.equal(value.float(), loaded.state_dict()[name]), name
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert image_processor.size == 28


@pytest.mark.parametrize(
    ("fields", "mean", "std"),
    [
        (None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ({"image_mean": [0.5, 0.4, 0.3], "image_std": [0.25, 0.25, 0.5]}, (0.5, 0.4, 0.3), (0.25, 0.25, 0.5)),
        ({"do_normalize": False, "image_mean": [0.5, 0.5, 0.5]}, (0, 0, 0), (1, 1, 1)),
        ({"image_mean": 0.5, "image_std": None}, (0.5, 0.5, 0.5), (0.229, 0.224, 0.225)),
    ],
)
def test_frames_are_normalised_as_the_vision_model_saw_them(fields, mean, std, tmp_path, caplog):
    sizes = {"image_size": 28, "patch_size": 14, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(tmp_path)
    if fields is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 28, "width": 28}} | fields))
    _, image_processor = load_or_make_tokenizer(
        TrainTokenizerArguments(tokenizer_config=SMALL, vision_model=str(tmp_path))
    )
    assert (tuple(image_processor.image_mean), tuple(image_processor.image_std)) == (mean, std)
    assert ("has no image processor" in caplog.text) == (fields is None)


def test_a_vision_model_that_takes_more_than_an_image_is_one_line(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    Siglip2VisionModel(Siglip2VisionConfig(**sizes, patch_size=14, num_patches=4)).save_pretrained(tmp_path)
    arguments = TrainTokenizerArguments(tokenizer_config=SMALL, vision_model=str(tmp_path))
    with pytest.raises(ValueError, match="`vision_model` must make patch tokens of single images of 28 pixels, got "):
        load_or_make_tokenizer(arguments)


@pytest.mark.parametrize("model_type", ["swin", "vit_mae", "pixtral"])
def test_a_vision_config_without_patch_tokens_of_single_images_is_one_line(model_type):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes = {"embed_dim": 8, "depths": [1], "num_heads": [2]} if model_type == "swin" else sizes
    fields = json.loads(SMALL) | {"freeze_vision": False, "vision_config": {"model_type": model_type, **sizes}}
    with pytest.raises(ValueError, match="`vision_config` must make patch tokens of single images of 28 pixels, got "):
        load_or_make_tokenizer(TrainTokenizerArguments(tokenizer_config=json.dumps(fields)))


def test_configuration_in_the_yaml_file(tmp_path):
    config = tmp_path / "train.yaml"
    config.write_text(
        "data: [a, b]\noutput_dir: out\ntokenizer_config:\n  hidden_size: 32\n  vision_config: null\nuse_cpu: true\n"
    )
    mixture, arguments, training = train_tokenizer.parse(["--config", str(config), "--interval_s", "2"], "cyclemimic")
    assert mixture.data == ["a", "b"]
    assert read_tokenizer_config(arguments.tokenizer_config) == {
        "hidden_size": 32,
        "vision_config": None,
    }
    assert training.interval_s == 2.0


def test_saved_configuration_can_be_given_again(tokenizer):
    fields = read_tokenizer_config(str(tokenizer / "config.json"))
    assert fields["hidden_size"] == 32
    arguments = TrainTokenizerArguments(tokenizer_config=str(tokenizer / "config.json"))
    assert load_or_make_tokenizer(arguments)[0].config.hidden_size == 32


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "the following arguments are required: --data"),
        ("--data {data} --tokenizr x", "unrecognized argument --tokenizr (did you mean '--tokenizer'?)"),
        ("--data {tmp}/absent", "absent does not exist; give a LeRobot data set"),
        ("--data {data} {data}", "two data sets or episodes go by the name 'squares'"),
        ("--data {data} --camera wrist", "no camera"),
        ("--data {data} --tokenizer_config {tmp}/absent.yaml", "which is no file"),
        ('--data {data} --tokenizer_config {{"hidden_sze":1}}', "hidden_sze"),
        ("--data {data} --tokenizer_config {{[]", "must be a file of JSON or YAML, or JSON text"),
        (
            '--data {data} --tokenizer {tokenizer} --tokenizer_config {{"hidden_size":8,"cycle_weight":1}}',
            "`tokenizer_config` must have no other fields than the losses' where `tokenizer` names a checkpoint, ['adv",
        ),
        (
            '--data {data} --tokenizer {tokenizer} --tokenizer_config {{"cycle_weight":-1}}',
            "must be at least 0, got -1",
        ),
        (
            "--data {data} --tokenizer {tokenizer} --vision_model me/x",
            "`vision_model` must be left out with `tokenizer`",
        ),
        ("--data {data} --tokenizer {tmp}/absent", "`tokenizer` must be a checkpoint folder or a Hub id, got"),
        ("--data {data} --vision_model {tmp}/absent", "`vision_model` must be a checkpoint folder or a Hub id"),
        ('--data {data} --tokenizer_config {{"vision_config":{{}}}}', "a vision model without weights"),
        ("--data {data} --tokenizer_config {config} --interval_s 9 --min_interval_s 8", "lower `min_interval_s`"),
        ("--data {data} --tokenizer_config {config} --min_interval_s 8", "`min_interval_s` must be above 0"),
        ("--data {data} --resume_from_checkpoint true", "must find a checkpoint in `output_dir`, got none"),
        ("--data {data} --resume_from_checkpoint {tmp}", "must be a checkpoint's folder or true"),
        ("--data {data} --output_dir {config}", "`output_dir` must be a folder, got the file"),
        ("--data {data} --output_dir {tokenizer}", "`output_dir` must not hold a model yet"),
    ],
)
def test_bad_input(refuses, square_data, tokenizer, tokenizer_config, tmp_path, flags, message):
    names = {"data": square_data, "tmp": tmp_path, "tokenizer": tokenizer, "config": tokenizer_config}
    output = tmp_path / "output"
    given = flags.format(**names).split()
    assert message in refuses("train-tokenizer", "--use_cpu", "--output_dir", output, *given)
    assert not output.exists()


def test_a_training_does_not_choose_its_folder(refuses, square_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refuses("train-tokenizer", "--use_cpu", "--data", square_data)
    assert "the following arguments are required: --output_dir" in message and not list(tmp_path.iterdir())


def test_full_disk_leaves_no_model(verb, square_data, tokenizer_config, tmp_path, monkeypatch):
    import errno

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LatentActionTokenizerImageProcessor, "save_pretrained", full)
    output = tmp_path / "output"
    flags = ["--data", square_data, "--tokenizer_config", tokenizer_config, "--output_dir", output, "--use_cpu"]
    steps = "--max_steps 1 --save_strategy no --interval_s 0.3 --min_interval_s 0.2 --disable_tqdm true".split()
    assert verb("train-tokenizer", *flags, *steps) == 2
    assert not (output / "config.json").exists()
    assert not (output / "model.partial").exists()
    shutil.rmtree(output)


def test_a_save_that_breaks_off_leaves_no_older_model_half_replaced(
    verb, square_data, tokenizer_config, tmp_path, monkeypatch
):
    output = tmp_path / "output"
    flags = ["--data", square_data, "--tokenizer_config", tokenizer_config, "--output_dir", output, "--use_cpu"]
    flags += "--save_steps 1 --interval_s 0.3 --min_interval_s 0.2 --disable_tqdm true --sample_steps 0".split()
    assert verb("train-tokenizer", *flags, "--max_steps", 1) == 0
    assert (output / "config.json").exists()
    replace, moved = os.replace, []

    def breaks_off(source, target):
        if Path(source).parent.name == "model.partial":
            moved.append(target)
            if len(moved) == 2:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", breaks_off)
    assert verb("train-tokenizer", *flags, "--max_steps", 2, "--resume_from_checkpoint", "true") == 130
    assert len(moved) == 2 and not (output / "config.json").exists() and not (output / "model.partial").exists()


@pytest.fixture
def mixture(square_data, tmp_path):
    """A file that has the data set twice, under two names."""
    path = tmp_path / "mixture.yaml"
    entry = f"path: {square_data}, interval_s: [0.2, 0.4]"
    path.write_text(f"sources: [{{{entry}, weight: 1, name: a}}, {{{entry}, weight: 3, name: b, embodiment: other}}]")
    return path


@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_a_mixture_resumes_exactly(num_workers, persistent, verb, refuses, mixture, tokenizer_config, tmp_path):
    flags = ["--data", mixture, "--tokenizer_config", tokenizer_config, "--use_cpu", "--disable_tqdm", "true"]
    flags += (
        "--per_device_train_batch_size 4 --min_interval_s 0.2 --interval_s 0.2 --save_steps 3 --max_steps 6".split()
    )
    flags += ["--dataloader_num_workers", num_workers, "--dataloader_persistent_workers", persistent]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert verb("train-tokenizer", *flags, "--output_dir", whole) == 0
    parts.mkdir()
    shutil.copytree(whole / "checkpoint-3", parts / "checkpoint-3")
    message = refuses("train-tokenizer", *flags, "--output_dir", parts)
    assert f"must not hold checkpoints of another training, got {parts / 'checkpoint-3'}; give another" in message
    if num_workers:
        others = ["--dataloader_num_workers", 1, "--output_dir", parts, "--resume_from_checkpoint", "true"]
        assert "with reading_processes 1 instead of 2." in refuses("train-tokenizer", *flags, *others)
    assert verb("train-tokenizer", *flags, "--output_dir", parts, "--resume_from_checkpoint", "true") == 0
    expected, actual = (
        LatentActionTokenizerForPreTraining.from_pretrained(path).state_dict() for path in (whole, parts)
    )
    assert int(actual["steps"]) == 6
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_workers_outlive_epochs_and_resume_exactly(verb, square_data, tokenizer_config, tmp_path, monkeypatch):
    """In epochs of two steps; what a worker has decoded, it keeps."""
    kept = []
    train = LatentActionTokenizerTrainer.train
    monkeypatch.setattr(
        LatentActionTokenizerTrainer,
        "train",
        lambda trainer, **given: (
            kept.append(trainer.get_train_dataloader().persistent_workers) or train(trainer, **given)
        ),
    )
    flags = [
        "--data",
        square_data,
        "--tokenizer_config",
        tokenizer_config,
        "--use_cpu",
        "--disable_tqdm",
        "true",
        *INTERVAL,
    ]
    flags += "--per_device_train_batch_size 20 --save_steps 3 --max_steps 6 --min_crop 0.7".split()
    flags += ["--dataloader_num_workers", 1]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert verb("train-tokenizer", *flags, "--output_dir", whole) == 0
    parts.mkdir()
    shutil.copytree(whole / "checkpoint-3", parts / "checkpoint-3")
    assert verb("train-tokenizer", *flags, "--output_dir", parts, "--resume_from_checkpoint", "true") == 0
    expected, actual = (
        LatentActionTokenizerForPreTraining.from_pretrained(path).state_dict() for path in (whole, parts)
    )
    assert kept == [True, True] and int(actual["steps"]) == 6
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_data_larger_than_memory_is_decoded_as_it_goes(square_data, monkeypatch, tmp_path):
    image_processor = LatentActionTokenizerImageProcessor(size=32)
    mixture, _, training = train_tokenizer.parse(
        ["--data", str(square_data), "--output_dir", str(tmp_path), "--use_cpu"], "cyclemimic"
    )
    sources = open_mixture_or_sources(mixture, 0.3, 0.2).sources
    assert isinstance(train_tokenizer.make_pairs(sources, False, training, image_processor), FramePairDataset)
    monkeypatch.setattr("cyclemimic.data.frame_store.MAX_BYTES", 1000)
    pairs = train_tokenizer.make_pairs(sources, False, training, image_processor)
    assert isinstance(pairs, MixtureDataset)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "bridge", "paper"], "`data` must be one mixture, or data sets without one"),
        (["--data", "bridge", "--camera", "top"], "`camera` stands in the mixture's file"),
        (["--data", "nothing.yaml"], "nothing.yaml is no readable mixture"),
    ],
)
def test_bad_mixtures_are_one_line(flags, message, verb, mixture, tokenizer_config, tmp_path, capsys):
    output = tmp_path / "output"
    flags = [flag.format(mixture=mixture) for flag in flags]
    assert verb("train-tokenizer", *flags, "--tokenizer_config", tokenizer_config, "--output_dir", output) == 2
    assert message in capsys.readouterr().err and not output.exists()


@pytest.fixture
def films(tmp_path):
    """A folder of three films, of which the second ends in the middle and the third has no header."""
    frames = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    folder = tmp_path / "films"
    folder.mkdir()
    for name in "abc":
        encode_video(folder / f"{name}.mp4", frames, fps=10)
    data = (folder / "b.mp4").read_bytes()
    header, start = data.index(b"moov"), data.index(b"mdat") + 200
    (folder / "b.mp4").write_bytes(data[:start] + bytes(header - start) + data[header:])
    (folder / "c.mp4").write_bytes(data[: header - 4])
    return folder


def test_broken_episodes_are_left_out_where_asked_for(films, verb, tokenizer_config, tmp_path, capsys, caplog):
    output = tmp_path / "output"
    flags = ["--data", films, "--tokenizer_config", tokenizer_config, "--output_dir", output, *TRAINING, *INTERVAL]
    assert verb("train-tokenizer", *flags) == 2
    assert "c.mp4 does not decode" in capsys.readouterr().err and not output.exists()
    assert verb("train-tokenizer", *flags, "--skip_broken", "true") == 0
    assert "films: episode 1 left out: video" in caplog.text and "films: episode 2 left out: video" in caplog.text
    card = (output / "README.md").read_text()
    assert "| films | 100.00% | 1 | 12 | 10 | unknown | video | 2 (1, 2) | unknown |" in card


def test_the_card_tells_what_a_mixture_lacks(verb, square_data, tokenizer_config, tmp_path, caplog):
    path, output = tmp_path / "mixture.yaml", tmp_path / "output"
    entries = f"{{path: {square_data}, weight: 1, name: 'a|<b>'}}, {{path: {square_data}, weight: 3, name: c}}"
    path.write_text(f"sources: [{entries}, {{path: nowhere/lost, weight: 2}}]")
    flags = ["--data", path, "--tokenizer_config", tokenizer_config, "--output_dir", output, *TRAINING, *INTERVAL]
    assert verb("train-tokenizer", *flags, "--leave_out_missing", "true") == 0
    card = ModelCard.load(output / "README.md")
    assert card.data.library_name == "transformers"
    assert "| a\\|\\<b\\> | 25.00% | 4 | 48 | 10 | square |" in card.text and "| c | 75.00% |" in card.text
    assert "left out: lost." in card.text and str(tmp_path) not in card.text
    assert "left out of the mixture: lost: nowhere/lost is no folder here" in caplog.text


def test_data_without_a_usable_episode(films, verb, tokenizer_config, tmp_path, capsys):
    (films / "a.mp4").unlink()
    flags = ["--data", films, "--tokenizer_config", tokenizer_config, "--output_dir", tmp_path / "output", *TRAINING]
    assert verb("train-tokenizer", *flags, "--skip_broken", "true") == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "films: all 2 episodes are broken; the first: video" in message
