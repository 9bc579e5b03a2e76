# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno

import numpy as np
import pytest

from cyclemimic.data import DataError, LabelFolder, open_labels, write_labels
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
        ({"codes": np.full((5, 4), 0.9)}, r"`codes` must be 4 integers .*, got others \(0.9\)"),
        ({"future_index": [0] * 5}, "`future_index` above it"),
        ({"instruction": [3] * 5}, "`instruction` must hold a text or None for each row, got others"),
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


@pytest.mark.parametrize("index", [-1, 1, 0.5])
def test_a_shard_that_there_is_not_is_refused(labels, index):
    with pytest.raises(ValueError, match=f"`index` must be one of 1 shards, from 0 on, got {index}"):
        labels.write(index, make_columns(ROWS))


def test_nothing_is_written_before_the_start(tmp_path):
    with pytest.raises(DataError, match="labels.partial is not there; call `start` before `write`"):
        LabelFolder(tmp_path / "labels", SETTINGS, 1).write(0, make_columns(ROWS))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("with_instructions", [True, False])
def test_labels_of_ones_own_are_saved(tmp_path, with_instructions):
    columns = make_columns(ROWS)
    if not with_instructions:
        del columns["instruction"]
    labels = write_labels(tmp_path / "labels", columns, SETTINGS | {"made_by": "hand"})
    assert (labels.folder, labels.name, labels.tokenizer) == (tmp_path / "labels", "labels", "me/tokenizer")
    opened = open_labels(tmp_path / "labels")
    assert len(opened) == 5 and opened.metadata["made_by"] == "hand"
    assert opened.lookup("a", 7, 1).tolist() == [7, 1, 3, 15]
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


@pytest.mark.parametrize(
    ("columns", "metadata", "message"),
    [
        ({"codes": np.full((5, 4), 16)}, {}, r"`codes` must be 4 integers in \[0, 15\]"),
        ({"frame_index": [0] * 5, "source": ["a"] * 5, "episode_index": [0] * 5}, {}, "frame 0 is labelled twice"),
        ({"extra": [1] * 5}, {}, "`columns` must be"),
        ({"instruction": [3] * 5}, {}, "`instruction` must hold a text or None for each row"),
        ({}, {"codebook_size": None}, "`metadata` must have codebook_size and num_latent_tokens"),
        ({}, {"origin": np.float32(1)}, "`metadata` must be JSON values, got others"),
        ({}, {"origin": float("nan")}, "`metadata` must be JSON values, got others"),
        ({}, {"cameras": "front"}, "`metadata` must have cameras by the data set's name, got 'front'"),
    ],
)
def test_labels_of_ones_own_are_checked_before_anything_is_written(tmp_path, columns, metadata, message):
    with pytest.raises(ValueError, match=message):
        write_labels(tmp_path / "labels", make_columns(ROWS) | columns, SETTINGS | metadata)
    assert list(tmp_path.iterdir()) == []


def test_labels_of_ones_own_replace_nothing(tmp_path):
    write_labels(tmp_path / "labels", make_columns(ROWS), SETTINGS)
    for metadata in (SETTINGS, SETTINGS | {"codebook_size": 17}):
        with pytest.raises(DataError, match="labels exists already; give another folder"):
            write_labels(tmp_path / "labels", make_columns(ROWS), metadata)
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]
