# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest

from cyclemimic.data import DataError, LeRobotSource


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ("{}", "codebase_version 'None'"),
        ('{"codebase_version": "v1.6"}', "'v1.6'"),
        ('{"codebase_version": "v2.1"}', "fps"),
        ('{"codebase_version": "v2.1", "fps": 0}', "fps"),
        ('{"codebase_version": "v2.1", "fps": "10"}', "fps"),
        ('{"codebase_version": "v2.1", "fps": 10, "features": []}', "features"),
        ('{"codebase_version": "v2.1", "fps": 10, "features": {}}', "camera"),
    ],
)
def test_info_that_cannot_be_used_is_an_error_of_one_line(make_v21, text, message):
    root = make_v21()
    (root / "meta/info.json").write_text(text)
    with pytest.raises(DataError, match=message) as raised:
        LeRobotSource(root)
    assert "\n" not in str(raised.value) and str(root) in str(raised.value)


@pytest.mark.parametrize("robot_type", ["unknown", " Unknown ", "N/A", "none", "null", "", None])
def test_the_name_stands_in_for_a_robot_that_is_not_told(make_v21, robot_type):
    """Two such data sets must not become one body."""
    root = make_v21(info={"robot_type": robot_type})
    assert (LeRobotSource(root).embodiment, LeRobotSource(root, name="pusht").embodiment) == ("v21", "pusht")


def test_folder_without_episodes_is_an_error(make_v21, v30):
    root = make_v21()
    (root / "meta/episodes.jsonl").write_text("\n")
    with pytest.raises(DataError, match="zero episodes"):
        LeRobotSource(root)
    (root / "meta/episodes.jsonl").unlink()
    with pytest.raises(DataError, match="lacks meta/episodes.jsonl"):
        LeRobotSource(root)
    shutil.rmtree(v30 / "meta/episodes")
    with pytest.raises(DataError, match="zero episodes"):
        LeRobotSource(v30)


@pytest.mark.parametrize("line", ["{", "3", '{"length": 5}', '{"episode_index": 0, "length": 0}'])
def test_episode_lines_that_cannot_be_used_are_errors(make_v21, line):
    root = make_v21()
    (root / "meta/episodes.jsonl").write_text(line)
    with pytest.raises(DataError, match=r"episodes\.jsonl"):
        LeRobotSource(root)


def test_an_episode_that_is_listed_twice_is_an_error(make_v21):
    path = (root := make_v21()) / "meta/episodes.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[1])
    with pytest.raises(DataError, match="lists episode 1 more than once"):
        LeRobotSource(root)


def test_tasks_without_words_say_nothing(make_v21):
    root = make_v21()
    path = root / "meta/episodes.jsonl"
    rows = [json.loads(line) | {"tasks": [None]} for line in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, rows)))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": None}))
    assert [episode.instruction for episode in LeRobotSource(root)] == [None, None]


def test_whole_numbers_that_pandas_has_made_floats(v30):
    import pyarrow
    import pyarrow.parquet as parquet

    path = v30 / "meta/episodes/chunk-000/file-000.parquet"
    before = [(episode.index, episode.num_frames) for episode in LeRobotSource(v30)]
    table = parquet.read_table(path)
    for name in ("episode_index", "length", "data/chunk_index", "data/file_index"):
        place = table.column_names.index(name)
        table = table.set_column(place, name, table[name].cast(pyarrow.float64()))
    parquet.write_table(table, path)
    source = LeRobotSource(v30)
    assert [(episode.index, episode.num_frames) for episode in source] == before
    assert source[1].read_frames().shape[0] == before[1][1]


@pytest.mark.parametrize(
    "template",
    [
        "../outside/episode_{episode_index:06d}.mp4",
        "/etc/episode_{episode_index:06d}.mp4",
        "videos/../../{video_key}/{episode_index}.mp4",
    ],
)
def test_templates_that_lead_outside_are_refused(make_v21, template):
    with pytest.raises(DataError, match="outside the data set's folder"):
        LeRobotSource(make_v21(info={"video_path": template}))


def test_camera_key_that_leads_outside_is_refused(make_v21):
    root = make_v21(features={"../../../secret": {"dtype": "video"}})
    with pytest.raises(DataError, match="outside the data set's folder"):
        LeRobotSource(root, camera="../../../secret")


def test_links_that_lead_outside_are_refused(make_v21, tmp_path):
    root = make_v21()
    (tmp_path / "elsewhere").mkdir()
    video = root / "videos/chunk-000/observation.images.top/episode_000000.mp4"
    shutil.move(video, tmp_path / "elsewhere" / "video.mp4")
    video.symlink_to(tmp_path / "elsewhere" / "video.mp4")
    with pytest.raises(DataError, match="outside the data set's folder"):
        LeRobotSource(root)


def test_links_of_the_hub_cache_are_followed(make_v21, tmp_path):
    root = make_v21()
    cache = tmp_path / "datasets--me--set"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    shutil.move(root, cache / "snapshots" / "abc")
    for number, path in enumerate(sorted((cache / "snapshots" / "abc").rglob("*.*"))):
        if path.is_file():
            shutil.move(path, cache / "blobs" / str(number))
            path.symlink_to(cache / "blobs" / str(number))
    source = LeRobotSource(cache / "snapshots" / "abc", name="set")
    assert len(source[0].actions) == len(source[0].read_frames()) == 6


@pytest.mark.parametrize(
    "template", ["{episode_index.__class__}", "{other}", "{episode_index:09999999d}", "{", "{video_key!r}", 3]
)
def test_templates_with_unknown_parts_are_refused(make_v21, template):
    with pytest.raises(DataError, match="video_path in meta/info.json is not a usable template"):
        LeRobotSource(make_v21(info={"video_path": template}))


def test_v30_episode_table_must_have_its_columns(v30):
    import pyarrow.parquet as parquet

    path = v30 / "meta/episodes/chunk-000/file-000.parquet"
    parquet.write_table(parquet.read_table(path).drop_columns(["length"]), path)
    with pytest.raises(DataError, match="lacks the columns"):
        LeRobotSource(v30)


def test_v30_without_task_strings_in_the_episodes_uses_the_task_table(v30):
    import pyarrow.parquet as parquet

    path = v30 / "meta/episodes/chunk-000/file-000.parquet"
    parquet.write_table(parquet.read_table(path).drop_columns(["tasks"]), path)
    assert [episode.instruction for episode in LeRobotSource(v30)] == ["task 0", "task 1", "task 0"]


def test_info_of_the_writer_is_what_lerobot_needs(v30):
    info = json.loads((v30 / "meta/info.json").read_text())
    needed = {
        "codebase_version": "v3.0",
        "robot_type": "sawyer",
        "total_episodes": 3,
        "total_frames": 25,
        "total_tasks": 2,
        "chunks_size": 1000,
        "fps": 10,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    assert needed.items() <= info.items()
    assert info["features"]["action"] == {"dtype": "float32", "shape": [3], "names": ["x", "y", "gripper"]}
    assert info["features"]["observation.images.main"]["shape"] == [32, 32, 3]


def test_the_task_table_may_have_further_columns(v30):
    import pyarrow
    import pyarrow.parquet as parquet

    path = v30 / "meta/tasks.parquet"
    table = parquet.read_table(path)
    parquet.write_table(table.add_column(0, "category", pyarrow.array(["a", "b"])), path)
    test_v30_without_task_strings_in_the_episodes_uses_the_task_table(v30)
