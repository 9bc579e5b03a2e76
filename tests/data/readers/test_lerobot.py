# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import logging
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from cyclemimic.data import DataError, DemonstrationDataset, FramePairDataset, LeRobotSource, LeRobotWriter
from cyclemimic.data.instructions import instructions_of

from ..conftest import make_frames, read_frame_numbers


def test_v21_and_v30_of_one_recording_are_identical(shared_data):
    old, new = (LeRobotSource(shared_data(f"cr5_banana_lerobot_{version}")) for version in ("v21", "v30"))
    assert (len(old), len(new)) == (8, 3)
    assert (old.fps, old.embodiment, old.camera) == (new.fps, new.embodiment, new.camera)
    assert (new.fps, new.embodiment, new.camera) == (10.0, "cr5", "observation.images.top")
    for one, other in zip(old, new):
        assert one.instruction == other.instruction == "put the banana on the plate"
        assert one.num_frames == other.num_frames
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_array_equal(one.states, other.states)
        chosen = [0, 1, 17, one.num_frames // 2, one.num_frames - 1]
        np.testing.assert_array_equal(one.read_frames(chosen), other.read_frames(chosen))


def test_v30_episode_decodes_whole_and_as_in_v21(shared_data):
    old, new = (LeRobotSource(shared_data(f"cr5_banana_lerobot_{version}"))[1] for version in ("v21", "v30"))
    for one, other in zip(old.iter_frames(), new.iter_frames(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_quirky_v20_set(shared_data):
    source = LeRobotSource(shared_data("gr1_sim_picknplace_lerobot_v20"))
    # Of the two cameras that info.json lists, one has files.
    assert (source.camera, source.embodiment, source.fps) == ("observation.images.ego_view", "GR1ArmsOnly", 20.0)
    assert [episode.num_frames for episode in source] == [416, 470, 470]
    # Each episode has two task strings, the second is "valid".
    assert [episode.instruction for episode in source] == [
        f"pick the {fruit} from the counter and place it in the plate" for fruit in ("pear", "sweet potato", "meat")
    ]
    assert all(episode.instructions == [episode.instruction] for episode in source)
    episode = source[0]
    assert episode.actions.shape == episode.states.shape == (416, 44)
    assert episode.actions.dtype == episode.states.dtype == np.float32
    # The recorded timestamps start at 0.05 s: by them, the last row would have no frame.
    assert episode.read_frames([0, 415]).shape == (2, 256, 256, 3)
    with pytest.raises(DataError, match=r"no camera 'egoview'; give one of \['observation.images.ego_view'\]"):
        LeRobotSource(source.root, camera="egoview")


def test_v30_episodes_of_one_file_are_told_apart(v30):
    source = LeRobotSource(v30)
    assert [read_frame_numbers(episode.read_frames()) for episode in source] == [
        list(range(0, 8)),
        list(range(8, 13)),
        list(range(13, 25)),
    ]
    assert [episode.instruction for episode in source] == ["task 0", "task 1", "task 0"]
    assert [episode.attributes for episode in source] == [{"success": True}, {"success": False}, {"success": True}]
    assert [episode.actions.shape for episode in source] == [(8, 3), (5, 3), (12, 3)]
    np.testing.assert_array_equal(source[1].actions[0], [1, 2, 3])


def test_episodes_can_be_chosen(v30):
    source = LeRobotSource(v30, episodes=[2, 0], embodiment="other", name="mine")
    assert [(episode.source, episode.embodiment, episode.index) for episode in source] == [
        ("mine", "other", 2),
        ("mine", "other", 0),
    ]
    for wrong in ([3], []):
        with pytest.raises(DataError, match="has episodes 0 to 2"):
            LeRobotSource(v30, episodes=wrong)


def test_episode_is_small_to_pickle_and_reads_afterwards(v30):
    episode = pickle.loads(pickle.dumps(LeRobotSource(v30)[2]))
    assert read_frame_numbers(episode.read_frames([3])) == [16]


def test_v21_without_frame_and_episode_columns(make_v21):
    source = LeRobotSource(make_v21())
    assert (len(source), source.embodiment, source[1].attributes) == (2, "arm", {"operator": "me"})
    assert read_frame_numbers(source[1].read_frames([0, 8])) == [10, 18]
    np.testing.assert_array_equal(source[1].actions[:2], [[0, 0], [1, 2]])
    assert source[0].states is None and source[0].instruction == "lift the cube"


def test_wrong_chunk_template_falls_back_to_the_standard_one(make_v21):
    source = LeRobotSource(
        make_v21(
            info={
                "data_path": "data/chunk-{episode_index:03d}/episode_{episode_index:06d}.parquet",
                "video_path": "videos/{video_key}/episode_{episode_index:06d}.mp4",
            }
        )
    )
    assert len(source[1].actions) == len(source[1].read_frames()) == 9


def test_episodes_are_in_chunks_of_the_size_that_the_data_set_says(make_v21):
    root = make_v21({"chunks_size": 1})
    for path in root.glob("*/chunk-000/**/episode_000001.*"):
        moved = root / path.relative_to(root).as_posix().replace("chunk-000", "chunk-001")
        moved.parent.mkdir(parents=True)
        path.rename(moved)
    source = LeRobotSource(root)
    assert [len(episode.actions) for episode in source] == [6, 9]
    assert read_frame_numbers(source[1].read_frames()) == list(range(10, 19))


def test_wider_and_scalar_columns_become_vectors(make_v21):
    root = make_v21(
        features={"observation.state": {"dtype": "float32"}},
        columns={
            "action": lambda n: [[[1.0, 2.0], [3.0, float(i)]] for i in range(n)],
            "observation.state": lambda n: [float(i) for i in range(n)],
            "next.note": lambda n: ["text"] * n,
        },
    )
    episode = LeRobotSource(root)[0]
    np.testing.assert_array_equal(episode.actions[5], [1, 2, 3, 5])
    np.testing.assert_array_equal(episode.states[:, 0], np.arange(6))


@pytest.mark.parametrize(
    "action", [lambda n: [[1.0]] + [[1.0, 2.0, 3.0]] * (n - 1), lambda n: [None] * n, lambda n: ["left"] * n]
)
def test_column_that_is_no_matrix_is_an_error(make_v21, action):
    episode = LeRobotSource(make_v21(columns={"action": action}))[0]
    with pytest.raises(DataError, match="'action' must hold equally many numbers"):
        _ = episode.actions


def test_listed_column_without_data_is_an_error(make_v21):
    episode = LeRobotSource(make_v21(features={"observation.state": {"dtype": "float32"}}))[0]
    with pytest.raises(DataError, match="has no column 'observation.state'"):
        _ = episode.states


def test_most_frequent_task_is_the_instruction(make_v21):
    root = make_v21(
        tasks=["valid", "open the door", "close it"], columns={"task_index": lambda n: [1] * (n - 1) + [0]}
    )
    assert LeRobotSource(root)[0].instruction == "open the door"


def test_each_frame_has_its_own_instruction(make_v21):
    root = make_v21(tasks=["open", " close "], columns={"task_index": lambda n: [0] * 4 + [1] * (n - 4)})
    source = LeRobotSource(root)
    assert [episode.instruction for episode in source] == ["open", "close"]
    assert instructions_of([source]) == ["close", "open"]
    pairs = FramePairDataset([source], 0.2, 0.2)
    frames = DemonstrationDataset([source], chunk_size=2)
    for items in (pairs, frames):
        said = [
            item["instruction"] for item in map(items.__getitem__, range(len(items))) if item["episode_index"] == 1
        ]
        assert said == ["open"] * 4 + ["close"] * (len(said) - 4)
    assert pickle.loads(pickle.dumps(source[1])).instruction_at(8) == "close"


def test_tasks_are_read_once(make_v21):
    root = make_v21(tasks=["valid", "open the door"])
    source = LeRobotSource(root)
    assert source[0].instruction == "open the door"
    (root / "meta/tasks.jsonl").unlink()
    assert [episode.instruction for episode in source] == ["open the door"] * 2


def encode_image(number: int) -> dict:
    file = io.BytesIO()
    Image.fromarray(make_frames(1, number)[0]).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def test_images_in_parquet_are_read(make_v21):
    root = make_v21(
        features={"image": {"dtype": "image"}}, columns={"image": lambda n: [encode_image(30 + i) for i in range(n)]}
    )
    source = LeRobotSource(root, camera="image")
    np.testing.assert_array_equal(source[1].read_frames([8, 0]), make_frames(9, 30)[[8, 0]])


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"no table")])
def test_images_of_the_others_are_read_where_the_first_episodes_are_gone(make_v21, damage):
    root = make_v21(
        features={"image": {"dtype": "image"}}, columns={"image": lambda n: [encode_image(30 + i) for i in range(n)]}
    )
    damage(root / "data/chunk-000/episode_000000.parquet")
    source = LeRobotSource(root, camera="image")
    assert source[1].read_frames([0]).shape[0] == 1
    with pytest.raises(DataError, match="episode 0|episode_000000"):
        source[0].read_frames()


