# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from cyclemimic.data import DataError, LeRobotSource, LeRobotWriter
from cyclemimic.data.writers.lerobot_files import CHUNKS_SIZE, RollingParquet, RollingVideo
from cyclemimic.data.writers.video import VideoWriter

from ..conftest import make_frames, read_frame_numbers


def add(writer: LeRobotWriter, length: int = 4, first: int = 0, **changes) -> None:
    values = {"frames": make_frames(length, first), "actions": np.zeros((length, 2)), "instruction": "push"}
    writer.add_episode(**(values | changes))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path):
    rng = np.random.default_rng(0)
    written = []
    with LeRobotWriter(tmp_path / "set", 12.5, "arm", ["a", "b"], ["s", "t", "u"], camera="front") as writer:
        for index in range(4):
            length = 3 + index
            actions, states = rng.normal(size=(length, 2)), rng.normal(size=(length, 3))
            attributes = {"success": index % 2 == 0, "seed": index, "score": index / 2, "note": f"n{index}"}
            writer.add_episode(make_frames(length, 3 * index), actions, f"task {index}", states, attributes)
            written.append((length, actions, states, attributes))
    source = LeRobotSource(tmp_path / "set")
    assert (source.fps, source.embodiment, source.camera, len(source)) == (12.5, "arm", "front", 4)
    for index, (episode, (length, actions, states, attributes)) in enumerate(zip(source, written)):
        assert (episode.num_frames, episode.instruction, episode.attributes) == (length, f"task {index}", attributes)
        np.testing.assert_array_equal(episode.actions, actions.astype(np.float32))
        np.testing.assert_array_equal(episode.states, states.astype(np.float32))
        assert read_frame_numbers(episode.read_frames()) == list(range(3 * index, 3 * index + length))


def test_nothing_is_there_before_the_end_and_nothing_after_an_exception(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with LeRobotWriter(tmp_path / "set", 10, "arm", ["a", "b"]) as writer:
            add(writer)
            assert names_in(tmp_path) == ["set.partial"]
            raise KeyboardInterrupt
    assert names_in(tmp_path) == []


def test_a_set_that_is_there_stays(tmp_path):
    root = tmp_path / "set"
    with LeRobotWriter(root, 10, "arm", ["a", "b"]) as writer:
        add(writer)
    with pytest.raises(DataError, match="exists already; give another folder$"):
        LeRobotWriter(root, 10, "arm", ["a", "b"]).__enter__()
    assert len(LeRobotSource(root)) == 1 and names_in(tmp_path) == ["set"]


def test_set_without_episodes_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no episode was added"), LeRobotWriter(tmp_path / "set", 10, "arm", ["a"]):
        pass
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"frames": make_frames(4).astype(np.float32)}, "`frames` must be uint8"),
        ({"frames": make_frames(0)}, "`frames` must be uint8 of shape"),
        ({"frames": list(make_frames(4))}, "`frames` must be a NumPy array .*, got list"),
        ({"frames": torch.from_numpy(make_frames(4))}, "`frames` must be a NumPy array .*, got Tensor"),
        ({"frames": make_frames(4, size=30)}, "of the first episode's"),
        ({"frames": make_frames(4)[:, :31]}, "even"),
        ({"actions": np.zeros((3, 2))}, "`actions` must be finite and of shape"),
        ({"actions": np.zeros((4, 3))}, "`actions` must be finite and of shape"),
        ({"actions": np.full((4, 2), np.nan)}, "`actions` must be finite"),
        ({"states": np.zeros((4, 2))}, "`states` and `state_names` go together"),
        ({"instruction": " "}, "`instruction`"),
        ({"attributes": {"success": None}}, "`attributes` must be"),
        ({"attributes": {"length": 3}}, "`attributes` must be"),
        ({"attributes": {"stats/x": 3}}, "`attributes` must be"),
        ({"attributes": {"other": 3}}, "those of the first episode"),
    ],
)
def test_episode_that_does_not_fit_is_refused_and_the_others_kept(tmp_path, changes, message):
    with LeRobotWriter(tmp_path / "set", 10, "arm", ["a", "b"]) as writer:
        add(writer)
        with pytest.raises(ValueError, match=message):
            add(writer, **changes)
        add(writer, first=4)
    episodes = list(LeRobotSource(tmp_path / "set"))
    assert [read_frame_numbers(episode.read_frames()) for episode in episodes] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_attributes_keep_the_types_of_the_first_episode(tmp_path):
    with LeRobotWriter(tmp_path / "set", 10, "arm", ["a", "b"]) as writer:
        add(writer, attributes={"score": 1.0})
        with pytest.raises(ValueError, match="those of the first episode"):
            add(writer, attributes={"score": True})
        add(writer, attributes={"score": 0.5})
    assert [episode.attributes["score"] for episode in LeRobotSource(tmp_path / "set")] == [1.0, 0.5]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"fps": 0}, "`fps` must be a number above 0, got 0"),
        ({"fps": "10"}, "`fps` must be a number above 0, got '10'"),
        ({"fps": None}, "`fps` must be a number above 0, got None"),
        ({"camera": "../x"}, "`camera`"),
        ({"camera": 3}, "`camera` must be a name without slashes, got 3"),
        ({"action_names": []}, "`action_names`"),
        ({"action_names": 3}, "`action_names` must be a list of names, .*, got 3"),
        ({"action_names": "xyz"}, "`action_names` must be a list of names, .*, got 'xyz'"),
        ({"action_names": ["x", "x"]}, "`action_names` must be a list of names, one a dimension and each another"),
        ({"action_names": ["x", 1]}, r"`action_names` must be a list of names, .*, got \['x', 1\]"),
        ({"state_names": []}, "`state_names`"),
        ({"state_names": "xyz"}, "`state_names` must be a list of names, .*, got 'xyz'"),
    ],
)
def test_arguments_are_checked(tmp_path, arguments, message):
    values = {"root": tmp_path / "set", "fps": 10, "robot_type": "arm", "action_names": ["a"]}
    with pytest.raises(ValueError, match=message):
        LeRobotWriter(**(values | arguments))


