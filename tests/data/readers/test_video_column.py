# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import logging
import pickle

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from datasets import Dataset, DatasetDict, Features, Value, Video, load_dataset, load_from_disk
from torch.utils.data import DataLoader

from cyclemimic import cli
from cyclemimic.data import (
    DataError,
    FramePairDataset,
    MixtureDataset,
    VideoColumnSource,
    VideoFileSource,
    WeightedSource,
    encode_video,
    open_source,
)

from ...label_files import write_labels
from ..conftest import make_frames, read_frame_numbers
from .test_video_files import write_video

datasets.disable_progress_bars()


@pytest.fixture
def films(tmp_path):
    """Three files: 10 and 20 frames a second, and one of a varying rate."""
    folder = tmp_path / "films"
    folder.mkdir()
    encode_video(folder / "a.mp4", make_frames(20), fps=10)
    encode_video(folder / "b.mp4", make_frames(40), fps=20)
    write_video(folder / "c.mp4", make_frames(12), np.cumsum([0, *range(1, 12)]).tolist(), crf="8", bf="0")
    return folder


@pytest.fixture
def root(tmp_path):
    """A folder for tables, of a name of its own."""
    folder = tmp_path / "set"
    folder.mkdir()
    return folder


def contents(films):
    return [{"bytes": path.read_bytes(), "path": path.name} for path in sorted(films.iterdir())]


def make_table(videos, **texts):
    features = {"video": Video(decode=False), **{name: Value("string") for name in texts}}
    return Dataset.from_dict({"video": videos, **texts}, features=Features(features))


def write_rows(path, videos):
    """A table of just these values: `datasets` itself would look for the paths."""
    schema = Features({"video": Video()}).arrow_schema
    parquet.write_table(pyarrow.table([pyarrow.array(videos, schema.field(0).type)], schema=schema), path)
    return path


def in_parquet(table, root):
    table.to_parquet(root / "table.parquet")
    return open_source(root)


def in_a_row_group_each(table, root):
    table.to_parquet(root / "table.parquet", batch_size=1)
    return open_source(root / "table.parquet")


def in_shards(table, root):
    (root / "data").mkdir()
    for index in range(2):
        table.shard(2, index, contiguous=True).to_parquet(root / "data" / f"train-{index:05d}-of-00002.parquet")
    return open_source(root)


def saved(table, root):
    table.save_to_disk(root, num_shards=2)
    # What `map` and `filter` leave beside the data is no part of it.
    (root / "cache-1234.arrow").write_bytes(b"")
    return open_source(root)


def in_an_arrow_file(table, root):
    table.save_to_disk(root)
    return open_source(root / "data-00000-of-00001.arrow")


def as_an_object(table, root):
    return VideoColumnSource(table)


def as_an_object_in_another_order(table, root):
    table.select([2, 1, 0]).save_to_disk(root)
    return VideoColumnSource(load_from_disk(root).select([2, 1, 0]))


@pytest.mark.parametrize(
    "keep",
    [
        in_parquet,
        in_a_row_group_each,
        in_shards,
        saved,
        in_an_arrow_file,
        as_an_object,
        as_an_object_in_another_order,
    ],
)
def test_each_row_is_the_episode_that_its_file_is(keep, films, root):
    texts = ["open  the\ndrawer", "", None]
    source, files = keep(make_table(contents(films), text=texts), root), VideoFileSource(films)
    assert isinstance(source, VideoColumnSource) and source.fps == files.fps
    assert source.cameras == [source.camera] == ["video"]
    assert [episode.instruction for episode in source] == ["open the drawer", None, None]
    for index, (row, file) in enumerate(zip(source, files, strict=True)):
        assert (row.index, row.num_frames, row.actions, row.states) == (index, file.num_frames, None, None)
        np.testing.assert_array_equal(row.read_frames(), file.read_frames())


def test_a_folder_that_datasets_lists(films, tmp_path):
    """There the rows are paths, and decoding is on: nothing here may want torchcodec."""
    table = load_dataset(str(films), split="train", cache_dir=str(tmp_path / "cache"))
    source = VideoColumnSource(table, fps=20, embodiment="human")
    assert (source.name, source.embodiment, source.fps) == ("films", "human", 20.0)
    assert read_frame_numbers(source[1].read_frames()) == list(range(40))


