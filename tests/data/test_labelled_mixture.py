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


def make_pairs(sources, **settings):
    return MixtureDataset([WeightedSource(source, 1.0, 0.5, 0.2) for source in sources], **settings)


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


def test_frames_that_are_not_looked_at_are_not_decoded():
    sources, labels = [make_source("a", 12), make_source("b", 9)], make_labels({"a": 10, "b": 7})
    decoded = {True: 0, False: 0}

    def counting(with_future):
        def count(frames):
            decoded[with_future] += len(frames)
            return frames

        return make_pairs(sources, transform=count, with_future=with_future)

    whole, spared = counting(True), counting(False)
    for index in range(len(whole)):
        pair = spared[index]
        expected = whole[index]
        expected.pop("future")
        assert pair.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_array_equal(pair[name], value)
    # A segment is all of a data set here: 12 and 9 frames with those that are future alone, 10 and 7 without; and one of each
    # at first, to see that it decodes.
    segments = np.array([[12, 9], [10, 7]])
    rounds = [
        (a, b)
        for a in range(4)
        for b in range(4)
        if (segments @ [a, b] == [decoded[True] - 2, decoded[False] - 2]).all()
    ]
    assert len(rounds) == 1
    items, twins = (LabelledMixture(pairs, labels) for pairs in (spared, whole))
    for index in range(5):
        item, twin = items[index], twins[index]
        assert item.keys() == twin.keys()
        for name, value in item.items():
            np.testing.assert_array_equal(value, twin[name])


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
        "future_index": np.arange(10) + 2,
        "codes": np.zeros((10, 2), int),
    }
    labels = LatentLabels(columns, {"codebook_size": 16, "num_latent_tokens": 2})
    with pytest.raises(DataError, match="a: episode 0 has 10 pairs, but 10 labels; label the data again"):
        LabelledMixture(make_pairs([make_source("a", 12)]), labels)
