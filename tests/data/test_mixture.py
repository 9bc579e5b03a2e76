# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml

from cyclemimic.data import DataError, encode_video, open_mixture, open_source, read_mixture
from cyclemimic.data.mixture import is_mixture, shipped_mixtures


def write(folder, sources):
    path = folder / "mixture.yaml"
    path.write_text(yaml.safe_dump({"sources": sources}))
    return path


def test_paper_has_its_thirty_sources():
    entries = read_mixture("paper")
    assert len(entries) == 30 and len({entry.name for entry in entries}) == 30
    # Table 2 is rounded to a tenth of a per cent, and says "below 0.1" of one.
    assert sum(entry.weight for entry in entries) == pytest.approx(100, abs=0.1)
    by_name = {entry.name: entry for entry in entries}
    assert by_name["bridge_orig"].path == "IPEC-COMMUNITY/bridge_orig_lerobot"
    assert by_name["bridge_orig"].camera == "image_0"
    assert all(entry.embodiment for entry in entries)


@pytest.mark.parametrize("name", shipped_mixtures())
def test_shipped_mixtures_are_read_by_name(name):
    assert is_mixture(name) and read_mixture(name)


def test_a_folder_of_that_name_comes_before_a_shipped_mixture(tmp_path, monkeypatch):
    (tmp_path / "bridge").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_mixture("bridge")


def test_entries_say_how_their_source_is_opened(v30, tmp_path):
    shutil.move(v30, tmp_path / "moved")
    path = write(
        tmp_path,
        [
            {"path": "moved", "weight": 2, "embodiment": "left", "name": "first", "interval_s": [0.3, 0.6]},
            {"path": "moved", "weight": 1.5, "min_interval_s": 0.1},
        ],
    )
    first, second = open_mixture(read_mixture(path), 1.0, 0.2).sources
    assert (first.source.name, first.source.embodiment, first.weight) == ("first", "left", 2)
    assert (first.interval_s, first.min_interval_s) == ((0.3, 0.6), 0.2)
    assert (second.source.name, second.source.embodiment) == ("moved", "sawyer")
    assert (second.interval_s, second.min_interval_s) == (1.0, 0.1)


def test_a_pattern_is_looked_for_beside_the_file(tmp_path, monkeypatch):
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "b.mp4"):
        encode_video(tmp_path / "films" / name, np.zeros((12, 16, 16, 3), np.uint8), fps=10)
    path = write(tmp_path, [{"path": "films/*.mp4", "weight": 1}])
    monkeypatch.chdir("/")
    (weighted,) = open_mixture(read_mixture(path), 0.5, 0.2).sources
    assert len(weighted.source) == 2


@pytest.mark.parametrize(
    ("entry", "indices"),
    [
        ({"last_episode": 1}, [0, 1]),
        ({"first_episode": 0, "last_episode": 0}, [0]),
        ({"first_episode": 2}, [2]),
        ({"first_episode": 1, "last_episode": 99}, [1, 2]),
    ],
)
def test_an_entry_may_hold_episodes_out(v30, tmp_path, entry, indices):
    path = write(tmp_path, [{"path": str(v30), "weight": 1, **entry}])
    (weighted,) = open_mixture(read_mixture(path), 0.5, 0.2).sources
    assert [episode.index for episode in weighted.source] == indices


def test_an_entry_without_an_episode_says_what_there_is(v30, tmp_path):
    path = write(tmp_path, [{"path": str(v30), "weight": 1, "first_episode": 3}])
    with pytest.raises(
        DataError, match=r"no episode from `first_episode` \(3\) to `last_episode` \(the end\); it has 0 to 2"
    ):
        open_mixture(read_mixture(path), 0.5, 0.2)


def test_a_data_set_has_one_interval_however_often_it_stands_there(v30, tmp_path):
    own = {"path": str(v30), "weight": 1}
    parts = [{**own, "last_episode": 0}, {**own, "first_episode": 1, "interval_s": 0.4}]
    with pytest.raises(
        DataError, match="source v30 of the mixture stands in it more than once: `interval_s` .* 0.5, 0.2 and 0.4"
    ):
        open_mixture(read_mixture(write(tmp_path, parts)), 0.5, 0.2)
    for change in ({"interval_s": 0.5}, {"name": "other"}):
        parts[1] |= change
        first, second = open_mixture(read_mixture(write(tmp_path, parts)), 0.5, 0.2).sources
        assert (len(first.source), len(second.source)) == (1, 2)