def test_images_of_version_2_are_the_files_own_whatever_its_rows_number(make_v21):
    """Data sets that were merged without numbering their rows anew."""
    root = make_v21(
        features={"image": {"dtype": "image"}},
        columns={
            "image": lambda n: [encode_image(i) for i in range(n)],
            "episode_index": lambda n: [40] * n,
        },
    )
    episode = LeRobotSource(root, camera="image")[1]
    assert len(episode.actions) == 9
    np.testing.assert_array_equal(episode.read_frames(), make_frames(9))


@pytest.mark.parametrize("shape", [[480, 640, 1], [1, 480, 640]])
def test_pictures_of_one_channel_are_not_chosen_where_there_are_others(make_v21, shape):
    """They may be depth that nothing marks, not even the name."""
    root = make_v21(
        features={"cam_top_ir": {"dtype": "image", "shape": shape}},
        columns={"cam_top_ir": lambda n: [encode_image(i) for i in range(n)]},
        camera="camera_1",
    )
    assert LeRobotSource(root).camera == "camera_1"
    assert LeRobotSource(root, camera="cam_top_ir").camera == "cam_top_ir"


def test_a_grey_camera_is_read_where_it_is_the_only_one(make_v21):
    features = {"ir": {"dtype": "image", "shape": [64, 64, 1]}, "action": {"dtype": "float64"}}
    root = make_v21({"features": features}, columns={"ir": lambda n: [encode_image(i) for i in range(n)]})
    assert LeRobotSource(root).camera == "ir"


