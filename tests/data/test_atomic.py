# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

import pytest

from cyclemimic.data import DataError
from cyclemimic.data.atomic import AtomicFolder, write_atomically


def test_folder_appears_in_one_step(tmp_path):
    folder = AtomicFolder(tmp_path / "new")
    folder.start()
    (folder.partial / "file").write_text("done")
    assert not folder.root.exists()
    folder.commit()
    assert (folder.root / "file").read_text() == "done" and list(tmp_path.iterdir()) == [folder.root]


def test_a_block_that_fails_leaves_nothing(tmp_path):
    with AtomicFolder(tmp_path / "new").writing() as partial:
        (partial / "file").write_text("done")
        assert not (tmp_path / "new").exists()
    with pytest.raises(KeyError), AtomicFolder(tmp_path / "other").writing() as partial:
        (partial / "file").write_text("half")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["new"] and (tmp_path / "new" / "file").read_text() == "done"


def test_a_file_is_replaced_whole(tmp_path):
    path = write_atomically(tmp_path / "folder" / "file", b"one")
    assert path.read_bytes() == b"one"
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")
    assert path.read_bytes() == b"one" and list(path.parent.iterdir()) == [path]


def test_missing_parents_are_made_and_a_file_in_the_way_is_named(tmp_path):
    folder = AtomicFolder(tmp_path / "a" / "b" / "new")
    folder.start()
    folder.commit()
    assert folder.root.is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/new: cannot be written \(Not a directory\)"):
        AtomicFolder(tmp_path / "file" / "new").start()


@pytest.mark.parametrize(
    "number, message",
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the disk is full"), (errno.EIO, "cannot be")],
)
def test_errors_of_the_system_become_one_line(tmp_path, number, message):
    with pytest.raises(DataError, match=f"new: {message}"), AtomicFolder(tmp_path / "new").one_line_errors():
        raise OSError(number, "reason")


def test_what_is_left_of_a_killed_run_is_removed_and_nothing_else(tmp_path):
    folder = AtomicFolder(tmp_path / "new")
    folder.start()
    (folder.partial / "half").write_text("half")
    folder.start()
    assert not (folder.partial / "half").exists()
    folder.discard()
    folder.partial.mkdir()
    folder.start()
    folder.discard()
    folder.partial.mkdir()
    (folder.partial / "file").write_text("another's")
    with pytest.raises(DataError, match=r"new.partial holds work of something else; move it, or give another folder"):
        folder.start()
    assert (folder.partial / "file").read_text() == "another's"


def test_a_folder_by_a_dot_and_a_file_where_the_work_would_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^\. exists already; give another folder"):
        AtomicFolder(".").start()
    (tmp_path / "o.partial").write_text("a thesis")
    with pytest.raises(DataError, match="o.partial holds work of something else"):
        AtomicFolder("o").start()
    assert (tmp_path / "o.partial").read_text() == "a thesis"
