# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from cyclemimic.data import DataError, LatentLabels
from cyclemimic.evaluation.action_page.labelled_pairs import LabelledPairs

# Word 3 is near word 0 in the codebook, words 1 and 2 are far.
WORDS = np.array([[0.0], [5.0], [9.0], [1.0]])


def labels_of(rows: list[tuple[str, int, int, list[int]]], **metadata: object) -> LatentLabels:
    source, episode, frame, codes = zip(*rows, strict=True)
    columns = {"source": source, "episode_index": episode, "frame_index": frame, "codes": codes}
    return LatentLabels(
        columns | {"future_index": [index + 1 for index in frame]},
        {"codebook_size": 4, "num_latent_tokens": 2} | metadata,
    )


def test_labels_are_matched_by_data_set_episode_and_frame(page_pairs):
    rows = [("leg", 1, 2, [3, 1]), ("arm", 0, 3, [0, 2]), ("other", 0, 0, [1, 1]), ("arm", 0, 1, [2, 2])]
    labelled = LabelledPairs.from_labels(page_pairs, labels_of(rows, interval_s=0.1), 0.1)
    found = [page_pairs[int(index)] for index in labelled.indices]
    where = [(item["source"], item["episode_index"], item["frame_index"]) for item in found]
    assert where == [("arm", 0, 1), ("arm", 0, 3), ("leg", 1, 2)]
    assert labelled.codes.tolist() == [[2, 2], [0, 2], [3, 1]]


def test_labels_that_do_not_fit_are_refused(page_pairs):
    with pytest.raises(DataError, match="`interval_s` must be 0.5, as when `labels` were made, got 0.1"):
        LabelledPairs.from_labels(page_pairs, labels_of([("arm", 0, 0, [0, 0])], interval_s=0.5), 0.1)
    with pytest.raises(DataError, match=r"`labels` must name pairs of \['arm', 'leg'\], got labels of \['other'\]"):
        LabelledPairs.from_labels(page_pairs, labels_of([("other", 0, 0, [0, 0])]), 0.1)
    # As a mixture labels a data set that has an interval of its own.
    columns = {"source": ["arm"], "episode_index": [0], "frame_index": [0], "future_index": [2], "codes": [[0, 0]]}
    labels = LatentLabels(columns, {"codebook_size": 4, "num_latent_tokens": 2, "interval_s": 0.1})
    with pytest.raises(DataError, match=r"`labels` must be of pairs 0.1 s apart, got others for arm, episode 0"):
        LabelledPairs.from_labels(page_pairs, labels, 0.1)


def test_nearest_by_words_then_by_codebook_then_one_an_episode(page_pairs):
    # A pair of each of the four episodes, and a second one of the first.
    indices = np.array([0, 1, 4, 8, 12])
    codes = np.array([[0, 0], [0, 0], [3, 3], [0, 1], [0, 3]])
    labelled = LabelledPairs(page_pairs, indices, codes)
    near = labelled.nearest(np.array([0, 0]), WORDS, 9)
    assert near[0] in (0, 1) and near[1:] == [4, 3, 2]
    assert labelled.nearest(np.array([0, 0]), WORDS, 2, leave_out=0) == [4, 3]
    assert labelled.nearest(np.array([0, 0]), WORDS, 9) == near
