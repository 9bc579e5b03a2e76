# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as parquet
import pytest

from cyclemimic.data import DataError, Episode, LatentLabels

from ...label_files import write_labels

SETTINGS = {"codebook_size": 16, "num_latent_tokens": 4, "tokenizer": "me/tokenizer"}


def make_columns(rows):
    """Columns of `(source, episode, frame)` rows with codes that follow from them."""
    return {
        "source": [row[0] for row in rows],
        "episode_index": [row[1] for row in rows],
        "frame_index": np.array([row[2] for row in rows]),
        "future_index": [row[2] + 5 for row in rows],
        "instruction": [None if row[0] == "b" else "push" for row in rows],
        "codes": np.array([[row[1], row[2], 3, 15] for row in rows]),
    }


ROWS = [("b", 0, 4), ("a", 7, 1), ("a", 7, 0), ("a", 2, 9), ("b", 0, 2)]


def test_labels_are_found_again(tmp_path):
    write_labels(tmp_path / "labels", make_columns(ROWS), **SETTINGS, metadata={"interval_s": 1.0})
    labels = LatentLabels.from_folder(tmp_path / "labels")
    assert (len(labels), labels.codebook_size, labels.num_latent_tokens) == (5, 16, 4)
    assert labels.tokenizer == "me/tokenizer" and labels.metadata["interval_s"] == 1.0
    for source, episode, frame in ROWS:
        codes = labels.lookup(source, episode, frame)
        assert codes.dtype == np.int64 and codes.tolist() == [episode, frame, 3, 15]
    frames, codes = labels.episode("a", 7)
    assert frames.tolist() == [0, 1] and codes[:, 1].tolist() == [0, 1]
    assert labels.episodes == [("a", 2), ("a", 7), ("b", 0)] and ("a", 2) in labels and ("a", 3) not in labels


def test_labels_know_where_their_episodes_are(tmp_path):
    places = ["b.mp4#t=0,2", None, None, "a.mp4#t=0,2", "b.mp4#t=0,2"]
    write_labels(
        tmp_path / "labels",
        make_columns(ROWS) | {"place": places},
        **SETTINGS,
        metadata={"cameras": {"a": "x", "b": "x"}},
    )
    labels = LatentLabels.from_folder(tmp_path / "labels")
    lengths = {"a": {2: 15, 7: 7}, "b": {0: 10}}

    def check(source, index, place):
        labels.check_is_of(Episode(source, "arm", index, lengths[source][index], 10.0, "x", None, place=place))

    check("a", 2, "a.mp4#t=0,2")
    check("b", 0, "b.mp4#t=0,2")
    check("a", 7, "c.mp4#t=0,2")  # of which the labels do not tell
    with pytest.raises(DataError, match="another a, whose episode 2 is a.mp4#t=0,2 instead of new.mp4#t=0,2; label"):
        check("a", 2, "new.mp4#t=0,2")


def test_labels_of_before_places_are_read(tmp_path):
    write_labels(tmp_path / "labels", make_columns(ROWS), **SETTINGS)
    path = next((tmp_path / "labels").glob("*.parquet"))
    parquet.write_table(parquet.read_table(path).drop_columns(["place"]), path)
    assert len(LatentLabels.from_folder(tmp_path / "labels")) == len(ROWS)


def test_labels_are_not_written_to():
    labels = LatentLabels(make_columns(ROWS), SETTINGS)
    labels.lookup("a", 7, 0)[:] = 9
    assert labels.lookup("a", 7, 0).tolist() == [7, 0, 3, 15]
    for kept in (*labels.episode("a", 7), labels.future_frames("a", 7)):
        with pytest.raises(ValueError, match="read-only"):
            kept[0] = 9


def test_episodes_of_one_number_are_of_their_own_data_sets():
    labels = LatentLabels(make_columns([("a", 0, 1), ("b", 0, 2)]), SETTINGS)
    assert labels.episodes == [("a", 0), ("b", 0)] and labels.lookup("b", 0, 2).tolist() == [0, 2, 3, 15]


@pytest.mark.parametrize(
    "key, message",
    [
        (("c", 0, 0), r"c, episode 0, has no labels; there are labels for \['a', 'b'\]"),
        (("a", 3, 0), "episode 3, has no labels"),
        (("b", 0, 3), "frame 3 has no label; labelled are 2 frames from 2 to 4"),
        (("b", 0, 5), "frame 5 has no label"),
    ],
)
def test_frame_without_label_is_named(key, message):
    labels = LatentLabels(make_columns(ROWS), SETTINGS)
    with pytest.raises(KeyError, match=message):
        labels.lookup(*key)