def test_the_choice_of_columns_is_logged(films, root, caplog):
    one, other, _ = contents(films)
    features = Features(
        {
            "wrist": Video(),
            "text": Value("int64"),
            "caption": Value("string"),
            "task": Value("string"),
            "front": Video(),
            "tags": [{"name": Value("string")}],
        }
    )
    row = {"wrist": one, "text": 3, "caption": "go", "task": "none", "front": other, "tags": [{"name": "x"}]}
    Dataset.from_dict({key: [value] for key, value in row.items()}, features=features).to_parquet(root / "a.parquet")
    with caplog.at_level(logging.INFO):
        source = open_source(root)
    assert "camera front of ['wrist', 'front']" in caplog.text and "those of the column 'caption'" in caplog.text
    assert (source.camera, source[0].num_frames, source[0].instruction) == ("front", 40, "go")
    assert open_source(root, "wrist")[0].num_frames == 20
    with pytest.raises(DataError, match="no camera 'top'"):
        open_source(root, "top")


def test_rows_may_be_left_out(films, root):
    table = make_table([*contents(films), None], text=["a", "b", "c", "d"])
    table.to_parquet(root / "table.parquet")
    source = open_source(root, episodes=[2, 0], name="mine", fps=10)
    assert [(episode.source, episode.index, episode.instruction) for episode in source] == [
        ("mine", 2, "c"),
        ("mine", 0, "a"),
    ]
    assert read_frame_numbers(source[1].read_frames()) == list(range(20))
    with pytest.raises(DataError, match="has episodes 0 to 3"):
        open_source(root, episodes=[4])


def test_paths_within_the_folder_are_followed(films):
    (films / "tables").mkdir()
    write_rows(films / "tables" / "rows.parquet", [{"path": "b.mp4"}])
    source = open_source(films)
    assert isinstance(source, VideoColumnSource)
    assert read_frame_numbers(source[0].read_frames()) == list(range(40))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{films}/a.mp4", "is no path within"),
        ("../films/a.mp4", "is no path within"),
        ("link/a.mp4", "leads outside the data set's folder"),
        ("https://localhost/a.mp4", "is no path within"),
        ("file:///etc/hostname", "is no path within"),
        ("a\0b.mp4", "cannot be followed"),
        ("missing.mp4", "does not exist"),
        ("", "holds no video"),
    ],
)
def test_other_paths_are_refused(path, message, films, root):
    (root / "link").symlink_to(films)
    write_rows(root / "table.parquet", [{"path": path.format(films=films)}])
    with pytest.raises(DataError, match=message) as raised:
        open_source(root)
    assert "\n" not in str(raised.value) and f"{root}, row 0, column 'video'" in str(raised.value)


def test_an_object_may_name_any_file_of_this_machine(films):
    names = [str(films / "a.mp4"), "https://localhost/a.mp4"]
    table = Dataset.from_dict({"video": names}, features=Features({"video": Video()}))
    assert VideoColumnSource(table, episodes=[0])[0].num_frames == 20
    with pytest.raises(DataError, match="row 1, column 'video': 'https://localhost/a.mp4' is no path of this m"):
        VideoColumnSource(table)


def playlist(data):
    return b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n/etc/hostname\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("keep", [in_parquet, saved, as_an_object])
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", playlist])
def test_damaged_videos_are_named(damage, keep, films, root):
    one, other, _ = contents(films)
    videos = [one, {"bytes": damage(other["bytes"]), "path": "b.mp4"}]
    with pytest.raises(DataError, match=", row 1, column 'video' does not decode .*with `--skip_broken`") as raised:
        keep(make_table(videos), root)
    assert "\n" not in str(raised.value)


def test_all_rows_without_a_video_are_named_at_once(films, root):
    write_rows(root / "table.parquet", [contents(films)[0], None, {"bytes": None, "path": None}])
    with pytest.raises(DataError, match=r"2 videos cannot be used, episodes \[1, 2\]; the first: .*row 1, .*no video"):
        open_source(root)
    assert len(open_source(root, episodes=[0])) == 1


