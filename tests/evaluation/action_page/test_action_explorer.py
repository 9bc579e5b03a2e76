# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest


def test_codes_are_the_tokenizers_own(explorer, page_pairs):
    item = page_pairs[9]
    inputs = explorer.image_processor(item["current"], item["future"])
    expected = explorer.tokenizer.encode(**inputs)
    view = explorer.view_example(9)
    assert view.codes == tuple(expected.codes[0].tolist())
    np.testing.assert_array_equal(view.current, item["current"])
    # The picture is the decoder's, brought back to the frame's shape.
    decoded = explorer.tokenizer.decode(inputs["pixel_values"], codes=expected.codes).pixel_values
    square = explorer.image_processor.post_process(decoded)[0].astype(float)
    assert view.reconstruction.shape == item["current"].shape == (12, 24, 3)
    assert abs(view.reconstruction.mean() - square.mean()) < 3


def test_an_action_is_applied_to_the_other_bodies_only(explorer, page_pairs):
    view = explorer.view_example(0)
    assert [pair.caption for pair in view.transfers] == ["leg: <b>wave</b>"]
    np.testing.assert_array_equal(view.transfers[0].current, page_pairs.episodes[2].read_frames([0])[0])
    np.testing.assert_array_equal(view.transfers[0].future, explorer.apply(view.codes, [view.transfers[0].current])[0])
    # Nothing near is of the same episode.
    near = [neighbour.pair.current.tobytes() for neighbour in view.neighbours]
    assert len(near) == 3 and not set(near) & {frame.tobytes() for frame in page_pairs.episodes[0].read_frames()}


def test_frames_of_a_user(explorer):
    random = np.random.default_rng(5)
    current, future, other = random.integers(0, 256, (3, 20, 10, 3), dtype=np.uint8)
    view = explorer.view(current, future, other)
    assert [pair.caption for pair in view.transfers] == ["your frame", "arm: <b>wave</b>", "leg: <b>wave</b>"]
    assert view.reconstruction.shape == view.transfers[0].future.shape == (20, 10, 3)
    for neighbour in view.neighbours:
        assert neighbour.num_shared == sum(a == b for a, b in zip(view.codes, neighbour.codes, strict=True))
    with pytest.raises(ValueError, match="must have the same shape"):
        explorer.view(current, future[1:])


def test_examples_are_of_every_data_set(explorer, page_pairs):
    chosen = explorer.examples(4)
    assert [page_pairs[index]["source"] for index in chosen] == ["arm", "arm", "leg", "leg"]
    assert len(set(chosen)) == 4 and chosen == explorer.examples(4)