def test_data_sets_that_are_missing_are_told_apart(v30, tmp_path):
    paths = [str(v30), "nope1/*.mp4", "nope2/*.mp4"]
    entries = read_mixture(write(tmp_path, [{"path": path, "weight": 1} for path in paths]))
    assert list(open_mixture(entries, 0.5, 0.2, leave_out_missing=True).left_out) == ["*.mp4", "nope2/*.mp4"]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"interval_s": 0.3}, r"`interval_s` \(0.3\), got 0.5, which holds for sources without; give the source one"),
        ({"interval_s": [0.3, 2]}, r"`interval_s` \(0.3\), got 0.5, which holds for sources without;"),
        ({"min_interval_s": 2.0}, r"`interval_s` \(1, which holds for sources without\), got 2;"),
        ({"interval_s": 0.3, "min_interval_s": 0.4}, r"`interval_s` \(0.3\), got 0.4;"),
    ],
)
def test_times_that_do_not_go_together_name_their_source(v30, tmp_path, entry, message):
    sources = [{"path": str(v30), "weight": 1}, {"path": str(v30), "weight": 1, "name": "slow", **entry}]
    with pytest.raises(DataError, match=f"source slow of the mixture: `min_interval_s` must be at most {message}"):
        open_mixture(read_mixture(write(tmp_path, sources)), 1.0, 0.5)


def test_missing_sources_are_all_named(v30, tmp_path):
    entries = read_mixture(
        write(tmp_path, [{"path": str(path), "weight": 1} for path in (v30, tmp_path / "x", tmp_path / "y")])
    )
    with pytest.raises(DataError, match="2 of 3 data sets cannot be opened.*`leave_out_missing`.* x: .* y: "):
        open_mixture(entries, 0.5, 0.2)


def test_missing_sources_are_left_out_if_asked_for(v30, tmp_path, caplog):
    entries = read_mixture(write(tmp_path, [{"path": str(path), "weight": 1} for path in (v30, tmp_path / "x")]))
    opened = open_mixture(entries, 0.5, 0.2, leave_out_missing=True)
    assert [weighted.source.name for weighted in opened.sources] == ["v30"]
    assert list(opened.left_out) == ["x"] and opened.broken == {}
    assert "left out of the mixture: " in caplog.text and "does not exist" in caplog.text


def test_broken_episodes_are_left_out_if_asked_for(make_v21, tmp_path, caplog):
    root = make_v21()
    (root / "data/chunk-000/episode_000001.parquet").write_bytes(b"no table")
    entries = read_mixture(write(tmp_path, [{"path": str(root), "weight": 1}]))
    assert len(open_mixture(entries, 0.5, 0.2).sources[0].source) == 2
    opened = open_mixture(entries, 0.5, 0.2, skip_broken=True)
    assert [episode.index for episode in opened.sources[0].source] == [0]
    (broken,) = opened.broken[root.name]
    assert broken.index == 1 and f"{root.name}: episode 1 left out: {broken.reason}" in caplog.text


def test_a_broken_episode_that_is_held_out_does_not_matter(tmp_path, caplog):
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "c.mp4"):
        encode_video(tmp_path / "films" / name, np.zeros((12, 16, 16, 3), np.uint8), fps=10)
    (tmp_path / "films" / "b.mp4").write_bytes(b"no film")
    entry = {"path": "films", "weight": 1}
    others = read_mixture(write(tmp_path, [{**entry, "first_episode": 2}]))
    (weighted,) = open_mixture(others, 0.5, 0.2).sources
    assert [episode.index for episode in weighted.source] == [2]
    with_broken = read_mixture(write(tmp_path, [{**entry, "last_episode": 1}]))
    with pytest.raises(DataError, match="b.mp4"):
        open_mixture(with_broken, 0.5, 0.2)
    opened = open_mixture(with_broken, 0.5, 0.2, skip_broken=True)
    assert [episode.index for episode in opened.sources[0].source] == [0]
    assert [episode.index for episode in opened.broken["films"]] == [1]