def test_frame_labelled_twice_is_an_error():
    with pytest.raises(DataError, match="b, episode 0, frame 4 is labelled twice"):
        LatentLabels(make_columns([*ROWS, ("b", 0, 4)]), SETTINGS)


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        (
            "codes",
            lambda codes: codes + 1,
            r"`codes` must be 4 integers in \[0, 15\] in each of 5 rows, got 1 to 16$",
        ),
        ("codes", lambda codes: codes - 16, r"`codes` must be 4 .*, got -16 to -1$"),
        ("codes", lambda codes: codes + 0.9, r"`codes` must be 4 integers .*, got others \(7?[.0-9]+\)$"),
        ("codes", lambda codes: np.full(codes.shape, np.nan), r"`codes` must be 4 integers .*, got others \(nan\)$"),
        ("codes", lambda codes: codes > 3, r"`codes` must be 4 integers .*, got others \(bool\)$"),
        ("frame_index", lambda frames: frames + 0.5, r"`frame_index` must hold a whole number .*, got others \(4.5\)"),
        ("frame_index", lambda frames: frames - 3, "`frame_index` must be at least 0 .*, got -2 and 6 in row 1"),
        ("episode_index", lambda _: [True] * 5, r"`episode_index` must hold a whole number .*, got others \(bool\)"),
        ("episode_index", lambda _: [[1]] * 5, r"`episode_index` must hold a whole number .*, got shape \(5, 1\)"),
        ("future_index", lambda futures: np.array(futures) - 5, "`future_index` above it, got 4 and 4 in row 0"),
        ("source", lambda _: [3, "a", "a", "b", "b"], r"`source` must hold a text for each row, got \['int', 'str'\]"),
        ("source", lambda _: "abaab", "`source` must hold a text for each row, got one for all"),
        (
            "codes",
            lambda codes: codes[:, :3],
            r"`codes` must be 4 .*, got shape \(5, 3\)",
        ),
        (
            "codes",
            lambda codes: codes[:4].reshape(2, 8),
            r"`columns` must be of equal length, got \{'source': 5, .*'codes': 2\}",
        ),
        ("codes", lambda codes: codes[:4], r"`columns` must be of equal length, got \{'source': 5, .*'codes': 4\}"),
        ("codes", lambda codes: [[1, 2, 3, 4], *[[1, 2]] * 4], "`codes` must be 4 .*, got others"),
        ("future_index", lambda futures: futures[:3], r"`columns` must be of equal length, got .*'future_index': 3"),
    ],
)
def test_labels_in_memory_are_checked(key, change, message):
    columns = make_columns(ROWS)
    with pytest.raises(DataError, match=message):
        LatentLabels(columns | {key: change(columns[key])}, SETTINGS)


def test_codes_may_come_as_lists_in_objects_or_as_whole_floats():
    columns = make_columns(ROWS)
    rows = np.empty(len(ROWS), object)
    rows[:] = columns["codes"].tolist()
    for codes in (rows, columns["codes"].astype(float), columns["codes"].astype(np.uint8)):
        assert LatentLabels(columns | {"codes": codes}, SETTINGS).lookup("a", 7, 1).tolist() == [7, 1, 3, 15]


@pytest.mark.parametrize("key", ["source", "future_index", "codes"])
def test_a_column_that_is_missing_is_named(key):
    columns = {name: column for name, column in make_columns(ROWS).items() if name != key}
    with pytest.raises(DataError, match=f"`columns` must have .*, got none of the name {key}"):
        LatentLabels(columns, SETTINGS)


@pytest.mark.parametrize("metadata", [{}, {"codebook_size": 16}, SETTINGS | {"codebook_size": 0.5}, None])
def test_sizes_that_are_missing_are_named(metadata):
    with pytest.raises(DataError, match="`metadata` must have codebook_size and num_latent_tokens, whole numbers"):
        LatentLabels(make_columns(ROWS), metadata)


def test_folders_that_hold_no_labels_are_errors(tmp_path):
    import pyarrow
    import pyarrow.parquet as parquet

    with pytest.raises(DataError, match="holds no labels"):
        LatentLabels.from_folder(tmp_path)
    parquet.write_table(pyarrow.table({"codes": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet holds no latent action labels"):
        LatentLabels.from_folder(tmp_path)
    (tmp_path / "other.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        LatentLabels.from_folder(tmp_path)


def test_labels_that_disagree_with_each_other_or_themselves_are_errors(tmp_path):
    import pyarrow.parquet as parquet

    for name, rows, size in [("one", ROWS[:2], 16), ("two", ROWS[2:], 32)]:
        write_labels(tmp_path / name, make_columns(rows), **(SETTINGS | {"codebook_size": size}))
    (tmp_path / "two/labels-00000.parquet").rename(tmp_path / "one/labels-00001.parquet")
    with pytest.raises(DataError, match="mixes labels"):
        LatentLabels.from_folder(tmp_path / "one")
    (tmp_path / "one/labels-00001.parquet").unlink()
    path = tmp_path / "one/labels-00000.parquet"
    table = parquet.read_table(path)
    smaller = json.dumps(SETTINGS | {"codebook_size": 4})
    parquet.write_table(table.replace_schema_metadata({"cyclemimic": smaller}), path)
    with pytest.raises(DataError, match=r"one: `codes` must be 4 integers in \[0, 3\] .*; label the data again"):
        LatentLabels.from_folder(tmp_path / "one")
    parquet.write_table(table.drop_columns(["codes"]), path)
    with pytest.raises(DataError, match=r"lacks the columns \['codes'\]"):
        LatentLabels.from_folder(tmp_path / "one")


def test_datasets_library_loads_the_folder(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_labels(tmp_path / "labels", make_columns(ROWS), **SETTINGS)
    loaded = datasets.load_dataset(str(tmp_path / "labels"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.column_names == [
        "source",
        "episode_index",
        "frame_index",
        "future_index",
        "instruction",
        "place",
        "codes",
    ]
    assert loaded["codes"][:] == make_columns(ROWS)["codes"].tolist()
    assert loaded["instruction"][:] == [None, "push", "push", "push", None]