def test_camera_on_the_scene_is_preferred_to_one_on_the_hand(make_v21, caplog):
    root = make_v21(
        camera="observation.images.wrist_image",
        features={
            key: {"dtype": "video", **extra}
            for key, extra in {
                "observation.images.depth": {"info": {"is_depth_map": True}},
                "observation.images.front": {},
                "observation.images.image": {},
            }.items()
        },
    )
    for camera in ("front", "depth"):
        (root / f"videos/chunk-000/observation.images.{camera}").symlink_to("observation.images.wrist_image")
    with caplog.at_level(logging.INFO):
        source = LeRobotSource(root)
    assert source.camera == "observation.images.front"
    assert "observation.images.front" in caplog.text
    assert LeRobotSource(root, camera="wrist_image").camera == "observation.images.wrist_image"
    with pytest.raises(DataError, match=r"no camera 'depth'; give one of \['observation.images.wrist_image', 'obs"):
        LeRobotSource(root, camera="depth")


def test_set_without_any_camera_is_an_error(make_v21):
    root = make_v21()
    for path in root.rglob("*.mp4"):
        path.unlink()
    with pytest.raises(DataError, match="no camera with files"):
        LeRobotSource(root)


def test_missing_files_of_an_episode_are_named(make_v21):
    root = make_v21()
    (root / "videos/chunk-000/observation.images.top/episode_000001.mp4").unlink()
    (root / "data/chunk-000/episode_000001.parquet").write_bytes(b"no parquet")
    episode = LeRobotSource(root)[1]
    with pytest.raises(DataError, match="lacks the video of episode 1"):
        episode.read_frames()
    with pytest.raises(DataError, match=r"episode_000001.parquet is not a readable Parquet file"):
        _ = episode.actions


