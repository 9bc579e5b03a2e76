# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cyclemimic import CycleMimicConfig
from cyclemimic.commands import inputs
from cyclemimic.commands.inputs import check_labels_are_of, choose_action_steps, open_mixture_or_sources
from cyclemimic.commands.mixture_arguments import MixtureArguments
from cyclemimic.data import Episode, InMemorySource, LatentLabels, WeightedSource
from cyclemimic.data.pairs import future_indices


@pytest.mark.parametrize(
    ("wanted", "configured", "chunk_size", "expected"),
    [(3, 2, 10, 3), (None, 2, 10, 2), (None, None, 11, 5), (None, None, 1, 1), (10, None, 10, 10)],
)
def test_actions_before_the_next_look(wanted, configured, chunk_size, expected):
    config = CycleMimicConfig(chunk_size=chunk_size, n_action_steps=configured)
    assert choose_action_steps(wanted, config) == expected


@pytest.mark.parametrize("wanted", [0, 11])
def test_no_more_actions_than_a_chunk_has(wanted):
    with pytest.raises(
        ValueError, match=rf"`num_action_steps` must be in \[1, 10\], the policy's chunk, got {wanted}"
    ):
        choose_action_steps(wanted, CycleMimicConfig(chunk_size=10))


def test_a_policy_that_averages_looks_before_every_action():
    config = CycleMimicConfig(chunk_size=10, n_action_steps=1, temporal_ensemble_coeff=0.1)
    assert choose_action_steps(None, config) == 1
    message = r"`num_action_steps` must be left out .*\(`temporal_ensemble_coeff`\), got 3"
    with pytest.raises(ValueError, match=message):
        choose_action_steps(3, config)


def arm_source(*lengths: int) -> InMemorySource:
    frames = np.zeros((max(lengths), 4, 4, 3), np.uint8)
    return InMemorySource(
        [Episode.from_arrays(frames[:length], 10.0, source="arm", index=index) for index, length in enumerate(lengths)]
    )


def labels_of(source: InMemorySource, **metadata) -> LatentLabels:
    futures = [(episode.index, *pair) for episode in source for pair in enumerate(future_indices(episode, 0.3, 0.2))]
    episode_index, frame_index, future_index = np.transpose(futures)
    columns = {"source": ["arm"] * len(futures), "episode_index": episode_index, "frame_index": frame_index}
    columns |= {"future_index": future_index, "codes": np.zeros((len(futures), 4), np.int64)}
    return LatentLabels(columns, {"codebook_size": 16, "num_latent_tokens": 4, **metadata})


def test_labels_of_other_episodes_of_the_name_are_refused():
    camera = arm_source(4)[0].camera
    labels = labels_of(arm_source(5, 2, 8), cameras={"arm": camera})
    check_labels_are_of(labels, [arm_source(5, 2, 8)])
    check_labels_are_of(labels, [arm_source(5, 9)])  # one that is too short for a pair has no labels to be wrong
    for lengths, message in (((6, 2), "episode 0 has 5 frames instead of 6"), ((4, 2), "has 5 frames instead of 4")):
        with pytest.raises(ValueError, match=f"`labels` must be of these data sets, got .*arm.*{message}"):
            check_labels_are_of(labels, [arm_source(*lengths)])
    with pytest.raises(ValueError, match=f"`labels` must be of arm's camera {camera}, got those of wrist"):
        check_labels_are_of(labels_of(arm_source(5), cameras={"arm": "wrist"}), [arm_source(5)])
    check_labels_are_of(labels_of(arm_source(5)), [arm_source(6)])  # of labels that say nothing, nothing is known


@pytest.mark.parametrize(
    ("fps", "words"), [(10.0, None), (3.0, None), (2.0, "0.5 s apart instead of 0.3 s, as it is read at 2")]
)
def test_pairs_far_from_the_time_asked_for_are_told_of(fps, words, tmp_path, caplog):
    for index in range(12):
        frame = np.full((8, 8, 3), 20 * index, np.uint8)
        (tmp_path / "film").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "film" / f"{index:03d}.png")
    open_mixture_or_sources(MixtureArguments([str(tmp_path)], fps=fps), 0.3, 0.1)
    assert [words in message for message in caplog.messages] == [True] * (words is not None)


def test_a_range_of_times_is_met_by_any_of_them(caplog):
    frames = np.zeros((12, 8, 8, 3), np.uint8)
    source = InMemorySource([Episode.from_arrays(frames, fps=2.0)])
    for interval_s in ((0.3, 0.6), (0.3, 0.35)):
        inputs._warn_of_coarse_rates([WeightedSource(source, 1.0, interval_s, 0.1)])
    assert ["0.5 s apart instead of 0.3 s" in message for message in caplog.messages] == [True]
