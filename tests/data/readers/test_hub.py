# SPDX-License-Identifier: Apache-2.0
"""The Hub is played by functions that fill a cache as huggingface_hub does: links in snapshots/COMMIT to blobs."""

from __future__ import annotations

import fnmatch
import pickle
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from httpx import RemoteProtocolError
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

from cyclemimic.data import DataError, LeRobotSource, open_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves one data set; `downloaded` lists what was asked for."""

    def __init__(self, repository, root, cache):
        self.repository, self.root = repository, root
        self.downloaded, self.revisions = [], []
        self.snapshot = cache / "snapshots" / COMMIT
        self.blobs = cache / "blobs"

    def snapshot_download(self, repository, *, repo_type, revision, allow_patterns):
        self._check(repository, repo_type, revision)
        for path in self.root.rglob("*"):
            relative = path.relative_to(self.root).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(relative, pattern) for pattern in allow_patterns):
                self._link(relative)
        return str(self.snapshot)

    def hf_hub_download(self, repository, relative, *, repo_type, revision):
        self._check(repository, repo_type, revision)
        if not (self.root / relative).is_file():
            raise RemoteEntryNotFoundError("404", response=_response(404))
        self.downloaded.append(relative)
        self._link(relative)

    def _check(self, repository, repo_type, revision):
        assert repo_type == "dataset"
        self.revisions.append(revision)
        if repository != self.repository:
            raise RepositoryNotFoundError("404", response=_response(404))

    def _link(self, relative):
        link, blob = self.snapshot / relative, self.blobs / relative.replace("/", "-")
        link.parent.mkdir(parents=True, exist_ok=True)
        self.blobs.mkdir(exist_ok=True)
        blob.write_bytes((self.root / relative).read_bytes())
        link.unlink(missing_ok=True)
        link.symlink_to(blob)


def _response(status):
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.fixture
def hub(v30, tmp_path, monkeypatch):
    hub = FakeHub("someone/arms", v30, tmp_path / "cache")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.hf_hub_download)
    monkeypatch.chdir(tmp_path)
    return hub


def test_a_data_set_of_the_hub_is_the_local_one(hub):
    far, near = open_source("someone/arms"), LeRobotSource(hub.root)
    assert (far.name, len(far), far.camera, far.fps) == ("arms", len(near), near.camera, near.fps)
    for ours, theirs in zip(far, near, strict=True):
        np.testing.assert_array_equal(ours.read_frames(), theirs.read_frames())
        np.testing.assert_array_equal(ours.actions, theirs.actions)
        assert ours.instruction == theirs.instruction


def test_its_card_comes_with_what_describes_it(hub):
    (hub.root / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    assert open_source("someone/arms").licence == "cc-by-4.0"


def test_data_files_come_when_they_are_needed_and_once(hub):
    source = open_source("someone/arms")
    assert hub.downloaded == []
    for _ in range(2):
        source[0].read_frames([0])
        assert source[1].actions is not None
    assert sorted(hub.downloaded) == sorted(set(hub.downloaded))
    assert {path.split("/")[0] for path in hub.downloaded} == {"videos", "data"}


def test_files_are_of_the_commit_that_was_opened(hub):
    open_source("someone/arms", revision="v1")[0].read_frames([0])
    assert hub.revisions[0] == "v1" and set(hub.revisions[1:]) == {COMMIT}


def test_a_worker_downloads_too(hub):
    episode = pickle.loads(pickle.dumps(open_source("someone/arms")[0]))
    assert episode.read_frames([1]).shape[0] == 1


def test_an_unknown_repository_is_one_line(hub):
    with pytest.raises(DataError, match="someone/else is no folder here, and no data set that the Hub gives"):
        open_source("someone/else")


def test_a_file_that_does_not_download_is_one_line(hub, monkeypatch):
    source = open_source("someone/arms")

    def fail(*args, **kwargs):
        raise RemoteProtocolError("connection reset\nby peer")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(
        DataError, match=r"someone/arms: data/.* does not download \(RemoteProtocolError: connection reset by peer\)"
    ):
        _ = source[0].actions


def test_a_revision_is_for_the_hub(v30):
    with pytest.raises(DataError, match="is no data set on the Hub; leave out `revision`, got 'main'"):
        open_source(v30, revision="main")
