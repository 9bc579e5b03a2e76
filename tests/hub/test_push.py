# SPDX-License-Identifier: Apache-2.0
"""The verb, and what verbs do with a checkpoint that is not to be trusted; here because the Hub is."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest

from cyclemimic import cli
from cyclemimic.checkpoints import read_config


def test_verb_says_which_commit_to_load(hub, tokenizer, capsys):
    assert cli.main(["push", str(tokenizer), "me/tokenizer", "--private", "--commit_message", "First"]) == 0
    repository = hub.repositories["me/tokenizer"]
    commit, files = repository.at("main")
    assert repository.is_private and "config.json" in files
    assert capsys.readouterr().out == f'Pushed: {hub.url}/me/tokenizer, loaded exactly so with revision="{commit}"\n'


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("repo_id", "`repo_id` must be OWNER/NAME, got me/a/b."),
        ("labels", "holds no latent action labels"),
        ("branch", "Revision Not Found"),
        ("token", "me/x: nothing was committed"),
    ],
)
def test_verb_refuses_in_one_line(hub, tokenizer, labels, tmp_path, monkeypatch, capsys, change, message):
    folder, repo_id, flags = tokenizer, "me/x", []
    if change == "repo_id":
        repo_id = "me/a/b"
    elif change == "labels":
        import pyarrow
        import pyarrow.parquet as parquet

        folder = tmp_path
        parquet.write_table(pyarrow.table({"codes": [1]}), tmp_path / "labels-00000.parquet")
    elif change == "branch":
        flags = ["--revision", "other"]
    else:
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert cli.main(["push", str(folder), repo_id, *flags]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cyclemimic push: error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert hub.token not in lines[0] and "hf_wrong" not in lines[0]
    assert all(list(repository.commits) == ["0" * 40] for repository in hub.repositories.values())


def test_verbs_read_no_weights_from_elsewhere(tokenizer, tmp_path):
    hostile = shutil.copytree(tokenizer, tmp_path / "hostile")
    for shard in hostile.glob("*.safetensors"):
        shard.rename(tmp_path / shard.name)
    index = json.loads((hostile / "model.safetensors.index.json").read_text())
    index["weight_map"] = {name: f"../{shard}" for name, shard in index["weight_map"].items()}
    (hostile / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="must name files beside it, got '../model-"):
        read_config("tokenizer", hostile, "latent_action_tokenizer")


def test_verbs_read_no_pickled_weights(tokenizer, tmp_path):
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    shutil.copy(tokenizer / "config.json", hostile)
    (hostile / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match="must hold its weights as safetensors"):
        read_config("tokenizer", hostile, "latent_action_tokenizer")