def test_video_that_does_not_decode_is_named(make_v21):
    root = make_v21()
    path = root / "videos/chunk-000/observation.images.top/episode_000000.mp4"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"episode_000000.mp4 does not decode"):
        LeRobotSource(root)[0].read_frames()


def test_recording_again_at_the_same_place_is_seen(make_v21, tmp_path):
    import pyarrow
    import pyarrow.parquet as parquet

    root = make_v21()
    assert LeRobotSource(root)[0].actions[1, 1] == 2
    path = root / "data/chunk-000/episode_000000.parquet"
    parquet.write_table(pyarrow.table({"action": [[7.0]] * 6}), path)
    assert LeRobotSource(root)[0].actions.tolist() == [[7.0]] * 6


def test_length_that_disagrees_with_the_rows_is_an_error(make_v21):
    root = make_v21()
    lines = [json.dumps({"episode_index": 0, "tasks": [], "length": 7})]
    (root / "meta/episodes.jsonl").write_text("\n".join(lines))
    episode = LeRobotSource(root)[0]
    with pytest.raises(DataError, match="7 frames but 6 rows"):
        _ = episode.actions
    with pytest.raises(DataError, match="no frame at"):
        episode.read_frames()


def change_info(root, **values):
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("real, stated", [(12.5, 12), (30, 10), (3.75, 4), (29.97, 30), (10, 10)])
def test_a_stated_rate_that_is_not_the_videos_leads_into_no_other_episode(tmp_path, real, stated):
    with LeRobotWriter(tmp_path / "set", real, "arm", ["x"]) as writer:
        for first in (0, 20):
            writer.add_episode(make_frames(20, first), np.zeros((20, 1)), "go")
    change_info(tmp_path / "set", fps=stated)
    numbers = [read_frame_numbers(episode.read_frames()) for episode in LeRobotSource(tmp_path / "set")]
    assert numbers == [list(range(20)), list(range(20, 40))]


def test_where_a_part_of_a_file_ends_may_be_left_unsaid(v30):
    import pyarrow.parquet as parquet

    (path,) = (v30 / "meta/episodes").rglob("*.parquet")
    table = parquet.read_table(path)
    key = "videos/observation.images.main/to_timestamp"
    ends = table.column(key).to_pylist()
    parquet.write_table(table.drop_columns([key]), path)
    assert read_frame_numbers(LeRobotSource(v30)[1].read_frames()) == list(range(8, 13))
    # Or be when the last frame is shown.
    shown = table.set_column(table.schema.get_field_index(key), key, [[end - 0.1 for end in ends]])
    parquet.write_table(shown, path)
    assert read_frame_numbers(LeRobotSource(v30)[1].read_frames()) == list(range(8, 13))
    early = table.set_column(table.schema.get_field_index(key), key, [[end - 0.2 for end in ends]])
    parquet.write_table(early, path)
    with pytest.raises(DataError, match="an episode of 5 frames at 10 a second does not fit in its 0.30 s of it"):
        LeRobotSource(v30)[1].read_frames()


def test_a_missing_file_does_not_change_the_camera(make_v21):
    root = make_v21(features={"observation.images.wrist": {"dtype": "video"}})
    videos = root / "videos/chunk-000"
    shutil.copytree(videos / "observation.images.top", videos / "observation.images.wrist")
    (videos / "observation.images.top/episode_000000.mp4").unlink()
    source = LeRobotSource(root)
    assert (source.camera, len(source.cameras)) == ("observation.images.top", 2)
    with pytest.raises(DataError, match="lacks the video of episode 0"):
        source[0].read_frames()
    assert len(source[1].read_frames()) == 9


def test_what_is_not_read_is_said(make_v21, caplog):
    features = {"observation.images.top": {"dtype": "video"}, "action.arm": {"dtype": "float32"}}
    root = make_v21({"features": features}, tasks=["valid", "open the door"])
    assert LeRobotSource(root)[0].actions is None
    assert "v21: actions are read from one feature, `action`; not read are ['action.arm']" in caplog.text
