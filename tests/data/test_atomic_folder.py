# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

import pytest

from cyclemimic.data import DataError
from cyclemimic.data.atomic_folder import AtomicFolder


def test_folder_appears_in_one_step(tmp_path):
    folder = AtomicFolder(tmp_path / "new")
    folder.start()
    (folder.partial / "file").write_text("done")
    assert not folder.root.exists()
    folder.commit()
    assert (folder.root / "file").read_text() == "done" and list(tmp_path.iterdir()) == [folder.root]


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
