# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import logging

import numpy as np
import pytest

from cyclemimic.data import DataError
from cyclemimic.evaluation.tokenizer_quality import measure_tokenizer
from cyclemimic.evaluation.tokenizer_quality.quality import _not_measured, json_ready

from .conftest import SETTINGS, SquareTokenizer, make_source


def test_codes_that_are_the_motion_score_high_everywhere(faithful):
    summary = faithful.metrics["summary"]
    for name in ("linear_r2_within", "linear_r2_across", "mlp_r2_within", "mlp_r2_across"):
        assert summary[name]["value"] > 0.95, name
    assert summary["transfer_r2_real_pairs"]["value"] > 0.7
    assert min(summary["transfer_r2_within"]["value"], summary["transfer_r2_across"]["value"]) > 0.6
    # Both bodies move alike: codes do not tell them apart.
    assert summary["embodiment_accuracy"]["value"] == pytest.approx(summary["embodiment_chance"], abs=0.12)
    assert summary["cycle_token_accuracy"]["value"] == 1.0
    assert (summary["copy_ratio"], summary["psnr"]) == (0.0, None)
    # Two axes with five steps each, not quite evenly used.
    assert summary["mutual_information"] == pytest.approx(2 * np.log(5), abs=0.4)
    assert summary["distinct_actions"] == 25


def test_words_of_one_body_only_are_found_out(body_specific):
    summary = body_specific.metrics["summary"]
    assert summary["linear_r2_within"]["value"] > 0.95
    assert summary["linear_r2_across"]["value"] < 0.2
    assert summary["embodiment_accuracy"]["value"] == 1.0
    assert summary["transfer_r2_within"]["value"] > 0.6
    assert summary["transfer_r2_across"]["value"] < 0.2
    # The decoder drops the other body's words, and the encoder reads words of the frame's own body.
    assert summary["cycle_token_accuracy"]["value"] == 0.0


def test_watermark_wins_the_cycle_and_loses_the_transfer(watermark):
    summary = watermark.metrics["summary"]
    assert summary["cycle_token_accuracy"]["value"] == 1.0
    assert summary["linear_r2_across"]["value"] > 0.95
    assert summary["transfer_r2_real_pairs"]["value"] > 0.7
    assert max(summary["transfer_r2_within"]["value"], summary["transfer_r2_across"]["value"]) < 0.2
    assert watermark.metrics["transfer"]["own_frame"]["value"] < 0.2
    assert summary["copy_ratio"] >= 1.0


def test_controls(faithful):
    probes = faithful.metrics["probes"]
    assert list(probes) == ["codes", "shuffled", "current_frame", "pixel_difference"]
    for kind in ("linear", "mlp"):
        assert probes["shuffled"][kind]["within"]["value"] < 0.1
        assert probes["shuffled"][kind]["pooled"]["value"] < 0.1
        # Near the border a square can only go back: that much the current frame tells.
        assert probes["current_frame"][kind]["within"]["value"] < 0.5
        assert probes["pixel_difference"][kind]["within"]["value"] > 0.3
    assert faithful.metrics["transfer"]["shuffled"] < 0.0
    assert faithful.metrics["mutual_information"]["all"]["ksg_shuffled"] < 0.2


def test_intervals_hold_the_figures(faithful):
    for name in ("mlp_r2_within", "linear_r2_across", "embodiment_accuracy", "transfer_r2_across"):
        figure = faithful.metrics["summary"][name]
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["low"] < figure["high"]


def test_one_body(one_body):
    metrics = one_body.metrics
    assert metrics["cross_embodiment"] is metrics["embodiment_predictability"] is None
    assert set(metrics["not_measured"]) == {"cross_embodiment", "embodiment_predictability"}
    assert all("one body" in reason for reason in metrics["not_measured"].values())
    assert metrics["transfer"]["across"] is metrics["summary"]["linear_r2_across"] is None
    assert metrics["summary"]["linear_r2_within"]["value"] > 0.95
    assert metrics["cycle"]["crosses_bodies"] is False


def test_a_data_set_without_motion_is_named(image_processor):
    films = make_source("films", 2, 4, states=None, actions=None)
    sources = [make_source("panda", 3, 6), films]
    metrics = measure_tokenizer(SquareTokenizer(), image_processor, sources, SETTINGS).metrics
    assert "neither states nor actions" in metrics["not_measured"]["sources"]["films_data"]
    assert list(metrics["data"]["bodies"]) == ["panda"]


