# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from cyclemimic.evaluation.tokenizer_quality import write_quality
from cyclemimic.evaluation.tokenizer_quality.page import _dimension_charts, cell_colour, render_quality_page


def test_files(faithful, tmp_path):
    assert write_quality(tmp_path, faithful, "a/tokenizer") == tmp_path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quality.html", "quality.json", "tokens.npz"]
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert figures == {"tokenizer": "a/tokenizer", "tokenizer_files": {}, **faithful.metrics}


def test_page_shows_everything_offline(faithful):
    page = render_quality_page(faithful, "<b>tokenizer</b>")
    assert "&lt;b&gt;tokenizer" in page and "<b>tokenizer" not in page
    assert re.findall(r'(?:src|href)="(?!data:|#)', page) == [] and "@import" not in page and "url(" not in page
    assert page.count('alt="reconstruction"') == len(faithful.pictures) == 8
    assert "body told from codes" in page and "action transfer, other body" in page
    assert page.count('<th scope="col">dimension ') == 2 and "transfer probe, other body" in page
    # Four matrices of two bodies, and three charts twice with a dot a pair.
    assert page.count('class="own"') == 8
    assert page.count("<circle") == 2 * 2 * (60 + 60)
    assert "nan" not in page and "None" not in page and "Infinity" not in page


def test_page_of_one_body(one_body):
    page = render_quality_page(one_body, "x")
    assert "The data is of one body" in page and "another scene" in page
    assert "body told from codes" not in page and "other body, " not in page
    assert 'class="own"' not in page and "None" not in page


def test_page_names_a_body_that_stands_still(still_body, faithful):
    page = render_quality_page(still_body, "x")
    assert re.search(r'class="card missing">sawyer: It moves alike', page)
    assert '="nan"' not in page, "nor is there a point of it"
    assert 'class="card missing"' not in render_quality_page(faithful, "x")


def test_page_without_what_could_not_be_measured(faithful):
    blank = {"value": None, "low": None, "high": None}
    summary = faithful.metrics["summary"] | {"linear_r2_within": blank, "copy_ratio": None, "psnr": None}
    unknown = faithful.metrics["mutual_information"] | {"all": None}
    metrics = faithful.metrics | {"summary": summary, "mutual_information": unknown}
    page = render_quality_page(dataclasses.replace(faithful, metrics=metrics), "x")
    assert "<b>–</b>" in page and "None" not in page and "nats" not in page


@pytest.mark.parametrize(("r2", "share"), [(None, 0), (-2.0, 0), (0.0, 0), (0.5, 30), (1.0, 60), (1.2, 60)])
def test_cells_are_darker_the_better(r2, share):
    assert cell_colour(r2) == f"color-mix(in srgb, var(--accent) {share}%, transparent)"


def test_there_is_no_chart_without_points():
    nothing, points = np.empty((0, 2)), np.ones((3, 2))
    assert _dimension_charts([(nothing, nothing)] * 2, ("a", "b"), [0, 1]) == []
    assert len(_dimension_charts([(nothing, nothing), (points, points)], ("a", "b"), [0, 1])) == 2
