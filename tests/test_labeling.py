# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.data import DataError, Episode, InMemorySource, LatentLabels
from cyclemimic.labeling import label_videos

# At 10 fps: pairs three frames apart, two or one near the end.
INTERVAL_S, MIN_INTERVAL_S = 0.3, 0.1
LENGTHS = {"arm": (9, 5, 1), "hand": (6,)}


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
        return label_videos(
            tokenizer,
            image_processor,
            **({"sources": sources, "output_dir": tmp_path / "labels"} | arguments | changes),
        )

    return run


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
    assert rows.column_names == ["source", "episode_index", "frame_index", "future_index", "instruction", "codes"]
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


def test_failure_leaves_nothing_behind(label, tokenizer, sources, tmp_path, monkeypatch):
    def fail(*_):
        raise DataError("the video does not decode")

    tokenizer.train()
    readable = type(sources[1][0].reader)
    frames = readable.iter_frames
    monkeypatch.setattr(
        readable, "iter_frames", lambda self, at: fail() if len(self.frames) == 6 else frames(self, at)
    )
    with pytest.raises(DataError, match="does not decode"):
        label()
    assert tokenizer.training and list(tmp_path.iterdir()) == []


def test_bad_input(label, sources, tmp_path):
    too_short = [InMemorySource([sources[0][2]])]
    with pytest.raises(DataError, match="no label was added"):
        label(sources=too_short)
    assert list(tmp_path.iterdir()) == []
    label()
    with pytest.raises(DataError, match="labels"):
        label()
