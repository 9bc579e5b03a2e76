# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cyclemimic.evaluation.tokenizer_quality.motion import TrueMotion
from cyclemimic.evaluation.tokenizer_quality.pair_sample import sample_pairs
from cyclemimic.evaluation.tokenizer_quality.pixel_probe import PixelProbe, fit_pixel_probe
from cyclemimic.evaluation.tokenizer_quality.transfer import Transfers, _choose_frames, _r2_per_dim, _transfer

from .conftest import SETTINGS, make_source


@pytest.fixture(scope="module")
def sample():
    return sample_pairs([make_source("panda")], TrueMotion("state", (0, 1)), np.stack, SETTINGS)


@pytest.fixture(scope="module")
def probe(sample):
    return fit_pixel_probe(sample, 180, torch.device("cpu"))


def test_probe_sees_motion_there_and_back_and_none(sample, probe):
    rows = sample.held_out_rows()
    current, future = sample.frames[sample.current[rows]], sample.frames[sample.future[rows]]
    true = sample.standardised[rows]
    forth, back, still = (
        probe.predict(*frames) for frames in ((current, future), (future, current), (current, current))
    )
    assert np.abs(forth - true).mean() < 0.3
    assert np.abs(back + true).mean() < 0.3
    assert np.abs(still).mean() < 0.2


def test_what_the_networks_read_is_averaged(sample, probe):
    rows = sample.held_out_rows()
    frames = sample.frames[sample.current[rows]], sample.frames[sample.future[rows]]
    each = [PixelProbe([network], torch.device("cpu")).predict(*frames) for network in probe.networks]
    assert len(each) == 3 and not np.allclose(each[0], each[1])
    np.testing.assert_allclose(probe.predict(*frames), np.mean(each, axis=0), atol=1e-6)


def test_probe_is_blind_to_marks_that_are_not_motion(sample, probe):
    rows = sample.held_out_rows()
    current = sample.frames[sample.current[rows]]
    marked = current.copy()
    # As large as an action could be written: six levels in a corner.
    marked[:, 0, 0, 2] += np.random.default_rng(0).integers(0, 7, len(rows), dtype=np.uint8)
    moved = probe.predict(current, marked) - probe.predict(current, current)
    assert np.abs(moved).max() < 0.1


def test_larger_frames_are_averaged_down(sample):
    large = dataclasses.replace(sample, frames=sample.frames.repeat(5, axis=1).repeat(5, axis=2))
    for steps in (10, 2):
        probe = fit_pixel_probe(large, steps, torch.device("cpu"))
    decoded = probe.predict(large.frames[large.current], large.frames[large.future])
    assert decoded.shape == large.motion.shape and np.isfinite(decoded).all()


def test_matrix_and_its_means(body_specific):
    transfer = body_specific.metrics["transfer"]
    matrix = np.array(transfer["matrix"])
    assert (np.diag(matrix) > 0.6).all() and (matrix[~np.eye(2, dtype=bool)] < 0.2).all()
    assert transfer["within"]["value"] == pytest.approx(np.diag(matrix).mean())
    assert transfer["within_correlation"] > 0.8 > 0.3 > transfer["across_correlation"]
    assert transfer["own_frame"] == transfer["real_pairs"]
    per_dim = {name: np.array(transfer[f"{name}_per_dim"]) for name in ("real_pairs", "within", "across")}
    assert all(values.shape == (2,) for values in per_dim.values())
    assert (per_dim["real_pairs"] > 0.7).all() and (per_dim["within"] > 0.5).all() and (per_dim["across"] < 0.2).all()


def test_a_body_that_stands_still_along_a_dimension_does_not_count():
    moving, still = np.array([[0.0, 0.0], [2.0, 2.0]]), np.array([[0.0, 1.0], [2.0, 1.0]])
    cells = [Transfers(np.arange(2), true, true * [1, 0]) for true in (moving, still)]
    assert _r2_per_dim(cells, np.array([True, True])) == [1.0, -1.0]
    assert np.isnan(_r2_per_dim(cells, np.array([False, True]))[1])


def test_transfers_are_of_held_out_pairs(faithful):
    sample = faithful.sample
    for body, line in enumerate(faithful.transfers):
        for cell in line:
            assert set(cell.actions_of) <= set(sample.held_out_rows(body))
            np.testing.assert_array_equal(cell.true, sample.standardised[cell.actions_of])


def test_actions_are_applied_to_held_out_frames_of_other_episodes(make_sample):
    sample = make_sample([0] * 40, np.repeat(np.arange(4), 10).tolist(), [2, 3])
    frames = np.zeros((40, 4, 4, 3), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None]
    shown = []
    passes = SimpleNamespace(decode=lambda frames, codes: shown.append(frames) or frames)
    probe = SimpleNamespace(predict=lambda frames, generated: np.zeros((len(frames), 1)))
    encoded = SimpleNamespace(codes=np.zeros((40, 2), int))
    random = np.random.default_rng(0)
    cell = _transfer(dataclasses.replace(sample, frames=frames), encoded, passes, probe, 0, 0, random)
    rows = shown[0][:, 0, 0, 0]
    assert sample.held_out[rows].all() and (sample.episode[rows] != sample.episode[cell.actions_of]).all()


def test_actions_are_applied_where_they_do_not_lead_out_of_what_was_seen(make_sample):
    """Body 0 goes from 0 to 9 by ones, and once by nine; body 1 from 3 to 8 by ones."""
    sample = make_sample([0] * 10 + [1] * 10, np.repeat([0, 1, 2, 3], 5).tolist(), [1, 3])
    place = np.array([*range(9), 0, 3, 4, 5, 6, 7, 3, 4, 5, 6, 7], dtype=float)[:, None]
    motion = np.ones((20, 1))
    motion[9] = 9
    sample = dataclasses.replace(sample, place=place, motion=motion)
    actions = sample.held_out_rows(0)
    assert actions.tolist() == [5, 6, 7, 8, 9]
    played = [_choose_frames(sample, actions, 1, np.random.default_rng(seed)) for seed in range(20)]
    # Nine steps fit nowhere on the other body; one step fits everywhere.
    assert all(kept.tolist() == [5, 6, 7, 8] for kept, _ in played)
    assert {frame for _, frames in played for frame in frames} == set(range(15, 20))
    # At home, in the episode that is not held out, from the first place alone.
    kept, frames = _choose_frames(sample, actions, 0, np.random.default_rng(0))
    assert kept.tolist() == actions.tolist() and frames[-1] == 0 and (frames[:-1] < 5).all()
    unknown = dataclasses.replace(sample, place=None)
    assert len(_choose_frames(unknown, actions, 1, np.random.default_rng(0))[0]) == 5