def test_flipped_bits_of_a_video_are_noticed(tmp_path, root):
    """What decodes is whole; what does not is named, at opening or when it is read."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8)
    encode_video(tmp_path / "a.mp4", noise, fps=10)
    data, faults = (tmp_path / "a.mp4").read_bytes(), 0
    for seed in range(40):
        random, damaged = np.random.default_rng(seed), bytearray(data)
        for position in random.integers(len(data), size=4):
            damaged[position] ^= 1 << int(random.integers(8))
        try:
            episode = VideoColumnSource(make_table([bytes(damaged)]))[0]
            assert episode.read_frames().shape == (episode.num_frames, 64, 64, 3)
        except DataError as fault:
            assert "\n" not in str(fault) and "row 0, column 'video'" in str(fault)
            faults += 1
    assert faults >= 25


@pytest.mark.parametrize("name", ["table.parquet", "table.arrow"])
def test_damage_to_a_table_is_one_line(name, films, root):
    table = make_table(contents(films)[:1], text=["go"])
    if name == "table.arrow":
        table.save_to_disk(root / "saved")
        (root / "saved" / "data-00000-of-00001.arrow").rename(root / name)
    else:
        table.to_parquet(root / name)
    path, faults = root / name, 0
    data = path.read_bytes()
    for seed in range(80):
        random, damaged = np.random.default_rng(seed), bytearray(data)
        # Most of a file is video: look at what describes it too, which stands first and last.
        for position in (random.integers(1000), len(data) - 1 - random.integers(1000), random.integers(len(data))):
            damaged[position] ^= 1 << int(random.integers(8))
        path.write_bytes(bytes(damaged[: random.integers(len(data))] if seed % 5 == 0 else damaged))
        try:
            for episode in open_source(path):
                assert episode.instruction is None or isinstance(episode.instruction, str)
                assert len(episode.read_frames()) == episode.num_frames
        except DataError as fault:
            assert "\n" not in str(fault) and name in str(fault)
            faults += 1
    assert faults >= 40


def two_splits(root, films):
    (root / "data").mkdir()
    for split in ("train", "test"):
        make_table(contents(films)).to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")


def two_files(root, films):
    for split in ("train", "test"):
        make_table(contents(films)).to_parquet(root / f"{split}.parquet")


def two_named_folders(root, films):
    for split in ("train", "validation"):
        (root / split).mkdir()
        make_table(contents(films)).to_parquet(root / split / "part.parquet")


def two_folders(root, films):
    for split in ("train", "test"):
        make_table(contents(films)).save_to_disk(root / split)


def other_columns(root, films):
    make_table(contents(films)).to_parquet(root / "a.parquet")
    make_table(contents(films), text=["a", "b", "c"]).to_parquet(root / "b.parquet")


def a_state_of_nothing(root, films):
    make_table(contents(films)).save_to_disk(root)
    (root / "state.json").write_text(json.dumps({"_data_files": "none"}))


def a_state_of_another_folder(root, films):
    make_table(contents(films)).save_to_disk(root)
    (root / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../films/a.mp4"}]}))


def a_link_out(root, films):
    make_table(contents(films)).to_parquet(films / "a.parquet")
    (root / "a.parquet").symlink_to(films / "a.parquet")


def labels(root, films):
    columns = {"source": ["a"], "episode_index": [0], "frame_index": [0], "future_index": [1], "instruction": [None]}
    write_labels(root / "labels", {**columns, "codes": [[0]]}, codebook_size=4, num_latent_tokens=1, tokenizer="t")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            two_splits,
            r"holds several splits, \['test', 'train'\]; give one, as '.*/data/test-\*.parquet'",
        ),
        (two_files, r"holds several splits, \['test', 'train'\]; give one, as '.*/test.parquet'"),
        (two_named_folders, r"holds several splits, \['train', 'validation'\]; give one, as '.*/train'"),
        (two_folders, r"holds several splits, \['test', 'train'\]; give one, as '.*/test'"),
        (other_columns, r"b.parquet has the columns \['video', 'text'\], unlike those of .*a.parquet"),
        (
            lambda root, films: DatasetDict(a=make_table(contents(films))).save_to_disk(root),
            r"splits \['a'\]; give one",
        ),
        (a_state_of_nothing, "state.json names no files"),
        (a_state_of_another_folder, "leads outside"),
        (a_link_out, "is a link out of"),
        (labels, "Parquet files without a Video column of `datasets`, which is not supported"),
        (lambda root, films: make_table([]).to_parquet(root / "a.parquet"), "has no rows"),
        (
            lambda root, films: Dataset.from_dict({"a": [1]}).save_to_disk(root),
            r"no Video column .*, but \['a'\]; cast",
        ),
        (lambda root, films: (root / "a.parquet").write_bytes(b"PAR1"), "a.parquet is not a readable Parquet file"),
    ],
)
def test_what_is_no_such_data_set(make, message, films, root):
    make(root, films)
    with pytest.raises(DataError, match=message) as raised:
        open_source(root)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "names", [("part1/train", "part2/train"), ("a/train/0", "b/train/0"), ("x", "train"), ("x", "y")]
)
def test_files_of_one_split_lie_where_they_like(names, films, root):
    """Also below a folder that is called as a split is."""
    for place in (root / "plain", root / "test"):
        for name in names:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            make_table(contents(films)).to_parquet(place / f"{name}.parquet")
        assert len(open_source(place)) == 6


def test_a_pattern_chooses_a_split(films, root):
    two_splits(root, films)
    source = open_source(f"{root}/data/train-*.parquet", name="train")
    assert (source.name, len(source)) == ("train", 3)
    with pytest.raises(DataError, match="holds no table"):
        open_source(f"{root}/data/validation-*.parquet")


def test_the_hubs_cache_links_to_what_it_keeps(films, root):
    """`snapshot_download` puts the files of all revisions into one folder, by their sums."""
    snapshot, blobs = root / "snapshots" / "1234", root / "blobs"
    (snapshot / "data").mkdir(parents=True)
    blobs.mkdir()
    make_table(contents(films)).to_parquet(blobs / "5678")
    link = snapshot / "data" / "train-00000-of-00001.parquet"
    link.symlink_to("../../../blobs/5678")
    for path in (snapshot, snapshot / "data", f"{snapshot}/data/train-*.parquet", link):
        assert len(open_source(path)) == 3
    (blobs / "5678").rename(root / "5678")
    link.unlink()
    link.symlink_to("../../../5678")
    for path in (snapshot, f"{snapshot}/data/train-*.parquet"):
        with pytest.raises(DataError, match="(is a link out of|leads outside)"):
            open_source(path)


def test_a_table_without_videos_leaves_video_files_as_they_are(films):
    Dataset.from_dict({"a": [1]}).to_parquet(films / "notes.parquet")
    assert isinstance(open_source(films), VideoFileSource)
    with pytest.raises(DataError, match=r"notes.parquet has no Video column of `datasets`, but \['a'\]"):
        open_source(films / "notes.parquet")


def test_bad_arguments(films):
    table = make_table(contents(films))
    with pytest.raises(ValueError, match="`fps` must be above 0"):
        VideoColumnSource(table, fps=0)
    for data in (DatasetDict(train=table), table.to_iterable_dataset()):
        with pytest.raises(ValueError, match=r"one split, not streamed\), got a datasets"):
            VideoColumnSource(data)


def test_workers_read_what_is_on_disk(films, root):
    source = saved(make_table(contents(films)), root)
    # Not the videos, but where they are.
    assert len(pickle.dumps(source)) < 5000
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[0].read_frames(), source[0].read_frames())
    pairs = FramePairDataset([source], interval_s=0.5, min_interval_s=0.5)
    loader = DataLoader(pairs, batch_size=None, num_workers=1)
    for got, expected in zip(loader, pairs, strict=True):
        np.testing.assert_array_equal(got["future"], expected["future"])


def test_pairs_of_a_mixture(films, root):
    sources = [in_parquet(make_table(contents(films), task=["a", "b", "c"]), root), VideoFileSource(films)]
    mixture = MixtureDataset([WeightedSource(source, 1.0, 0.5, 0.5) for source in sources])
    items = [item for item, _ in zip(mixture, range(40))]
    assert {(item["source"], item["instruction"]) for item in items} >= {("set", "a"), ("films", None)}
    for item in items:
        current, future = read_frame_numbers(np.stack([item["current"], item["future"]]))
        assert current < future


def test_inspect_checks_a_column(films, root, capsys):
    make_table(contents(films), text=["go", "go", "stop"]).to_parquet(root / "table.parquet")
    assert cli.main(["inspect", str(root), "--check", "--fps", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:1] == ["set"] and "  camera        video, 32 x 32" in lines
    assert "  instructions  2 distinct" in lines and "         2 x go" in lines
