# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from cyclemimic.data import DataError, FramePairDataset, RldsSource, open_source

from ..conftest import make_frames
from .rlds_records import STEPS, encode_episode, encode_image, tensor, tree, write_rlds

FRAMES = make_frames(7, size=8)


@pytest.fixture
def rlds(tmp_path):
    return write_rlds(
        tmp_path / "arms" / "1.0.0",
        [[encode_episode(FRAMES[:3]), encode_episode(FRAMES[3:], b"pull")], [encode_episode(FRAMES[:2])]],
    )


def test_episodes_are_what_was_written(rlds):
    source = RldsSource(rlds, fps=5, embodiment="widowx")
    assert (source.name, source.camera, source.cameras) == ("arms", "image", ["image", "wrist_image"])
    assert [episode.num_frames for episode in source] == [3, 4, 2]
    second = source[1]
    assert (second.instruction, second.fps, second.embodiment, second.index) == ("pull", 5.0, "widowx", 1)
    np.testing.assert_array_equal(second.read_frames(), FRAMES[3:])
    np.testing.assert_array_equal(second.read_frames([3, 1]), FRAMES[[6, 4]])
    np.testing.assert_array_equal(second.actions, np.arange(12, dtype=np.float32).reshape(4, 3) + 0.5)
    np.testing.assert_array_equal(second.states, np.arange(8, dtype=np.float32).reshape(4, 2))


def test_another_camera_and_some_episodes(rlds):
    source = RldsSource(rlds, 5, camera="wrist_image", episodes=[2, 0])
    assert source.embodiment == source.name == "arms"
    assert [episode.index for episode in source] == [2, 0]
    np.testing.assert_array_equal(source[0].read_frames(), 255 - FRAMES[:2])


def test_opened_by_the_folder_above_and_by_workers(rlds):
    source = open_source(rlds.parent, fps=5)
    assert pickle.loads(pickle.dumps(source[0])).read_frames().shape == (3, 8, 8, 3)
    assert len(FramePairDataset([source], 0.4, 0.2)) == 2 + 3 + 1


def test_parts_of_an_action_are_joined_in_their_order(tmp_path):
    parts = {"world_vector": tensor("float32", 3), "terminate": {"text": {}}, "gripper": tensor("float32", 1)}
    episode = encode_episode(
        FRAMES[:2],
        action=None,
        action__world_vector=np.arange(6, dtype=np.float32),
        action__gripper=np.array([8, 9], np.float32),
        action__terminate=[b"x", b"y"],
    )
    source = RldsSource(write_rlds(tmp_path / "r", [[episode]], {**STEPS, "action": tree(parts)}), 5)
    assert source[0].actions.tolist() == [[0, 1, 2, 8], [3, 4, 5, 9]]


def test_without_words_actions_and_states(tmp_path):
    observation = tree({"image": STEPS["observation"]["featuresDict"]["features"]["image"]})
    steps = {"observation": observation, "is_first": STEPS["is_first"]}
    source = RldsSource(write_rlds(tmp_path / "r", [[encode_episode(FRAMES[:2])]], steps), 5)
    assert (source[0].instruction, source[0].actions, source[0].states) == (None, None, None)


def test_states_are_those_of_the_first_name_alone(tmp_path):
    observation = STEPS["observation"]["featuresDict"]["features"] | {"proprio": tensor("float32", 1)}
    episode = encode_episode(FRAMES[:2], observation__proprio=np.array([8, 9], np.float32))
    source = RldsSource(write_rlds(tmp_path / "r", [[episode]], {**STEPS, "observation": tree(observation)}), 5)
    assert source[0].states.tolist() == [[0, 1], [2, 3]]


