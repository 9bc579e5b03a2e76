# SPDX-License-Identifier: Apache-2.0
"""`owner/name@revision` wherever a verb names a checkpoint or a data set on the Hub."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, Dinov2Config, Dinov2Model, GPT2Tokenizer, LlavaProcessor

from cyclemimic import (
    CycleMimicForActionPrediction,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerModel,
    cli,
)
from cyclemimic.checkpoints import load_tokenizer
from cyclemimic.commands import gallery, rollout, serve
from cyclemimic.commands.inputs import open_sources
from cyclemimic.commands.train_tokenizer import TrainTokenizerArguments, load_or_make_tokenizer
from cyclemimic.data import DataError, LatentLabels, open_labels, open_source
from cyclemimic.planning.shapes import shape_of
from cyclemimic.policies import load_for_actions, load_policy, make_policy_of_backbone

from ..models.cyclemimic.backbone_families import llava
from .conftest import Repository

COMMITS = ("a" * 40, "b" * 40)
SPACE = Path(__file__).resolve().parents[2] / "examples" / "space"


def put(hub, name, first, change):
    """Two commits of a folder on the Hub: as it is, and with a change of it."""
    commits = {}
    for commit in COMMITS:
        files = [path for path in sorted(first.rglob("*")) if path.is_file()]
        commits[commit] = {path.relative_to(first).as_posix(): path.read_bytes() for path in files}
        change(first)
    hub.repositories[name] = Repository(False, commits)


def rewrite(kind):
    """A change of a checkpoint: one that was not trained in its place."""

    def change(folder):
        model = kind.from_pretrained(folder)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
        for path in folder.glob("*.safetensors*"):
            path.unlink()
        model.save_pretrained(folder)

    return change


def same(model, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.fixture
def here(hub, tokenizer, policy, square_data, tmp_path):
    """Two commits of everything on the Hub, of which the first is also here."""
    kinds = {"tokenizer": LatentActionTokenizerForPreTraining, "policy": CycleMimicForActionPrediction}
    for name, folder in (("tokenizer", tokenizer), ("policy", policy)):
        put(hub, f"me/{name}", shutil.copytree(folder, tmp_path / "changed" / name), rewrite(kinds[name]))
    data = shutil.copytree(square_data, tmp_path / "changed" / "squares")

    def change(folder):
        info = json.loads((folder / "meta" / "info.json").read_text())
        (folder / "meta" / "info.json").write_text(json.dumps(info | {"robot_type": "another"}))

    put(hub, "datasets/me/squares", data, change)
    return {"tokenizer": tokenizer, "policy": policy, "data": square_data}


def test_tokenizer(here):
    expected = LatentActionTokenizerModel.from_pretrained(here["tokenizer"])
    device = torch.device("cpu")
    assert same(expected, load_tokenizer(f"me/tokenizer@{COMMITS[0]}", device)[0])
    assert not same(expected, load_tokenizer("me/tokenizer", device)[0])
    trained, _ = load_or_make_tokenizer(TrainTokenizerArguments(tokenizer=f"me/tokenizer@{COMMITS[0]}"))
    assert same(expected, trained.tokenizer)


def test_policy(here):
    expected = CycleMimicForActionPrediction.from_pretrained(here["policy"])
    pinned = f"me/policy@{COMMITS[0]}"
    for model in (load_policy(pinned)[0].backbone, load_for_actions(pinned, {}, {})[0].backbone):
        assert same(expected.backbone, model)
    assert not same(expected.backbone, load_policy("me/policy")[0].backbone)
    served, *_ = serve._open(serve.parse(["--policy", pinned, "--device", "cpu"], "cyclemimic serve"))
    assert same(expected, served.model)


def test_a_plan_of_a_policy(here):
    assert shape_of(f"me/policy@{COMMITS[0]}").counts == shape_of(str(here["policy"])).counts


def test_rollouts_go_on_with_the_same_commit_only(here, tmp_path):
    flags = ["--env", "pusht", "--output", str(tmp_path / "rollout"), "--policy"]
    names = (f"me/policy@{COMMITS[0]}", "me/policy", str(here["policy"]))
    stamps = [rollout._settings(rollout.parse([*flags, name], "cyclemimic rollout"), "cpu") for name in names]
    assert [stamp["policy_commit"] for stamp in stamps] == [*COMMITS, None]
    assert [bool(stamp["policy_files"]) for stamp in stamps] == [False, False, True]


def test_vision_model(hub, tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 224, "patch_size": 14}
    model = Dinov2Model(Dinov2Config(**sizes))
    model.save_pretrained(tmp_path / "vision")
    put(hub, "me/vision", tmp_path / "vision", rewrite(Dinov2Model))
    fields = '{"hidden_size": 16, "num_attention_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}'
    for revision, is_first in ((f"@{COMMITS[0]}", True), ("", False)):
        arguments = TrainTokenizerArguments(vision_model=f"me/vision{revision}", tokenizer_config=fields)
        found = load_or_make_tokenizer(arguments)[0].tokenizer.vision_features.vision_model
        assert same(model, found) == is_first


def test_backbone(hub, labels, tmp_path):
    words = GPT2Tokenizer(vocab={}, merges=[]).train_new_from_iterator(
        ["what action"], 400, new_special_tokens=["<pad>", "<bos>", "<image>"], show_progress=False
    )
    words.pad_token, words.bos_token = "<pad>", "<bos>"
    sizes = {"vocab_size": len(words)} | {f"{name}_token_id": words.pad_token_id for name in ("pad", "bos", "eos")}
    config, image_processor, _ = llava(sizes, words.convert_tokens_to_ids("<image>"))
    settings = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(image_processor, words, patch_size=8, **settings).save_pretrained(tmp_path / "llava")
    expected = AutoModelForImageTextToText.from_config(config)
    expected.save_pretrained(tmp_path / "llava")
    put(hub, "me/llava", tmp_path / "llava", rewrite(AutoModelForImageTextToText))
    for revision, is_first in ((f"@{COMMITS[0]}", True), ("", False)):
        policy, _ = make_policy_of_backbone(f"me/llava{revision}", LatentLabels.from_folder(labels))
        assert same(expected.model.vision_tower, policy.backbone.model.vision_tower) == is_first


def test_data(here):
    (first,), _ = open_sources([f"me/squares@{COMMITS[0]}"])
    assert (first.name, first.embodiment) == ("squares", "square")
    assert open_source("me/squares").embodiment == "another"
    assert first[0].read_frames([0]).shape == (1, 32, 32, 3)
    with pytest.raises(DataError, match="me/squares@v1 names its revision; leave out another, got 'v2'"):
        open_source("me/squares@v1", revision="v2")


def test_labels(hub, labels, tmp_path):
    copy = shutil.copytree(labels, tmp_path / "labels")
    put(hub, "datasets/me/labels", copy, lambda folder: [path.unlink() for path in folder.iterdir()])
    assert len(open_labels(f"me/labels@{COMMITS[0]}")) == 3
    with pytest.raises(DataError, match="holds no labels"):
        open_labels("me/labels")


def test_verbs_and_what_they_write(here, tmp_path, capsys):
    pinned = {name: f"me/{name}@{COMMITS[0]}" for name in ("tokenizer", "policy", "squares")}
    flags = ["--tokenizer", pinned["tokenizer"], "--data", pinned["squares"], "--interval_s", "0.3"]
    flags += ["--min_interval_s", "0.3", "--device", "cpu", "--output", str(tmp_path / "labels")]
    assert cli.main(["label", *flags]) == 0
    labels = LatentLabels.from_folder(tmp_path / "labels")
    assert labels.tokenizer == "me/tokenizer" and set(dict(labels.episodes)) == {"squares"}
    flags[1] = f"me/tokenizer@{'f' * 40}"
    assert cli.main(["label", *flags[:-1], str(tmp_path / "other")]) == 2
    assert f"got me/tokenizer@{'f' * 40}: {'f' * 40} is not a valid git identifier" in capsys.readouterr().err
    training = "--max_steps 1 --per_device_train_batch_size 4 --use_cpu true --save_strategy no".split()
    flags = ["--policy", pinned["policy"], "--data", pinned["squares"], "--labels", str(tmp_path / "labels")]
    assert cli.main(["pretrain", *flags, *training, "--output_dir", str(tmp_path / "made")]) == 0
    assert "base_model: me/policy\n" in (tmp_path / "made" / "README.md").read_text()


def test_space(here):
    make_flags = runpy.run_path(str(SPACE / "app.py"))["flags"]
    places = {"TOKENIZER": f"me/tokenizer@{COMMITS[0]}", "DATA": f"me/squares@{COMMITS[0]}", "INTERVAL_S": "0.3"}
    arguments = gallery.parse(make_flags(places)[1:], "cyclemimic gallery")
    arguments.device, arguments.max_pairs = "cpu", 4
    explorer = gallery.open_explorer(arguments)
    expected = LatentActionTokenizerModel.from_pretrained(here["tokenizer"])
    assert same(expected, explorer.tokenizer)
    bodies = {episode.embodiment for episode in explorer.labelled.pairs.episodes}
    assert bodies == {"square"} and np.asarray(explorer.labelled.codes).shape == (4, 4)


def test_every_help_says_it(capsys):
    for verb in (
        "label",
        "gallery",
        "evaluate-tokenizer",
        "train-tokenizer",
        "pretrain",
        "finetune",
        "rollout",
        "serve",
    ):
        with pytest.raises(SystemExit):
            cli.main([verb, "--help"])
        assert "OWNER/NAME@REVISION" in " ".join(capsys.readouterr().out.split())
