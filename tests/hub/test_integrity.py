# SPDX-License-Identifier: Apache-2.0
"""What comes from the Hub is what its etags say, or nothing that can be used."""

from __future__ import annotations

import hashlib

import pytest
import torch
from transformers import AutoModel

from cyclemimic import LatentActionTokenizerModel
from cyclemimic.data import DataError, LatentLabels, open_source
from cyclemimic.hub.integrity import check_downloads, hash_files

from . import conftest
from .conftest import Repository

COMMIT = "a" * 40


def put(hub, name, folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    contents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    hub.repositories[name] = Repository(False, {COMMIT: contents})
    return contents


@pytest.fixture
def damaged(hub, monkeypatch):
    """
    A Hub that sends another last byte of files with this suffix than its etag is of; or, with `is_short`, half of what
    it says it sends.
    """
    settings = {"suffix": None, "is_short": False}
    send = conftest._Handler._send

    def send_damaged(self, status, body, headers):
        if settings["suffix"] and self.path.endswith(settings["suffix"]) and self.command == "GET":
            body = body[: len(body) // 2] if settings["is_short"] else body[:-1] + bytes([body[-1] ^ 1])
        send(self, status, body, headers)

    monkeypatch.setattr(conftest._Handler, "_send", send_damaged)
    return settings


def usable(tmp_path, suffix):
    return [path for path in (tmp_path / "cache").rglob(f"snapshots/**/*{suffix}") if path.exists()]


@pytest.mark.parametrize("kind", [LatentActionTokenizerModel, AutoModel])
@pytest.mark.parametrize("is_short", [False, True])
def test_weights(hub, damaged, tokenizer, tmp_path, kind, is_short):
    put(hub, "me/tokenizer", tokenizer)
    damaged |= {"suffix": "-of-00002.safetensors", "is_short": is_short}
    message = "onsistency check failed" if is_short else "must have the SHA-256 that .*; it was removed"
    with pytest.raises((ValueError, OSError), match=message):
        kind.from_pretrained("me/tokenizer")
    assert usable(tmp_path, ".safetensors") == []
    damaged["suffix"] = None
    expected = LatentActionTokenizerModel.from_pretrained(tokenizer).state_dict()
    found = kind.from_pretrained("me/tokenizer").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize("is_short", [False, True])
def test_labels(hub, damaged, labels, tmp_path, is_short):
    put(hub, "datasets/me/labels", labels)
    damaged |= {"suffix": ".parquet", "is_short": is_short}
    message = "onsistency check failed" if is_short else "labels-00000.parquet must have the hash .*; it was removed"
    with pytest.raises(DataError, match=message):
        LatentLabels.from_hub("me/labels")
    assert usable(tmp_path, ".parquet") == []
    damaged["suffix"] = None
    assert len(LatentLabels.from_hub("me/labels")) == 3


@pytest.mark.parametrize("suffix", ["info.json", ".parquet", ".mp4"])
def test_data(hub, damaged, square_data, tmp_path, suffix):
    """Git's own hash, and files that are fetched when they are needed."""
    put(hub, "datasets/me/squares", square_data)
    damaged["suffix"] = suffix
    with pytest.raises(DataError, match=r"must have the hash [0-9a-f]{40,64}, got other content of its size"):
        source = open_source("me/squares")
        _ = source[0].actions
        source[0].read_frames([0])
    damaged["suffix"] = None
    source = open_source("me/squares")
    assert source[0].actions is not None and source[0].read_frames([0]).shape == (1, 32, 32, 3)


def test_what_has_no_etag_is_left_alone(tmp_path):
    content = b"content"
    for name in (hashlib.sha256(content).hexdigest(), hashlib.sha1(b"blob 7\0content").hexdigest(), "frames.mp4"):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(name)
        check_downloads([tmp_path / "link", tmp_path / name])
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "name",
    ["config.json", "processor_config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"],
)
def test_what_decides_is_hashed(tmp_path, name):
    for each in ("config.json", "model.safetensors", name, "README.md"):
        (tmp_path / each).write_text("{}")
    before = hash_files(tmp_path)
    (tmp_path / name).write_text("[]")
    after = hash_files(tmp_path)
    assert [each for each in before if before[each] != after[each]] == [name]
    assert "README.md" not in before