def test_images_in_a_part_of_the_observation(tmp_path):
    observation = dict(STEPS["observation"]["featuresDict"]["features"])
    pictures = tree({"top": observation.pop("image"), "side": observation.pop("wrist_image")})
    frames = {
        f"observation__images__{name}": [encode_image(frame) for frame in FRAMES[:3]] for name in ("top", "side")
    }
    episode = encode_episode(FRAMES[:3], image=None, wrist_image=None, **frames)
    steps = {**STEPS, "observation": tree(observation | {"images": pictures})}
    source = RldsSource(write_rlds(tmp_path / "r", [[episode]], steps), 5, camera="side")
    assert source.cameras == ["images/top", "images/side"] and source.camera == "images/side"
    np.testing.assert_array_equal(source[0].read_frames(), FRAMES[:3])


def test_rows_within_a_step(tmp_path):
    """TFDS has two ways to say that an action has three numbers; of rows of any length nothing is read."""
    row = {"sequence": {"feature": tensor("float32"), "length": "3"}}
    ragged = {"sequence": {"feature": tensor("int64"), "length": "-1"}}
    observation = tree(STEPS["observation"]["featuresDict"]["features"] | {"state": ragged})
    episode = encode_episode(FRAMES[:4], a_first=np.arange(9))
    plain = RldsSource(write_rlds(tmp_path / "plain", [[encode_episode(FRAMES[:4])]]), 5)
    source = RldsSource(write_rlds(tmp_path / "r", [[episode]], {"a_first": ragged, **STEPS, "action": row}), 5)
    assert source[0].num_frames == 4
    stateless = RldsSource(write_rlds(tmp_path / "s", [[episode]], {**STEPS, "observation": observation}), 5)
    assert stateless[0].states is None and source[0].states.shape == (4, 2)
    np.testing.assert_array_equal(source[0].actions, plain[0].actions)
    np.testing.assert_array_equal(source[0].read_frames(), FRAMES[:4])


def test_the_bridge_sample(shared_data):
    source = open_source(shared_data("bridge_rlds") / "bridge_dataset", fps=5)
    # Its README: 17 episodes of 10 steps, 64 x 64 pixels, actions and states of 7 dimensions.
    assert [episode.num_frames for episode in source] == [10] * 17
    assert source.camera == "image_0" and len(source.cameras) == 4
    for episode in source:
        assert episode.read_frames().shape == (10, 64, 64, 3)
        assert episode.actions.shape == episode.states.shape == (10, 7)
        assert np.isfinite(episode.actions).all() and episode.instruction


@pytest.mark.parametrize(
    ("changes", "read", "message"),
    [
        ({"image": [b"no picture"] * 3}, lambda e: e.read_frames(), "does not decode"),
        ({"image": [b"x"]}, lambda e: e.read_frames(), "does not hold 3 images"),
        ({"image": None}, lambda e: e.read_frames(), "does not hold 3 images"),
        (
            {"action": np.zeros(8, np.float32)},
            lambda e: e.actions,
            "does not hold 3 plain numbers for each of 3 steps",
        ),
        ({"action": [b"x"]}, lambda e: e.actions, "does not hold 3 plain numbers"),
        ({"language_instruction": [b"\xff\xfe"] * 3}, lambda e: e.instruction, "is not UTF-8 text"),
    ],
)
def test_broken_episodes_are_one_line(tmp_path, changes, read, message):
    source = RldsSource(write_rlds(tmp_path / "r", [[encode_episode(FRAMES[:3], **changes)]]), 5)
    with pytest.raises(DataError, match=message) as error:
        read(source[0])
    assert "arms-train.tfrecord-00000-of-00001" in str(error.value)


def test_an_episode_without_steps_is_refused(tmp_path):
    root = write_rlds(tmp_path / "r", [[encode_episode(FRAMES[:3]), encode_episode(FRAMES[:0])]])
    with pytest.raises(DataError, match="has no step, or a part of one"):
        RldsSource(root, 5)
    assert len(RldsSource(root, 5, episodes=[0])) == 1


