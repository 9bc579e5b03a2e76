# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from cyclemimic.commands import inspect
from cyclemimic.data import encode_video


@pytest.fixture
def squares(square_data, tmp_path):
    """A copy to damage."""
    return shutil.copytree(square_data, tmp_path / "squares")


@pytest.fixture
def clips(tmp_path):
    """Two video files of noise, 20 frames each at 10 fps."""
    folder, random = tmp_path / "clips", np.random.default_rng(0)
    folder.mkdir()
    for name in "ab":
        encode_video(folder / f"{name}.mp4", random.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), 10)
    return folder


def test_says_what_is_in_a_data_set(verb, square_data, capsys):
    assert verb("inspect", square_data) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:7] == [
        "squares",
        "  episodes      4, of 12 frames",
        "  frames        48, 4.8 s at 10 fps",
        "  camera        observation.images.main, 32 x 32",
        "  embodiment    square",
        "  instructions  2 distinct",
        "         2 x go right",
    ]
    assert "  actions       4 dimensions" in lines and "  states        none" in lines
    gripper = next(line for line in lines if line.endswith("binary"))
    assert gripper.split() == ["3", "0", "0", "0.4167", "0.493", "1", "1", "binary"]


def test_writes_figures_and_a_contact_sheet(verb, square_data, clips, tmp_path, capsys):
    output = tmp_path / "found"
    assert verb("inspect", square_data, clips, "--output", output, "--check") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"Saved: {output}" and "clips" in printed
    assert sorted(path.name for path in output.iterdir()) == ["contact_sheet.png", "inspect.json"]
    first, second = json.loads((output / "inspect.json").read_text())
    assert (first["name"], first["num_frames"], first["cameras"]) == ("squares", 48, ["observation.images.main"])
    assert first["actions"]["binary"] == [False, False, False, True] and first["broken"] == []
    assert (second["name"], second["num_episodes"], second["num_without_instruction"]) == ("clips", 2, 2)
    with Image.open(output / "contact_sheet.png") as sheet:
        assert sheet.height == 6 * 138 + 12


def test_equal_dimensions_share_a_line():
    from cyclemimic.data.inspection import VectorSummary

    columns = [[0.0, 0.0, 1.0]] * 6
    summary = VectorSummary(*columns, constant=[True] * 3, binary=[False] * 3)
    assert [line.split()[0] for line in inspect._table(summary)] == ["min", "0-1", "2"]


def test_texts_do_not_steer_the_terminal(verb, squares, capsys):
    info = json.loads((squares / "meta/info.json").read_text())
    (squares / "meta/info.json").write_text(json.dumps(info | {"robot_type": "\x1b[31mred\ud800"}))
    assert verb("inspect", squares) == 0
    assert "  embodiment    \\u001b[31mred\\ud800" in capsys.readouterr().out.splitlines()


def truncate(path):
    data = path.read_bytes()
    first, last = data.index(b"mdat") + 4, data.index(b"moov") - 4
    path.write_bytes(data[: (first + last) // 2] + bytes(last - (first + last) // 2) + data[last:])


def flip_bits(path):
    data = bytearray(path.read_bytes())
    for position in range(data.index(b"mdat") + 600, data.index(b"moov") - 4, 500):
        data[position] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip_bits])
def test_check_lists_what_does_not_decode(verb, clips, damage, capsys):
    damage(clips / "b.mp4")
    assert verb("inspect", clips) == 0
    capsys.readouterr()
    assert verb("inspect", clips, "--check") == 2
    printed, said = capsys.readouterr()
    lines = printed.splitlines()
    assert lines[0] == "clips" and lines[-2] == "  broken        1 episodes"
    assert lines[-1].startswith(f"    episode 1: video {clips / 'b.mp4'} does not decode")
    assert said.splitlines()[-1] == (
        "cyclemimic inspect: error: 1 of 2 episodes are broken, see the list above; replace their files, or leave "
        "them out with `--skip_broken` of the other verbs"
    )


def test_what_was_found_is_saved_all_the_same(verb, clips, tmp_path):
    truncate(clips / "b.mp4")
    assert verb("inspect", clips, "--check", "--output", tmp_path / "found") == 2
    (found,) = json.loads((tmp_path / "found" / "inspect.json").read_text())
    assert [episode["index"] for episode in found["broken"]] == [1]
    assert (tmp_path / "found" / "contact_sheet.png").is_file()


def test_actions_that_are_not_finite_are_listed(verb, squares, capsys):
    import pyarrow
    import pyarrow.parquet as parquet

    path = squares / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(path)
    actions = table.column("action").to_pylist()
    # The second row of the third episode.
    actions[25][2] = float("nan")
    column = pyarrow.array(actions, table.schema.field("action").type)
    parquet.write_table(table.set_column(table.schema.get_field_index("action"), "action", column), path)
    assert verb("inspect", squares) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(
        "    episode 2: squares: episode 2 has actions that are not finite, dimension 2 of frame 1 first"
    )


def test_images_take_the_frame_rate_given(verb, tmp_path, capsys, refuses):
    (tmp_path / "drive").mkdir()
    for number in range(6):
        Image.new("RGB", (32, 24)).save(tmp_path / "drive" / f"{number}.png")
    assert verb("inspect", tmp_path / "drive", "--fps", "2") == 0
    assert "  frames        6, 3.0 s at 2 fps" in capsys.readouterr().out
    assert "do not tell their frame rate" in refuses("inspect", tmp_path / "drive")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "the following arguments are required: DIR"),
        ("{tmp}", "is empty; give a LeRobot data set"),
        ("{tmp}/absent", "does not exist"),
        ("{data} {tmp}", "is empty"),
        ("{data} --camera side", "has no camera 'side'; give one of ['observation.images.main']"),
        ("{data} --output {data}", "squares exists already"),
    ],
)
def test_bad_input(refuses, square_data, tmp_path, flags, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert message in refuses("inspect", *flags.format(data=square_data, tmp=empty).split())
    assert list(tmp_path.iterdir()) == [empty]


def test_a_damaged_set_is_refused_in_one_line(refuses, squares):
    (squares / "meta/info.json").write_text("{")
    assert "info.json is not valid JSON" in refuses("inspect", squares, "--check")


def test_what_shows_on_opening_is_listed_too(verb, clips, capsys):
    (clips / "b.mp4").write_bytes(b"no video")
    assert verb("inspect", clips) == 2
    lines = capsys.readouterr().out.splitlines()
    assert "  episodes      2, of 20 frames" in lines
    assert lines[-1].startswith("    episode 1: ") and "b.mp4" in lines[-1]


def test_the_data_sets_of_a_mixture_are_shown_one_by_one(verb, refuses, square_data, clips, tmp_path, capsys):
    mixture = tmp_path / "mixture.yaml"
    entries = [{"path": str(square_data), "weight": 1, "name": "first"}, {"path": str(clips), "weight": 2}]
    mixture.write_text(json.dumps({"sources": entries}))
    assert verb("inspect", mixture) == 0
    names = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith(" ")]
    assert names == ["first", "clips"]
    assert "`fps` stands in the mixture's file" in refuses("inspect", mixture, "--fps", "5")
