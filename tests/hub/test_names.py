# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from cyclemimic.data.mixture import MixtureEntry
from cyclemimic.hub.names import is_repository_id, names_hub_repository, public_name, split_revision


@pytest.mark.parametrize("path", ["a", "a/b/c", "/a/b", "../b", "./b", "a/", "~/b", "a/..", "a b/c", "a/b@v1"])
def test_paths_are_no_repositories(path):
    assert not is_repository_id(path) and not names_hub_repository(path)


def test_a_path_that_is_there_is_none_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_repository_id("me/runs") and names_hub_repository("me/runs") and names_hub_repository(Path("me/runs"))
    (tmp_path / "me" / "runs").mkdir(parents=True)
    assert is_repository_id("me/runs") and not names_hub_repository("me/runs")


def test_what_a_name_holds(tmp_path, monkeypatch):
    assert split_revision("me/tokenizer@refs/pr/1") == ("me/tokenizer", "refs/pr/1")
    for name in ("me/tokenizer", "tokenizer@v1", "/me/tokenizer@v1", "a/b/c@v1", "me/tokenizer@", "me/tokenizer@-x"):
        assert split_revision(name) == (name, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "runs@2").mkdir(parents=True)
    assert split_revision("me/runs@2") == ("me/runs@2", None)
    assert (public_name("me/tokenizer@v1"), public_name("me/runs@2")) == ("me/tokenizer", "runs@2")
    assert public_name("/home/me/outputs/tokenizer") == "tokenizer"
    assert MixtureEntry("me/squares@v1", 1.0).data_name == "squares"
