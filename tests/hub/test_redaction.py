# SPDX-License-Identifier: Apache-2.0
"""A token that the Hub answers with, or that stands in the environment, is told and written nowhere."""

from __future__ import annotations

import json
import traceback
from types import SimpleNamespace

import pytest

from cyclemimic import cli
from cyclemimic.checkpoints import read_config
from cyclemimic.commands import gallery, serve
from cyclemimic.data import DataError, LatentLabels, open_source
from cyclemimic.hub.redaction import describe_error, redacted

TINY = {
    **{"image_size": 32, "patch_size": 8, "vision_config": None, "hidden_size": 32, "num_attention_heads": 2},
    **{"num_encoder_layers": 1, "num_decoder_layers": 1, "num_discriminator_layers": 1, "codebook_dim": 8},
}
TIMES = ["--interval_s", "0.3", "--min_interval_s", "0.2"]


@pytest.fixture
def echoing(hub):
    """A Hub that tells in its errors what it was asked with."""
    hub.is_echoing = True
    return hub


def test_what_is_taken_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "my own secret")
    text = f"Bearer my own secret, hf_{'aB3' * 12} and another, but not hf_transfer or hf_hub_download"
    assert redacted(text, "another") == "Bearer ***, *** and ***, but not hf_transfer or hf_hub_download"
    parts = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl-X_Y"
    assert redacted(f"hf_oauth_{parts} hf_jwt_{parts} token=x_hf_{'aB3' * 12}") == "*** *** token=x_***"
    assert describe_error(OSError("my own\n secret\n")) == "OSError: ***"


@pytest.mark.parametrize("load", [LatentLabels.from_hub, open_source])
def test_data_that_the_hub_refuses(echoing, load):
    with pytest.raises(DataError, match=r"me/absent is no folder here, .*Bearer \*\*\*") as raised:
        load("me/absent")
    assert echoing.token not in "".join(traceback.format_exception(raised.value))


def test_file_that_the_hub_refuses(echoing, square_data):
    files = {
        path.relative_to(square_data).as_posix(): path.read_bytes()
        for path in square_data.rglob("*")
        if path.is_file()
    }
    commit = {name: content for name, content in files.items() if name.startswith("meta/")}
    echoing.repositories["datasets/me/squares"] = SimpleNamespace(
        is_private=False, at=lambda revision: ("c" * 40, commit)
    )
    source = open_source("me/squares")
    echoing.repositories.clear()
    with pytest.raises(DataError, match=r"me/squares: data/.* does not download .*Bearer \*\*\*") as raised:
        _ = source[0].actions
    assert echoing.token not in "".join(traceback.format_exception(raised.value))


def test_checkpoint_that_the_hub_refuses(echoing):
    with pytest.raises(ValueError, match="`policy` must be a checkpoint folder or a Hub id, got me/absent") as raised:
        read_config("policy", "me/absent", "cyclemimic")
    assert echoing.token not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("is_debugging", [False, True])
@pytest.mark.parametrize(
    "line",
    [
        "label --tokenizer me/absent --data {data} --output {made}",
        "label --tokenizer {tokenizer} --data me/absent --output {made}",
        "gallery --tokenizer {tokenizer} --data {data} --serve --labels me/absent",
        "finetune --policy me/absent --data {data} --tokenizer {tokenizer} --output_dir {made}",
        "finetune --policy {policy} --data {data} --labels me/absent --output_dir {made}",
        "pretrain --tiny --data {data} --labels me/absent --output_dir {made}",
        "train-tokenizer --data {data} --vision_model me/absent --output_dir {made}",
        "plan --model me/absent",
    ],
)
def test_verbs(echoing, tokenizer, policy, square_data, tmp_path, capfd, caplog, line, is_debugging):
    places = {"data": square_data, "tokenizer": tokenizer, "policy": policy, "made": tmp_path / "made"}
    argv = [*(["--debug"] if is_debugging else []), *(word.format(**places) for word in line.split())]
    told = ""
    try:
        assert cli.main(argv) == (1 if is_debugging else 2)
    except (ValueError, OSError) as error:
        assert is_debugging
        told = "".join(traceback.format_exception(error))
    printed = capfd.readouterr()
    told += printed.out + printed.err + caplog.text
    assert "me/absent" in told and echoing.token not in told


def test_a_marked_token_is_in_no_file_log_or_output(hub, square_data, tmp_path, capfd, caplog, monkeypatch):
    """Through the verbs that train, label and write cards, with everything logged."""
    monkeypatch.chdir(tmp_path)
    caplog.set_level("DEBUG")
    training = "--max_steps 2 --per_device_train_batch_size 4 --use_cpu true --save_steps 1 --logging_steps 1".split()
    data = ["--data", str(square_data)]
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1".split()
    for argv in (
        ["train-tokenizer", *data, "--tokenizer_config", json.dumps(TINY), *TIMES, *training, "--output_dir", "t"],
        ["evaluate-tokenizer", *data, "--tokenizer", "t", *TIMES, "--output", "quality", "--device", "cpu"],
        ["card", "--model", "t", "--quality", "quality/quality.json"],
        ["label", *data, "--tokenizer", "t", *TIMES, "--output", "labels", "--device", "cpu"],
        ["push", "t", "me/t"],
        ["push", "labels", "me/labels"],
        ["pretrain", *data, "--labels", "me/labels", *tiny, *training, "--output_dir", "p"],
    ):
        assert cli.main(argv) == 0, capfd.readouterr().err
    printed = capfd.readouterr()
    secret = hub.token.encode()
    assert hub.token not in printed.out + printed.err + caplog.text
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"README.md", "training_args.bin", "quality.json"} <= {path.name for path in written}
    assert not [path for path in written if secret in path.read_bytes()]
    published = [files for repository in hub.repositories.values() for files in repository.commits.values()]
    assert not any(secret in content for files in published for content in files.values())


def test_servers_listen_on_this_machine_unless_told_otherwise():
    page = gallery.parse(["--tokenizer", "t", "--data", "d", "--serve"], "cyclemimic gallery")
    policy = serve.parse(["--policy", "p"], "cyclemimic serve")
    assert page.host == policy.host == "127.0.0.1"
