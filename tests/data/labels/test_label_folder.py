# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

import numpy as np
import pytest

from cyclemimic.data import DataError, LabelFolder
from cyclemimic.data.atomic import AtomicFolder

from .test_latent_labels import ROWS, SETTINGS, make_columns


@pytest.fixture
def labels(tmp_path) -> LabelFolder:
    """One shard in the making."""
    labels = LabelFolder(tmp_path / "labels", SETTINGS, 1)
    labels.start()
    return labels


def test_interrupted_writing_leaves_no_shard(labels, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            labels.write(0, make_columns(ROWS))
    assert [path.name for path in tmp_path.rglob("*")] == ["labels.partial", ".plan.json"]
    assert labels.is_missing(0) and not labels.finish()
    labels.write(0, make_columns(ROWS))
    assert labels.finish()


def test_what_a_killed_process_left_is_not_kept(labels, tmp_path):
    (tmp_path / "labels.partial" / ".unfinished-0123").write_bytes(b"half a shard")
    labels.write(0, make_columns(ROWS))
    assert labels.finish("# labels")
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == [
        ".plan.json",
        "README.md",
        "labels-00000.parquet",
    ]


def test_the_cause_of_a_difference_is_named_before_what_follows_from_it(tmp_path):
    before, now = (SETTINGS | {"data": {"arm": f"{count} episodes"}} for count in (1, 2))
    LabelFolder(tmp_path / "labels", before, 1).start()
    with pytest.raises(DataError, match="data set arm was 1 episodes, now it is 2 episodes"):
        LabelFolder(tmp_path / "labels", now, 2).start()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"codes": np.full((5, 4), 16)}, r"`codes` must be 4 integers in \[0, 15\] in each of 5 rows, got 16 to 16"),
        ({"codes": np.full((5, 4), -1)}, r"`codes` must be 4 integers in \[0, 15\] in each of 5 rows, got -1 to -1"),
        ({"codes": np.zeros((5, 3))}, r"`codes` must be 4 integers .*, got shape \(5, 3\)"),
        ({"frame_index": [1]}, "equal length"),
        ({"extra": [1] * 5}, "`columns` must be"),
    ],
)
def test_rows_that_do_not_fit_are_refused(labels, change, message):
    with pytest.raises(ValueError, match=message):
        labels.write(0, make_columns(ROWS) | change)
    assert labels.is_missing(0)


def test_a_folder_that_took_the_name_meanwhile_is_no_label(labels, tmp_path):
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="labels exists already and holds no labels"):
        labels.is_missing(0)


def test_nothing_else_is_made_in_place_of_labels_in_the_making(labels, tmp_path):
    with pytest.raises(DataError, match="labels.partial holds work of something else"):
        AtomicFolder(tmp_path / "labels").start()
    assert labels.is_missing(0)
    labels.write(0, make_columns(ROWS))
    assert labels.finish()


def test_file_systems_without_links_will_do(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", link)
    first, second = (LabelFolder(tmp_path / "labels", SETTINGS, 1) for _ in range(2))
    assert first.start() and second.start()
    first.write(0, make_columns(ROWS))
    assert second.finish()
    with pytest.raises(DataError, match="with other labels: interval_s"):
        LabelFolder(tmp_path / "labels", SETTINGS | {"interval_s": 9.0}, 1).start()
