# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic.data import DataError, LeRobotSource, open_source


def test_lerobot_set_is_opened_with_its_arguments(v30):
    source = open_source(v30, camera="main", embodiment="other", episodes=[1], name="mine")
    assert isinstance(source, LeRobotSource)
    assert (source.name, source.embodiment, source[0].index, len(source)) == ("mine", "other", 1, 1)


def test_a_rate_that_a_lerobot_set_does_not_take_is_told_of(v30, caplog):
    assert open_source(v30, fps=10).fps == 10 and not caplog.records
    assert open_source(v30, fps=2).fps == 10
    assert "v30: has 10 frames a second, and is read so, whatever `fps` says (2)" in caplog.text


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text(""), "is a file, and no video"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: (path / "other").mkdir(parents=True), "is no data set"),
        (lambda path: [path.mkdir(), (path / "a.mp4").touch(), (path / "0.png").touch()], "numbered images and video"),
        (
            lambda path: [path.mkdir(), (path / "map.png").touch()],
            "images that no number names, which is not supported",
        ),
        (lambda path: [path.mkdir(), (path / "empty.mp4").touch()], "empty.mp4 does not decode"),
        (lambda path: [path.mkdir(), (path / "a.tfrecord-00000-of-00001").touch()], "RLDS"),
        (
            lambda path: [(path / "drawer" / "meta").mkdir(parents=True), (path / "drawer/meta/info.json").touch()],
            r"holds \['drawer'\]; give one of those folders",
        ),
        (
            lambda path: [
                (path / "bridge" / "1.0.0").mkdir(parents=True),
                (path / "bridge/1.0.0/features.json").touch(),
            ],
            r"holds \['bridge'\]; give one of those folders",
        ),
    ],
)
def test_what_is_no_data_set_is_said_in_one_line(tmp_path, make, message):
    path = tmp_path / "set"
    make(path)
    with pytest.raises(DataError, match=message) as raised:
        open_source(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_data_in_memory_is_told_where_to_go():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["push"]})
    message = "`path` must be a path .*, got Dataset; `VideoColumnSource` takes .*, `InMemorySource` episodes"
    with pytest.raises(ValueError, match=message):
        open_source(data)


@pytest.mark.parametrize(
    ("name", "message"),
    [("bridge_rlds", r"holds \['bridge_dataset'\]; give one"), ("franka_vjepa2_npz", "not supported")],
)
def test_real_folders_that_are_no_data_set(shared_data, name, message):
    with pytest.raises(DataError, match=message):
        open_source(shared_data(name))
