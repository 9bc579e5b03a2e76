# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import (
    DataError,
    DemonstrationDataset,
    Episode,
    InMemorySource,
    LabelledMixture,
    LatentLabels,
    MixtureDataset,
    WeightedSource,
)
from cyclemimic.data.instructions import UNSAID

from .conftest import make_frames


def make_source(name, length, instruction="push"):
    return InMemorySource([Episode.from_arrays(make_frames(length), 10, instruction, source=name)])


def make_labels(counts):
    rows = [(name, frame) for name, count in counts.items() for frame in range(count)]
    columns = {
        "source": [name for name, _ in rows],
        "episode_index": np.zeros(len(rows), int),
        "frame_index": [frame for _, frame in rows],
        "future_index": [frame + 1 for _, frame in rows],
        "codes": [[ord(name) % 16, frame % 16] for name, frame in rows],
    }
    return LatentLabels(columns, {"codebook_size": 16, "num_latent_tokens": 2})


def make_pairs(sources):
    return MixtureDataset([WeightedSource(source, 1.0, 0.5, 0.2) for source in sources])


def test_items_are_those_of_a_demonstration_dataset():
    sources, labels = [make_source("a", 12), make_source("b", 9)], make_labels({"a": 10, "b": 7})
    mixture, frames = LabelledMixture(make_pairs(sources), labels), DemonstrationDataset(sources, labels)
    expected = {(item["source"], item["frame_index"]): item for item in (frames[i] for i in range(len(frames)))}
    seen = set()
    for epoch in range(20):
        mixture.set_epoch(epoch)
        for index in range(len(mixture)):
            item = mixture[index]
            twin = expected[item["source"], item["frame_index"]]
            assert item.keys() == twin.keys()
            for name, value in item.items():
                np.testing.assert_array_equal(value, twin[name])
            seen.add((item["source"], item["frame_index"]))
    assert seen == set(expected)


def test_an_episode_without_instruction_is_told_to_go_on():
    mixture = LabelledMixture(make_pairs([make_source("a", 12, None)]), make_labels({"a": 10}))
    assert mixture[0]["instruction"] == UNSAID


@pytest.mark.parametrize("counts", [{"a": 10}, {"a": 10, "b": 6}])
def test_pairs_without_labels_are_an_error_before_training(counts):
    pairs = make_pairs([make_source("a", 12), make_source("b", 9)])
    with pytest.raises(DataError, match="b: episode 0 has 7 pairs, but . labels; label the data again"):
        LabelledMixture(pairs, make_labels(counts))


def test_a_pair_in_the_middle_without_a_label_is_an_error_before_training():
    columns = {
        "source": ["a"] * 10,
        "episode_index": np.zeros(10, int),
        "frame_index": [*range(8), 9, 10],
        "future_index": np.arange(10),
        "codes": np.zeros((10, 2), int),
    }
    labels = LatentLabels(columns, {"codebook_size": 16, "num_latent_tokens": 2})
    with pytest.raises(DataError, match="a: episode 0 has 10 pairs, but 10 labels; label the data again"):
        LabelledMixture(make_pairs([make_source("a", 12)]), labels)
