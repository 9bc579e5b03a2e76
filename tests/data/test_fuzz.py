# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile data sets: each reads, or ends in one line that names it; never in another exception, a hang, a
file read outside the data set, or an allocation that a header asked for."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from cyclemimic.data import DataError, LeRobotWriter, open_source

VIDEO = "videos/observation.images.main/chunk-000/file-000.mp4"
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"
TASKS = "meta/tasks.parquet"
INFO = "meta/info.json"

Content = list[tuple[Any, ...]]


@pytest.fixture(autouse=True)
def within_bounds() -> Iterator[None]:
    """Fails a test that hangs, or that takes memory as if there were no end to it."""

    def stop(*_: object) -> None:
        raise TimeoutError("reading does not end")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes with 8, 5 and 12 frames of noise that moves: damage to its video shows."""
    root, random = tmp_path_factory.mktemp("fuzz") / "intact", np.random.default_rng(0)
    with LeRobotWriter(root, 10, "arm", ["x", "y"], ["height"]) as writer:
        for length in (8, 5, 12):
            noise = random.integers(0, 256, (16, 16, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
            frames = np.stack([np.roll(noise, step, axis=1) for step in range(length)])
            actions = random.normal(size=(length, 2))
            writer.add_episode(frames, actions, f"Gerät {length}", actions[:, :1])
    return root


@pytest.fixture
def root(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "set"))


def read_all(root: Path, **options: Any) -> Content:
    return [
        (
            episode.instruction,
            None if episode.actions is None else episode.actions.tobytes(),
            None if episode.states is None else episode.states.tobytes(),
            [frame.tobytes() for frame in episode.iter_frames()],
        )
        for episode in open_source(root, **options)
    ]


def fault_of(root: Path, **options: Any) -> str | None:
    """What is said of a data set that does not read, in one line."""
    try:
        read_all(root, **options)
    except DataError as error:
        assert "\n" not in str(error) and root.name in str(error)
        return str(error)
    return None


def damages(data: bytes, count: int) -> Iterator[bytes]:
    """A fifth cut off somewhere, the others with one to five bits flipped."""
    for seed in range(count):
        random, damaged = np.random.default_rng(seed), bytearray(data)
        if seed % 5 == 0:
            damaged = damaged[: random.integers(len(data))]
        else:
            for position in random.integers(len(data), size=random.integers(1, 6)):
                damaged[position] ^= 1 << int(random.integers(8))
        yield bytes(damaged)


def outcomes(root: Path, file: str, count: int) -> Counter[str]:
    intact, data = read_all(root), (root / file).read_bytes()
    seen: Counter[str] = Counter()
    for damaged in damages(data, count):
        (root / file).write_bytes(damaged)
        seen["fault" if fault_of(root) else "same" if read_all(root) == intact else "other"] += 1
    return seen


def test_damage_to_a_video_is_noticed(root):
    seen = outcomes(root, VIDEO, 80)
    # Some bits are of no picture, and H.264 has no checksum for all others.
    assert seen["fault"] >= 60


@pytest.mark.parametrize("file", [DATA, EPISODES, TASKS])
def test_damage_to_a_table_is_noticed(root, file):
    seen = outcomes(root, file, 60)
    # What is written here has checksums: a number that changed is never taken for true.
    assert seen["other"] == 0
    assert seen["fault"] >= (0 if file == TASKS else 30)


def test_damage_to_the_description(root):
    assert outcomes(root, INFO, 100)["fault"] >= 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # Counts are not what episodes are read by.
        ({"total_episodes": 999, "total_frames": -1}, None),
        ({"total_episodes": "many", "total_frames": None}, None),
        ({"fps": 0}, "fps in meta/info.json must be a number from"),
        ({"fps": float("nan")}, "fps in meta/info.json must be a number from"),
        ({"fps": 1e300}, "fps in meta/info.json must be a number from"),
        ({"fps": 1e-300}, "fps in meta/info.json"),
        # The video's own clock shows that it is wrong.
        ({"fps": 1 / 3600}, None),
        ({"fps": "10"}, "fps in meta/info.json"),
        ({"chunks_size": 0.5}, "chunks_size in meta/info.json must be a number from 1"),
        ({"codebase_version": ["v3.0"]}, "codebase_version"),
        ({"features": [1]}, "features in meta/info.json must map"),
        ({"features": {"action": 1}}, "features in meta/info.json must map"),
        ({"features": {"a\0b": {"dtype": "video"}}}, "has no camera"),
        ({"features": {"observation.images.main": {"dtype": "video", "info": [1]}}}, None),
        ({"features": {"observation.images.main": {"dtype": ["video"]}}}, "has no camera"),
        ({"video_path": "/etc/hostname"}, "leads outside the data set's folder"),
        ({"data_path": "../../{episode_index}.parquet"}, "leads outside the data set's folder"),
        ({"data_path": "data/\0"}, "cannot be followed"),
        ({"data_path": "x" * 5000}, "cannot be followed"),
        ({"data_path": "{episode_index:0999999999d}"}, "not a usable template"),
        ({"data_path": "{episode_index.__class__}"}, "not a usable template"),
        ({"data_path": "{"}, "not a usable template"),
        ({"data_path": 7}, "not a usable template"),
        ({"data_path": "meta"}, None),
    ],
)
def test_wrong_descriptions(root, intact, change, message):
    info = json.loads((root / INFO).read_text())
    (root / INFO).write_text(json.dumps(info | change))
    fault = fault_of(root)
    if message is None:
        assert fault is None
        assert [row[3] for row in read_all(root)] == [row[3] for row in read_all(intact)]
    else:
        assert fault is not None and message in fault


@pytest.mark.parametrize("text", [b"[" * 200_000, b"\xff\xfe{}", b"", b"null", b'{"fps": ' + b"9" * 5000 + b"}"])
def test_descriptions_that_are_none(root, text):
    (root / INFO).write_bytes(text)
    assert "info.json" in fault_of(root)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("length", 0, "a length of at least 1, got 0 and 0"),
        ("length", -3, "a length of at least 1"),
        ("length", 1 << 60, "an episode of 1.153e+18 frames, at most"),
        ("length", 10_000_000, "10000000 frames but 8 rows"),
        ("length", None, "a length of at least 1"),
        ("episode_index", -1, "an index of at least 0"),
        ("episode_index", 1 << 50, "an index of at least 0"),
        ("episode_index", 7, "7 has 8 frames but 0 rows of actions"),
        ("data/chunk_index", None, "data/chunk_index must be a number"),
        ("data/file_index", 5, "lacks the data file of episode 0"),
        ("videos/observation.images.main/file_index", None, "file_index must be a number"),
        ("videos/observation.images.main/from_timestamp", float("nan"), "from_timestamp must be a number"),
        ("videos/observation.images.main/from_timestamp", float("inf"), "from_timestamp must be a number"),
        ("videos/observation.images.main/from_timestamp", -5.0, "from_timestamp must be a number"),
        ("videos/observation.images.main/from_timestamp", 1e9, "does not fit in its -999999999.20 s"),
        ("videos/observation.images.main/from_timestamp", None, "lacks the video of episode 0"),
        ("tasks", 5, "tasks of episode 0 must be texts"),
    ],
)
def test_wrong_episodes(root, column, value, message):
    import pyarrow.parquet as parquet

    others = parquet.read_table(root / EPISODES).column(column).to_pylist()[1:]
    set_column(root, column, [value] * 3 if column == "tasks" else [value, *others])
    assert message in fault_of(root)


def test_tasks_that_are_not_utf8(root):
    import pyarrow

    tasks = pyarrow.array([[b"\xff\xfe"]] * 3, pyarrow.list_(pyarrow.binary()))
    set_column(root, "tasks", tasks.view(pyarrow.list_(pyarrow.string())))
    assert "file-000.parquet is not a readable Parquet file" in fault_of(root)


def test_frames_are_not_allocated_for_a_length_that_is_not_true(root):
    set_column(root, "length", [16_000_000, 5, 12])
    with pytest.raises(DataError, match="do not fit in memory|has no frame at|does not fit in its"):
        open_source(root)[0].read_frames()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("episodes", b'{"episode_index": 0, "length": 0}', "a length of at least 1"),
        ("episodes", b'{"episode_index": 0, "length": 1e30}', "a length of at least 1"),
        ("episodes", b'{"episode_index": 0, "length": 999999999999999999}', "an episode of 1e+18 frames"),
        ("episodes", b'{"episode_index": 0, "length": 6, "tasks": 5}', "tasks of episode 0 must be texts"),
        (
            "episodes",
            b'{"episode_index": 0, "length": 6, "tasks": ["\xff"]}',
            "episodes.jsonl, line 1: not valid JSON",
        ),
        ("episodes", b"[" * 200_000, "episodes.jsonl, line 1: not valid JSON"),
        ("episodes", b"\xff\xfe\x00", "episodes.jsonl, line 1: not valid JSON"),
        ("tasks", b'{"task_index": 0, "task": "\xff"}', "tasks.jsonl, line 1: not valid JSON"),
        ("tasks", b'{"task_index": "zero", "task": "lift"}', "task_index must be a number"),
        ("tasks", b'{"task_index": null, "task": "lift"}', "task_index must be a number"),
        ("tasks", b'{"task_index": 1, "task": {"not": "text"}}', None),
    ],
)
def test_wrong_lines(make_v21, file, text, message):
    root = make_v21(tasks=["open", "close"])
    (root / f"meta/{file}.jsonl").write_bytes(text)
    fault = fault_of(root)
    assert fault is None if message is None else message in fault


def test_table_without_rows(root):
    import pyarrow.parquet as parquet

    parquet.write_table(parquet.read_table(root / DATA)[:0], root / DATA)
    assert "episode 0 has 8 frames but 0 rows of actions" in fault_of(root)


@pytest.mark.parametrize("file", [VIDEO, DATA, EPISODES, TASKS, INFO, "meta", "meta/episodes", "videos"])
def test_links_out_of_the_data_set(root, intact, file):
    path = root / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    path.symlink_to(intact / file)
    if file == TASKS:
        name_two_tasks(root)
    assert "leads outside the data set's folder" in fault_of(root)


@pytest.mark.parametrize("file", [VIDEO, DATA, EPISODES, TASKS])
def test_links_to_themselves(root, file):
    (root / file).unlink()
    (root / file).symlink_to(root / file)
    if file == TASKS:
        name_two_tasks(root)
    assert "cannot be followed" in fault_of(root)


def name_two_tasks(root: Path) -> None:
    """Then the table of tasks tells which one an episode shows."""
    set_column(root, "tasks", [["one", "two"]] * 3)


def set_column(root: Path, name: str, values: Any) -> None:
    import pyarrow
    import pyarrow.parquet as parquet

    table = parquet.read_table(root / EPISODES)
    table = table.set_column(table.schema.get_field_index(name), name, pyarrow.array(values))
    parquet.write_table(table, root / EPISODES)


def write_video(path: Path, count: int = 10) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for step in range(count):
            picture = np.full((64, 64, 3), 20 * step, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def patch_number(data: bytes, box: bytes, offset: int, layout: str, value: int) -> bytes:
    position = data.index(box) + offset
    return data[:position] + struct.pack(layout, value) + data[position + struct.calcsize(layout) :]


@pytest.mark.parametrize("value", [0, 1, (1 << 32) - 1])
@pytest.mark.parametrize(
    ("suffix", "box", "offset", "layout"),
    [
        # Clock and length of a stream, and how long a frame is shown.
        ("mp4", b"mdhd", 16, ">I"),
        ("mp4", b"mdhd", 20, ">I"),
        ("mp4", b"stts", 16, ">I"),
        ("mp4", b"stts", 12, ">I"),
        # Clock, rate and length.
        ("avi", b"strh", 28, "<I"),
        ("avi", b"strh", 32, "<I"),
        ("avi", b"strh", 40, "<I"),
    ],
)
def test_absurd_clocks(tmp_path, suffix, box, offset, layout, value):
    path = tmp_path / "set" / f"a.{suffix}"
    path.parent.mkdir()
    write_video(path)
    path.write_bytes(patch_number(path.read_bytes(), box, offset, layout, value))
    fault_of(path.parent)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_damaged_video_files(tmp_path, suffix):
    path = tmp_path / "set" / f"a.{suffix}"
    path.parent.mkdir()
    write_video(path)
    faults = 0
    for damaged in damages(path.read_bytes(), 60):
        path.write_bytes(damaged)
        faults += fault_of(path.parent) is not None
    assert faults >= 20


@pytest.mark.parametrize("fps", [1e-300, 1e-9, 1e9, 1e300])
def test_absurd_rates_to_look_with(root, tmp_path, fps):
    shutil.copy(root / VIDEO, tmp_path / "a.mp4")
    fault = fault_of(tmp_path / "a.mp4", fps=fps)
    assert fault is None if fps < 1 else "at most 16777216 are read" in fault


@pytest.mark.parametrize(
    "text", ["#EXTM3U\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile other.mp4\n"]
)
def test_playlists_are_no_videos(root, tmp_path, text):
    shutil.copy(root / VIDEO, tmp_path / "other.mp4")
    (tmp_path / "list.mp4").write_text(text)
    assert "list.mp4 does not decode" in fault_of(tmp_path / "list.mp4")


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Four images, numbered."""
    folder = tmp_path / "drive"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_damaged_images(drive, kind):
    with Image.open(drive / "2.png") as image:
        image.save(drive / "2.png", format=kind)
    for damaged in damages((drive / "2.png").read_bytes(), 60):
        (drive / "2.png").write_bytes(damaged)
        fault_of(drive, fps=4)