def test_a_body_that_stands_still_is_named(still_body, faithful):
    metrics = still_body.metrics
    assert list(metrics["not_measured"]) == ["bodies"] and list(metrics["not_measured"]["bodies"]) == ["sawyer"]
    assert "there is no R² on it" in metrics["not_measured"]["bodies"]["sawyer"]
    matrix = metrics["cross_embodiment"]["codes"]["linear"]["matrix"]
    assert [line[1] for line in matrix] == [None, None] and matrix[1][0] is None, "nor is there a probe fitted on it"
    assert metrics["summary"]["linear_r2_within"]["value"] == matrix[0][0]
    assert metrics["summary"]["linear_r2_across"]["value"] is None
    assert metrics["probes"]["codes"]["linear"]["across_correlation"] is None
    transfer = metrics["transfer"]
    assert transfer["within_correlation"] > 0.7, "of the body that moves"
    assert transfer["across"]["value"] is transfer["shuffled"] is None, (
        "a body that stands still has room for no motion"
    )
    assert transfer["left_out"] >= 0.25
    assert faithful.metrics["not_measured"] == {}


@pytest.mark.parametrize("moving", [0, 1], ids=["in-training-alone", "held-out-alone"])
def test_a_body_that_moves_in_half_of_its_episodes_is_named(make_sample, moving):
    sample = make_sample([0] * 4 + [1] * 4, [0, 0, 1, 1, 2, 2, 3, 3], held_out=[1, 3])
    moves = (sample.body == 0) | (sample.episode == 2 + moving)
    object.__setattr__(sample, "motion", np.where(moves, np.arange(8), 0.0)[:, None])
    assert list(_not_measured(sample)["bodies"]) == ["b"]


def test_figures_are_json_and_describe_the_data(faithful):
    assert json.loads(json.dumps(faithful.metrics, allow_nan=False)) == faithful.metrics
    data = faithful.metrics["data"]
    assert data["bodies"]["panda"] == {
        "sources": ["panda_data"],
        "pairs": 200,
        "held_out_pairs": 60,
        "episodes": 10,
        "held_out_episodes": 3,
    }
    assert faithful.metrics["settings"]["motion"] == "state"
    # The height never changes.
    assert faithful.metrics["settings"]["motion_dims"] == [0, 1]
    assert faithful.metrics["cross_embodiment"]["bodies"] == ["panda", "sawyer"]
    assert np.shape(faithful.metrics["cross_embodiment"]["codes"]["mlp"]["matrix"]) == (2, 2)


def test_the_same_seed_gives_the_same_figures(image_processor):
    sources = [make_source("panda", 3, 6)]
    first, again = (measure_tokenizer(SquareTokenizer(), image_processor, sources, SETTINGS).metrics for _ in range(2))
    assert first | {"seconds": 0} == again | {"seconds": 0}
    other = measure_tokenizer(SquareTokenizer(), image_processor, sources, dataclasses.replace(SETTINGS, seed=1))
    assert other.metrics["summary"] != first["summary"]


def test_tokenizer_is_left_as_it_was(image_processor, caplog):
    tokenizer = SquareTokenizer().train()
    seen = []
    encode = tokenizer.encode
    tokenizer.encode = lambda *frames: (seen.append(tokenizer.training), encode(*frames))[1]
    with caplog.at_level(logging.WARNING):
        measure_tokenizer(tokenizer, image_processor, [make_source("panda", 3, 6)], SETTINGS)
    assert tokenizer.training and seen and not any(seen)
    assert "states [2] move alike in every pair and are left out" in caplog.text


def test_pictures_cross_bodies(faithful, one_body):
    assert len(faithful.pictures) == 8
    assert {row.caption for row in faithful.pictures} == {"panda → sawyer", "sawyer → panda"}
    for row in faithful.pictures:
        np.testing.assert_array_equal(row.reconstructed, row.future)
        assert (row.transferred != row.transfer_current).any()
    assert {row.caption for row in one_body.pictures} == {"panda → panda"}


def test_without_any_motion(image_processor):
    source = make_source("panda", 2, 5, states=np.zeros((5, 2)))
    with pytest.raises(DataError, match=r"'panda_data'.*states \[0, 1\] move alike in every pair"):
        measure_tokenizer(SquareTokenizer(), image_processor, [source], SETTINGS)


def test_json_ready():
    assert json_ready({"a": (1.0, float("nan"), [float("inf")]), "b": None}) == {"a": [1.0, None, [None]], "b": None}