def test_a_part_of_a_step_is_refused(tmp_path):
    steps = {name: STEPS[name] for name in ("observation", "action")}
    episode = encode_episode(FRAMES[:3], state=np.zeros(5, np.float32))
    with pytest.raises(DataError, match="has no step, or a part of one"):
        RldsSource(write_rlds(tmp_path / "r", [[episode]], steps), 5)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "dataset_info.json").unlink(), "lacks dataset_info.json"),
        (lambda root: (root / "features.json").write_text("{"), "features.json is not valid JSON"),
        (lambda root: (root / "features.json").write_text("[" * 100_000), "features.json is not valid JSON"),
        (lambda root: (root / "features.json").write_text("[]"), "must hold a JSON object, got list"),
        (lambda root: edit(root / "features.json", lambda c: c.update(featuresDict=3)), "not as TFDS writes it"),
        (lambda root: edit(root / "features.json", lambda c: c.update(featuresDict={"features": {}})), "has no image"),
        (lambda root: edit(root / "dataset_info.json", lambda c: c.pop("splits")), "splits in dataset_info.json"),
        (
            lambda root: edit(root / "dataset_info.json", lambda c: c["splits"][0].update(name="test")),
            r"has no split 'train', but \['test'\]",
        ),
        (
            lambda root: edit(root / "dataset_info.json", lambda c: c["splits"][0].update(shardLengths=["2", "2"])),
            "has 1 records, dataset_info.json says 2",
        ),
        (lambda root: next(root.glob("*00001-of*")).unlink(), "has 1 files of split train, dataset_info.json says 2"),
    ],
)
def test_broken_data_sets_are_one_line(rlds, damage, message):
    damage(rlds)
    with pytest.raises(DataError, match=message):
        RldsSource(rlds, 5)


def test_a_link_out_of_the_folder_is_refused(rlds, tmp_path):
    shard = next(rlds.glob("*00001-of*"))
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="leads outside"):
        RldsSource(rlds, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "is RLDS, which does not tell its frame rate; give it as `fps`"),
        ({"fps": 5, "camera": "top"}, r"has no camera 'top'; give one of \['image', 'wrist_image'\]"),
        ({"fps": 5, "camera": "depth"}, "has no camera 'depth'"),
        ({"fps": 5, "episodes": [3]}, "`episodes` must name at least one"),
        ({"fps": 0.0}, "`fps` must be above 0, got 0.0"),
    ],
)
def test_bad_arguments_are_one_line(rlds, arguments, message):
    with pytest.raises(ValueError, match=message):
        open_source(rlds, **arguments)


def test_versions_side_by_side_are_not_guessed(rlds):
    write_rlds(rlds.parent / "2.0.0", [[encode_episode(FRAMES[:3])]])
    with pytest.raises(DataError, match=r"holds \['1.0.0', '2.0.0'\]; give one of those folders"):
        open_source(rlds.parent, fps=5)


def test_each_step_has_its_own_instruction(tmp_path):
    texts = [b"open", b"close it", b"close it"]
    source = RldsSource(write_rlds(tmp_path / "r", [[encode_episode(FRAMES[:3], language_instruction=texts)]]), 5)
    assert source[0].instruction == "close it" and source[0].instructions == ["close it", "open"]
    assert [source[0].instruction_at(index) for index in range(3)] == ["open", "close it", "close it"]


def test_blank_steps_go_on_with_what_was_said(tmp_path):
    texts = [b"open", b"", b"close"]
    source = RldsSource(write_rlds(tmp_path / "r", [[encode_episode(FRAMES[:3], language_instruction=texts)]]), 5)
    assert [source[0].instruction_at(index) for index in range(3)] == ["open", "open", "close"]
    first_alone = [[encode_episode(FRAMES[:3], language_instruction=[b"open", b"", b""])]]
    source = RldsSource(write_rlds(tmp_path / "s", first_alone), 5)
    assert (source[0].instruction, source[0].instructions) == ("open", ["open"])