def test_nothing_is_no_mixture(tmp_path):
    entries = read_mixture(write(tmp_path, [{"path": str(tmp_path / "x"), "weight": 1}]))
    with pytest.raises(DataError, match="1 of 1 data sets cannot be opened"):
        open_mixture(entries, 0.5, 0.2, leave_out_missing=True)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "x"}, "at least `path` and `weight`"),
        ("x", "must be a mapping"),
        ({"path": "x", "weight": 0}, "`weight` must be a number above 0, got 0"),
        ({"path": "x", "weight": None}, "`weight` must be a number above 0, got None"),
        ({"path": "x", "weight": True}, "`weight` must be a number above 0, got True"),
        ({"path": "x", "weight": float("nan")}, "`weight` must be a number above 0, got nan"),
        ({"path": "x", "weight": "1"}, "`weight` must be a number above 0, got '1'"),
        ({"path": "x", "wieght": 1}, r"unknown key 'wieght' \(did you mean 'weight'\?\)"),
        ({"path": "x", "weight": 1, "wieght": 2}, r"unknown key 'wieght' \(did you mean 'weight'\?\)"),
        ({"path": "x", "weight": 1, "fps": -1}, "`fps` must be a number above 0"),
        ({"path": "x", "weight": 1, "interval_s": [1, 0]}, r"`interval_s\[1\]` must be a number above 0"),
        ({"path": "x", "weight": 1, "interval_s": [1.4, 0.7]}, r"`interval_s` must ascend, got \[1.4, 0.7\]"),
        ({"path": "x", "weight": 1, "interval_s": [1, 2, 3]}, "`interval_s` must be a number above 0"),
        ({"path": 3, "weight": 1}, "`path` must be text, got 3"),
        ({"path": None, "weight": 1}, "`path` must be text, got None"),
        ({"path": "x", "weight": 1, "camera": 0}, "`camera` must be text, got 0"),
        (
            {"path": "x", "weight": 1, "first_episode": -1},
            "`first_episode` must be an episode's index, 0 or above, got -1",
        ),
        (
            {"path": "x", "weight": 1, "last_episode": 2.5},
            "`last_episode` must be an episode's index, 0 or above, got 2.5",
        ),
        ({"path": "x", "weight": 1, "last_episode": True}, "`last_episode` must be .* got True"),
    ],
)
def test_bad_entries_are_named(tmp_path, entry, message):
    with pytest.raises(DataError, match=f"mixture.yaml, source 0: .*{message}"):
        read_mixture(write(tmp_path, [entry]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources: []", "must hold one key, `sources`"),
        ("- 1", "must hold one key, `sources`"),
        ("sources: x", "`sources` must be a list, got str"),
        ("sources: [", "is no readable mixture"),
        ("sources: [{path: x, weight: 1, weight: 2}]", "'weight' stands in it more than once"),
        ("sources: !!python/object/apply:os.getcwd []", "is no readable mixture"),
    ],
)
def test_bad_files_are_refused(tmp_path, text, message):
    path = tmp_path / "mixture.yml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_mixture(path)


def test_an_unknown_name_lists_what_is_shipped():
    with pytest.raises(DataError, match="shipped are .*'paper'"):
        read_mixture("papre")


def test_without_a_name_a_data_set_is_called_as_it_is_alone(tmp_path):
    (tmp_path / "films").mkdir()
    encode_video(tmp_path / "films" / "a.mp4", np.zeros((5, 16, 16, 3), np.uint8), 10)
    for given in ("films/a.mp4", "films/*.mp4"):
        (entry,) = read_mixture(write(tmp_path, [{"path": given, "weight": 1}]))
        alone = open_source(tmp_path / given)
        assert (entry.open().name, entry.open().embodiment) == (alone.name, alone.embodiment)
        assert alone.name in ("a", "films")


def test_two_patterns_of_one_folder_are_told_apart(tmp_path):
    (tmp_path / "films").mkdir()
    for name in ("kitchen_1.mp4", "lab_1.mp4"):
        encode_video(tmp_path / "films" / name, np.zeros((5, 16, 16, 3), np.uint8), 10)
    entries = read_mixture(
        write(tmp_path, [{"path": f"films/{room}_*.mp4", "weight": 1} for room in ("kitchen", "lab")])
    )
    assert [entry.source.name for entry in open_mixture(entries, 0.2, 0.1).sources] == ["films", "lab_*.mp4"]