def test_writing_outside_the_block_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="`with` block"):
        add(LeRobotWriter(tmp_path / "set", 10, "arm", ["a", "b"]))


def test_too_little_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("cyclemimic.data.writers.lerobot_writer._MIN_FREE_BYTES", 1 << 60)
    with pytest.raises(DataError, match="MiB of disk are free, at least"):
        LeRobotWriter(tmp_path / "set", 10, "arm", ["a"]).__enter__()
    assert names_in(tmp_path) == []


def test_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match="the disk is full"):
        with LeRobotWriter(tmp_path / "set", 10, "arm", ["a", "b"]) as writer:
            add(writer)
            monkeypatch.setattr(VideoWriter, "write", fail)
            add(writer)
    assert names_in(tmp_path) == []


def test_failed_episode_cannot_become_part_of_a_set(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="writing an episode failed"):
        with LeRobotWriter(tmp_path / "set", 10, "arm", ["a", "b"]) as writer:
            add(writer)
            monkeypatch.setattr(RollingVideo, "append", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O error")))
            with pytest.raises(DataError, match="cannot be written"):
                add(writer)
    assert names_in(tmp_path) == []


def test_files_roll_over_and_chunks_after_them(tmp_path):
    video = RollingVideo(tmp_path, "front", 10, max_bytes=4000)
    places = [video.append(make_frames(20, index)) for index in range(12)]
    video.close()
    files = [place["videos/front/file_index"] for place in places]
    assert files[0] == 0 and files[-1] > 1 and np.all(np.diff(files) >= 0)
    for index, place in enumerate(places):
        is_new = index == 0 or files[index] != files[index - 1]
        assert (place["videos/front/from_timestamp"] == 0) == is_new
        assert place["videos/front/to_timestamp"] == pytest.approx(place["videos/front/from_timestamp"] + 2)
    assert len(list(tmp_path.rglob("*.mp4"))) == files[-1] + 1

    rows = RollingParquet(tmp_path, max_bytes=1)
    rows.file_index = CHUNKS_SIZE - 2
    places = [rows.append({"index": np.arange(3)}) for _ in range(4)]
    rows.close()
    found = [(place["data/chunk_index"], place["data/file_index"]) for place in places]
    assert found == [(0, 998), (0, 999), (1, 0), (1, 1)]


def test_every_file_takes_as_many_episodes_of_one_size(tmp_path):
    random = np.random.default_rng(0)
    rows = RollingParquet(tmp_path, max_bytes=27_000)
    # 9.4 kB each: a third one would make 28.1 kB of a file.
    places = [rows.append({"index": random.integers(0, 1 << 62, 1000)}) for _ in range(6)]
    rows.close()
    assert [place["data/file_index"] for place in places] == [0, 0, 1, 1, 2, 2]


def test_a_file_an_episode_is_read_back_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr("cyclemimic.data.writers.lerobot_writer._VIDEO_FILE_MB", 0)
    monkeypatch.setattr("cyclemimic.data.writers.lerobot_writer._DATA_FILE_MB", 0)
    with LeRobotWriter(tmp_path / "set", 10, "arm", ["a", "b"]) as writer:
        for index in range(3):
            add(writer, first=4 * index, actions=np.full((4, 2), index))
    assert len(list(tmp_path.rglob("*.mp4"))) == len(list((tmp_path / "set" / "data").rglob("*.parquet"))) == 3
    for index, episode in enumerate(LeRobotSource(tmp_path / "set")):
        assert read_frame_numbers(episode.read_frames([0, 3])) == [4 * index, 4 * index + 3]
        assert (episode.actions == index).all()


def test_statistics_are_those_of_the_data(v30):
    stats = json.loads((v30 / "meta/stats.json").read_text())
    source = LeRobotSource(v30)
    actions = np.concatenate([episode.actions for episode in source])
    for name, expected in {
        "min": actions.min(0),
        "max": actions.max(0),
        "mean": actions.mean(0),
        "std": actions.std(0),
        "q01": np.quantile(actions, 0.01, axis=0),
        "q99": np.quantile(actions, 0.99, axis=0),
        "count": [25],
    }.items():
        np.testing.assert_allclose(stats["action"][name], expected, rtol=1e-5)
    frames = np.concatenate([make_frames(8), make_frames(5, 8), make_frames(12, 13)]) / 255
    image = stats["observation.images.main"]
    np.testing.assert_allclose(np.squeeze(image["mean"]), frames.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(np.squeeze(image["std"]), frames.std((0, 1, 2)), rtol=1e-6)
    assert np.shape(image["q50"]) == (3, 1, 1) and image["count"] == [25]
    assert set(stats) == {
        *("action", "observation.state", "observation.images.main"),
        *("timestamp", "frame_index", "episode_index", "index", "task_index"),
    }


def test_datasets_library_reads_the_tables_with_lerobots_schema(v30):
    """lerobot loads both tables through `datasets`, the frames with features made of info.json like this."""
    datasets = pytest.importorskip("datasets")
    info = json.loads((v30 / "meta/info.json").read_text())
    features = {
        key: datasets.Value(feature["dtype"])
        if feature["shape"] == [1]
        else datasets.Sequence(datasets.Value(feature["dtype"]), length=feature["shape"][0])
        for key, feature in info["features"].items()
        if feature["dtype"] != "video"
    }
    cache = str(v30.parent / "cache")
    frames = datasets.Dataset.from_parquet(
        str(v30 / "data/chunk-000/file-000.parquet"), features=datasets.Features(features), cache_dir=cache
    )
    assert frames["index"][:] == list(range(25))
    assert frames[8]["timestamp"] == 0 and frames[8]["episode_index"] == 1
    episodes = datasets.Dataset.from_parquet(str(v30 / "meta/episodes/chunk-000/file-000.parquet"), cache_dir=cache)
    assert episodes[1]["tasks"] == ["task 1"] and episodes[1]["success"] is False
    assert (episodes[1]["dataset_from_index"], episodes[1]["dataset_to_index"]) == (8, 13)
    key = "videos/observation.images.main"
    assert (episodes[1][f"{key}/from_timestamp"], episodes[1][f"{key}/to_timestamp"]) == (0.8, 1.3)
    assert np.shape(episodes[1]["stats/observation.images.main/mean"]) == (3, 1, 1)
    assert episodes[1]["stats/action/count"] == [5]


def test_pandas_finds_the_tasks_in_the_index(v30):
    pandas = pytest.importorskip("pandas")
    tasks = pandas.read_parquet(v30 / "meta/tasks.parquet")
    assert tasks.index.name == "task" and tasks.loc["task 1"].task_index == 1


def test_timestamps_are_exact_to_lerobots_tolerance(v30):
    """lerobot picks frames by pts and refuses those further than 1e-4 s from `from_timestamp + timestamp`."""
    with av.open(str(v30 / "videos/observation.images.main/chunk-000/file-000.mp4")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(25) / 10, atol=1e-5)


def test_leftovers_of_a_killed_run_do_not_matter(tmp_path):
    (tmp_path / "set.partial").mkdir()
    (tmp_path / "set.partial" / "junk").write_text("junk")
    (tmp_path / "set.partial" / ".unfinished").touch()
    with LeRobotWriter(tmp_path / "set", 10, "arm", ["a", "b"]) as writer:
        add(writer)
    assert names_in(tmp_path) == ["set"] and not (tmp_path / "set" / "junk").exists()