def write_huge(path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(path)


def write_large(path: Path) -> None:
    # Of a size that Pillow by itself would read, to 432 MB.
    Image.new("1", (12_000, 12_000)).save(path)


def write_program(path: Path) -> None:
    # Pillow gives this kind to another program to draw.
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n")


def write_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def write_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("write", [write_huge, write_large, write_program, write_pipe, write_loop])
def test_images_that_are_not_opened(drive, write: Callable[[Path], None]):
    write(drive / "2.png")
    assert "2.png does not decode" in fault_of(drive, fps=4)


@pytest.mark.parametrize("fps", [1e-300, 1e300])
def test_absurd_rates_of_images(drive, fps):
    assert fault_of(drive, fps=fps) is None


@pytest.mark.parametrize(
    "cell",
    [
        {"bytes": b"no image", "path": None},
        {"bytes": None, "path": None},
        {"bytes": None, "path": "/etc/hostname"},
        {"bytes": None, "path": "../../../etc/hostname"},
        {"bytes": None, "path": "absent.png"},
        {"bytes": None, "path": "a\0b"},
        None,
    ],
)
def test_cells_that_are_no_images(make_v21, cell):
    root = make_v21(features={"image": {"dtype": "image"}}, columns={"image": lambda n: [cell] * n}, camera="front")
    assert fault_of(root, camera="image") is not None
