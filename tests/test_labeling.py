# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from tqdm import tqdm

from cyclemimic import (
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
)
from cyclemimic.data import (
    DataError,
    DemonstrationDataset,
    Episode,
    FramePairDataset,
    InMemorySource,
    LabelFolder,
    LatentLabels,
    VideoFileSource,
    encode_video,
)
from cyclemimic.labeling import encode_pairs, label_videos

# At 10 fps: pairs three frames apart, two or one near the end.
INTERVAL_S, MIN_INTERVAL_S = 0.3, 0.1
LENGTHS = {"arm": (9, 5, 1), "hand": (6,)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(params=["patches", "dinov2"])
def tokenizer(request) -> LatentActionTokenizerModel:
    dinov2 = {"model_type": "dinov2", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LatentActionTokenizerConfig(
        image_size=16,
        patch_size=8,
        vision_config=dinov2 if request.param == "dinov2" else None,
        hidden_size=16,
        num_attention_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        codebook_size=64,
        num_latent_tokens=3,
        codebook_dim=4,
    )
    model = LatentActionTokenizerModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        # The first batch in training puts the words among the embeddings: many of them are in use.
        model.train().encode(*torch.randn(2, 64, 3, 16, 16))
    return model


@pytest.fixture
def image_processor() -> LatentActionTokenizerImageProcessor:
    return LatentActionTokenizerImageProcessor(size=16)


@pytest.fixture
def sources() -> list[InMemorySource]:
    random = np.random.default_rng(0)

    def episode(body: str, index: int, length: int) -> Episode:
        frames = random.integers(0, 256, (length, 20, 24, 3), dtype=np.uint8)
        instruction = "push" if body == "arm" else None
        return Episode.from_arrays(frames, 10.0, instruction, source=body, embodiment=body, index=3 * index)

    return [
        InMemorySource([episode(body, index, length) for index, length in enumerate(lengths)])
        for body, lengths in LENGTHS.items()
    ]


@pytest.fixture
def label(tokenizer, image_processor, sources, tmp_path):
    def run(**changes):
        arguments = {"interval_s": INTERVAL_S, "min_interval_s": MIN_INTERVAL_S, "tokenizer_name": "toy"}
        own = {"image_processor": image_processor, "sources": sources, "output_dir": tmp_path / "labels"}
        return label_videos(tokenizer, **(own | arguments | changes))

    return run


def test_films_that_change_places_are_refused(label, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for index, name in enumerate(("a.mp4", "b.mp4")):
        encode_video(films / name, np.full((8, 16, 16, 3), 90 * index, np.uint8), fps=10)
    before = VideoFileSource(films)
    labels = LatentLabels.from_folder(label(sources=[before], output_dir=tmp_path / "of_films"))
    (films / "clips.csv").write_text("file,text\nb.mp4,push\na.mp4,pull\n")
    after = VideoFileSource(films)
    assert [episode.num_frames for episode in before] == [episode.num_frames for episode in after]
    DemonstrationDataset([before], labels=labels)
    with pytest.raises(
        DataError, match=r"another films, whose episode 0 is a\.mp4#t=0,0\.8 instead of b\.mp4#t=0,0\.8"
    ):
        DemonstrationDataset([after], labels=labels)
    with pytest.raises(DataError, match="exists already, with other labels: data set films was 2 episodes"):
        label(sources=[after], output_dir=tmp_path / "of_films")


@pytest.mark.parametrize("batch_size", [1, 4, 128])
def test_labels_equal_those_of_each_pair_alone(batch_size, label, tokenizer, image_processor, sources, tmp_path):
    assert label(batch_size=batch_size) == tmp_path / "labels"
    labels = LatentLabels.from_folder(tmp_path / "labels")
    count = 0
    for source in sources:
        for episode in source:
            for frame in range(episode.num_frames - 1):
                future = min(frame + 3, episode.num_frames - 1)
                batch = image_processor(*episode.read_frames([frame, future]))
                expected = tokenizer.eval().encode(**batch).codes[0]
                found = labels.lookup(source.name, episode.index, frame)
                np.testing.assert_array_equal(found, expected)
                count += 1
    # An episode of one frame has no pair.
    assert len(labels) == count == 8 + 4 + 5 and ("arm", 6) not in labels
    # Not because all codes were the same.
    codes = np.concatenate([labels.episode(*episode)[1] for episode in labels.episodes])
    assert len(np.unique(codes, axis=0)) > 4


def test_what_is_kept_with_the_labels(label):
    labels = LatentLabels.from_folder(label())
    assert (labels.codebook_size, labels.num_latent_tokens, labels.tokenizer) == (64, 3, "toy")
    assert labels.metadata["interval_s"] == INTERVAL_S and labels.metadata["min_interval_s"] == MIN_INTERVAL_S


def test_datasets_loads_the_labels(label, tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = label()
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == [
        "source",
        "episode_index",
        "frame_index",
        "future_index",
        "instruction",
        "place",
        "codes",
    ]
    assert len(rows) == 17
    first, last = rows[0], rows[16]
    assert (first["source"], first["frame_index"], first["future_index"], first["instruction"]) == (
        "arm",
        0,
        3,
        "push",
    )
    assert (last["source"], last["frame_index"], last["future_index"], last["instruction"]) == ("hand", 4, 5, None)
    labels = LatentLabels.from_folder(folder)
    for row in rows:
        assert row["codes"] == labels.lookup(row["source"], row["episode_index"], row["frame_index"]).tolist()


@pytest.mark.parametrize("training", [True, False])
def test_tokenizer_is_left_as_it_was(training, label, tokenizer):
    tokenizer.train(training)
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    label()
    assert tokenizer.training == training
    assert [name for name, value in tokenizer.state_dict().items() if not torch.equal(value, before[name])] == []


def test_each_frame_is_looked_at_once(label, tokenizer):
    seen = []
    tokenizer.vision_features.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    label(batch_size=4)
    assert seen == [4, 4, 1, 4, 1, 4, 2]


def test_memory_is_flat_in_the_length_of_an_episode(label, tokenizer):
    most = 0

    def count(_, inputs, output):
        nonlocal most
        shape = output.shape[1:]
        held = [len(value) for value in gc.get_objects() if type(value) is torch.Tensor and value.shape[1:] == shape]
        most = max(most, *held)

    tokenizer.vision_features.register_forward_hook(count)
    frames = np.zeros((60, 16, 16, 3), dtype=np.uint8)
    label(sources=[InMemorySource([Episode.from_arrays(frames, 10.0)])], batch_size=4)
    # The frames of a pair are three apart, and come four at a time.
    assert 4 <= most <= 4 + 3 + 4


def test_failure_leaves_what_is_done_and_the_next_call_goes_on(label, tokenizer, sources, tmp_path, monkeypatch):
    def fail(*_):
        raise DataError("the video does not decode")

    tokenizer.train()
    readable = type(sources[1][0].reader)
    frames = readable.iter_frames
    with monkeypatch.context() as patch:
        patch.setattr(readable, "iter_frames", lambda self, at: fail() if len(self.frames) == 6 else frames(self, at))
        with pytest.raises(DataError, match="does not decode"):
            label(rows_per_shard=1)
    assert tokenizer.training and [path.name for path in tmp_path.iterdir()] == ["labels.partial"]
    with pytest.raises(DataError, match="is not complete yet; run `cyclemimic label` again"):
        LatentLabels.from_folder(tmp_path / "labels")
    with pytest.raises(DataError, match="holds 2 of 3 shards"):
        LatentLabels.from_folder(tmp_path / "labels.partial")
    seen = []
    tokenizer.vision_features.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    label(rows_per_shard=1)
    assert seen == [6] and [path.name for path in tmp_path.iterdir()] == ["labels"]
    assert len(LatentLabels.from_folder(tmp_path / "labels")) == 17


def test_each_process_makes_its_own_shards(label, tmp_path):
    label(rows_per_shard=1, rank=1, world_size=2)
    assert [path.name for path in (tmp_path / "labels.partial").glob("*.parquet")] == ["labels-00001.parquet"]
    label(rows_per_shard=1, rank=0, world_size=2)
    assert len(LatentLabels.from_folder(tmp_path / "labels")) == 17


def test_a_card_comes_with_the_last_shard(label, tmp_path):
    card = (label() / "README.md").read_text()
    assert "# labels" in card and "Latent actions of 17 pairs" in card and "the tokenizer toy at" in card
    assert "| arm | 71.43% | 3 | 15 | 10 |" in card and str(tmp_path) not in card


def test_finished_labels_are_left_as_they_are(label, tokenizer, tmp_path):
    before = contents(label())
    tokenizer.vision_features.register_forward_pre_hook(lambda *_: pytest.fail("looked at again"))
    assert contents(label()) == before and list(tmp_path.iterdir()) == [tmp_path / "labels"]


@pytest.mark.parametrize("is_complete", [True, False])
@pytest.mark.parametrize(
    "change, message",
    [
        ({"interval_s": 0.2}, "interval_s was 0.3, now it is 0.2"),
        ({"tokenizer_name": "other"}, "tokenizer was toy, now it is other"),
        ({"rows_per_shard": 2}, "rows_per_shard was 1, now it is 2"),
        ({"tokenizer": None}, "tokenizer_revision was [0-9a-f]{40}, now it is [0-9a-f]{40}"),
        ({"sources": slice(1)}, r"data set hand was 1 episodes, 6 frames at 10 fps of image \(.*\), now it is None"),
    ],
)
def test_other_settings_are_refused(is_complete, change, message, label, tokenizer, sources, tmp_path):
    # Of two processes the first alone leaves the labels unfinished.
    label(rows_per_shard=1, world_size=1 if is_complete else 2)
    before = [contents(path) for path in tmp_path.iterdir()]
    if "sources" in change:
        change = {"sources": sources[change["sources"]]}
    if "tokenizer" in change:
        change = {}
        with torch.no_grad():
            next(tokenizer.parameters()).view(-1)[0] += 1
    with pytest.raises(DataError, match=message):
        label(**({"rows_per_shard": 1} | change))
    assert [contents(path) for path in tmp_path.iterdir()] == before


def test_a_tokenizer_that_sees_otherwise_is_another(label):
    label(rows_per_shard=1)
    with pytest.raises(DataError, match="tokenizer_revision was"):
        label(rows_per_shard=1, image_processor=LatentActionTokenizerImageProcessor(size=16, image_mean=[0.4] * 3))


@pytest.mark.parametrize(
    ("lengths", "indices"), [((5, 9, 1), (0, 3, 6)), ((9, 5, 1), (0, 3, 7))], ids=["lengths", "indices"]
)
def test_other_episodes_are_refused_though_they_are_as_many(lengths, indices, label, sources):
    label(rows_per_shard=1)
    arm = [
        Episode.from_arrays(np.zeros((length, 20, 24, 3), np.uint8), 10.0, "push", source="arm", index=index)
        for length, index in zip(lengths, indices)
    ]
    with pytest.raises(DataError, match=r"data set arm was 3 episodes, 15 frames .*, now it is 3 episodes, 15 frames"):
        label(rows_per_shard=1, sources=[InMemorySource(arm), sources[1]])


def test_killed_at_ten_random_moments(label, tmp_path, monkeypatch):
    frames = np.random.default_rng(1).integers(0, 256, (150, 8, 16, 16, 3), dtype=np.uint8)
    sources = [InMemorySource([Episode.from_arrays(clip, 10.0, index=index) for index, clip in enumerate(frames)])]
    settings = {"sources": sources, "rows_per_shard": 1}
    expected = contents(label(**settings, output_dir=tmp_path / "whole" / "labels"))
    partial, random = tmp_path / "labels.partial", np.random.default_rng(0)
    done: dict[str, tuple[int, int]] = {}

    def shards() -> dict[str, tuple[int, int]]:
        return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in partial.glob("*.parquet")}

    # Forked: importing torch anew would take longer than all of the labelling.
    context = multiprocessing.get_context("fork")
    # Forks share tqdm's lock, and one that is killed while it holds that would stop all others, this process among them.
    monkeypatch.setattr(tqdm, "_lock", threading.RLock())
    write = LabelFolder.write

    def start(most_shards: int) -> list:
        # This process may sleep for as long as all of the labelling takes: never more than some of it.
        permits = context.Semaphore(most_shards)
        monkeypatch.setattr(LabelFolder, "write", lambda *args: permits.acquire() and write(*args))
        processes = [context.Process(target=label, kwargs=settings | {"rank": r, "world_size": 2}) for r in (0, 1)]
        for process in processes:
            process.start()
        return processes

    for _ in range(10):
        processes = start(most_shards=14)
        wanted, end = len(done) + random.integers(0, 4), time.monotonic() + 30
        while len(list(partial.glob("*.parquet"))) < wanted and time.monotonic() < end:
            time.sleep(0.0005)
        time.sleep(random.uniform(0, 0.01))
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        assert not (tmp_path / "labels").exists()
        assert done.items() <= shards().items()
        done = shards()
    assert 0 < len(done) < 150
    for process in start(most_shards=150):
        process.join(60)
        assert process.exitcode == 0
    assert contents(tmp_path / "labels") == expected and not partial.exists()
    found = {path.name: path.stat().st_ino for path in (tmp_path / "labels").glob("*.parquet")}
    assert {name: inode for name, (inode, _) in done.items()}.items() <= found.items()


def test_full_disk_is_one_line_and_loses_no_shard(label, tmp_path, monkeypatch):
    import pyarrow.parquet as parquet

    write, written = parquet.write_table, []

    def write_until_full(table, file):
        written.append(file)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, file)

    monkeypatch.setattr(parquet, "write_table", write_until_full)
    with pytest.raises(DataError, match="labels: the disk is full; make room"):
        label(rows_per_shard=1)
    partial = tmp_path / "labels.partial"
    assert sorted(path.name for path in partial.iterdir()) == [".plan.json", "labels-00000.parquet"]
    label(rows_per_shard=1)
    # Three shards, one of them tried twice.
    assert len(written) == 4 and not partial.exists()


def test_bad_input(label, sources, tmp_path):
    too_short = [InMemorySource([sources[0][2]])]
    with pytest.raises(DataError, match=r"\['arm'\]: no episode has two frames 0.1 s apart"):
        label(sources=too_short)
    assert list(tmp_path.iterdir()) == []
    for name in ("labels", "labels.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "other.parquet").write_text("")
        with pytest.raises(DataError, match=f"{name} .*give another folder"):
            label()
        assert [path.name for path in tmp_path.rglob("*.*") if path.is_file()] == ["other.parquet"]
        shutil.rmtree(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"interval_s": 0.1, "min_interval_s": 0.5},
            r"`min_interval_s` must be above 0 and at most `interval_s` \(0.1\)",
        ),
        ({"interval_s": -1.0}, "`min_interval_s` must be above 0 and at most `interval_s`"),
        ({"own_intervals": {"hand": (0.2, 0.3)}}, r"at most `interval_s` \(0.2\), got 0.3"),
        (
            {"own_intervals": {"Arm": (0.2, 0.2)}},
            r"`own_intervals` must be of data sets out of \['arm', 'hand'\], got \['Arm'\]",
        ),
        ({"batch_size": 0}, "`batch_size` must be a whole number of at least 1, got 0"),
        ({"batch_size": 2.5}, "`batch_size` must be a whole number of at least 1, got 2.5"),
        ({"world_size": 0}, "`world_size` must be a whole number of at least 1, got 0"),
        ({"rank": -1}, "`rank` must be a whole number of at least 0, got -1"),
        ({"rank": 2, "world_size": 2}, r"`rank` must be below `world_size` \(2\), got 2"),
        ({"tokenizer_name": ""}, "`tokenizer_name` must be a folder or an id on the Hub, got ''"),
        ({"tokenizer_name": None}, "`tokenizer_name` must be a folder or an id on the Hub, got None"),
        (
            {"image_processor": torch.nn.Identity()},
            "`image_processor` must be a LatentActionTokenizerImageProcessor, .*",
        ),
        ({"sources": "videos"}, "`sources` must be a list of .*, got str"),
    ],
)
def test_settings_that_make_no_labels_are_refused(label, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        label(**change)
    assert list(tmp_path.iterdir()) == []


def test_an_image_processor_of_another_size_is_refused(label, tokenizer, sources, tmp_path):
    other = LatentActionTokenizerImageProcessor(size=32)
    message = "`image_processor` must make images of the tokenizer's `image_size`, 16, got 32"
    with pytest.raises(ValueError, match=message):
        label(image_processor=other)
    assert list(tmp_path.iterdir()) == []
    pairs = FramePairDataset(sources, INTERVAL_S, MIN_INTERVAL_S)
    with pytest.raises(ValueError, match=message):
        encode_pairs(tokenizer, other, pairs, np.arange(2))
    with pytest.raises(ValueError, match="`batch_size` must be"):
        encode_pairs(tokenizer, LatentActionTokenizerImageProcessor(size=16), pairs, np.arange(2), batch_size=0)


def test_a_tokenizer_is_taken_out_of_what_trains_it(tokenizer, image_processor, sources, tmp_path):
    in_training = LatentActionTokenizerForPreTraining(tokenizer.config)
    in_training.tokenizer.load_state_dict(tokenizer.state_dict())
    times = INTERVAL_S, MIN_INTERVAL_S
    for name, model in (("alone", tokenizer), ("in_training", in_training)):
        label_videos(model, image_processor, sources, tmp_path / name, *times, tokenizer_name="toy")
    shards = [(tmp_path / name / "labels-00000.parquet").read_bytes() for name in ("alone", "in_training")]
    assert shards[0] == shards[1]
    pairs = FramePairDataset(sources, *times)
    codes = [encode_pairs(model, image_processor, pairs, np.arange(4)) for model in (tokenizer, in_training)]
    np.testing.assert_array_equal(*codes)
    with pytest.raises(ValueError, match="`tokenizer` must be a LatentActionTokenizerModel, got Identity"):
        label_videos(torch.nn.Identity(), image_processor, sources, tmp_path / "no", *times, tokenizer_name="toy")
    assert not (tmp_path / "no.partial").exists()


def test_a_data_set_may_have_intervals_of_its_own(label, tmp_path):
    folder = label(own_intervals={"hand": (0.2, 0.2)})
    table = pandas.concat([pandas.read_parquet(path) for path in sorted(Path(folder).glob("*.parquet"))])
    gaps = {name: rows.future_index - rows.frame_index for name, rows in table.groupby("source")}
    # Six frames at 10 fps: pairs of two frames' distance, none shorter.
    assert gaps["hand"].tolist() == [2, 2, 2, 2]
    assert gaps["arm"].tolist() == [3, 3, 3, 3, 3, 3, 2, 1, 3, 3, 2, 1]
    with pytest.raises(DataError, match="own_intervals"):
        label(own_intervals={"hand": (0.3, 0.2)})
