# SPDX-License-Identifier: Apache-2.0
"""What an evaluation leaves behind: its figures, a page that shows them, and the tokens for other benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclemimic.data.atomic import write_atomically

from ..charts import Series
from ..page import render_page
from ..report import CurveGroup
from .figure_rows import dimension_rows, probe_rows, summary_rows
from .quality import TokenizerMeasurement
from .scatter import PointGroup, ScatterChart, scatter_chart
from .tokens import write_tokens

_MAX_POINTS = 150
_MAX_CHARTS = 6


@dataclass(frozen=True)
class Matrix:
    """A table of R² from body (row) to body (column)."""

    title: str
    values: tuple[tuple[float | None, ...], ...]


def write_quality(
    folder: str | Path, measurement: TokenizerMeasurement, name: str, files: Mapping[str, str] | None = None
) -> Path:
    """
    Writes `quality.json`, `quality.html` and `tokens.npz`.

    Args:
        folder (`str` or `Path`): Where to.
        measurement ([`TokenizerMeasurement`]): What was found.
        name (`str`): Name of the tokenizer, as the page and the figures call it.
        files (`Mapping[str, str]`, *optional*): Hashes of its files ([`~cyclemimic.hub.integrity.hash_files`]), by which its
            figures are known to be of it.

    Returns:
        `Path`: `folder`.
    """
    folder = Path(folder)
    figures = {"tokenizer": name, "tokenizer_files": dict(files or {}), **measurement.metrics}
    write_atomically(folder / "quality.json", json.dumps(figures, indent=2, allow_nan=False).encode())
    write_atomically(folder / "quality.html", render_quality_page(measurement, name).encode("utf-8", "replace"))
    write_tokens(folder / "tokens.npz", measurement.sample, measurement.encoded)
    return folder


def render_quality_page(measurement: TokenizerMeasurement, name: str) -> str:
    """The page: one HTML document that opens offline."""
    metrics = measurement.metrics
    return render_page(
        "quality.html",
        name=name,
        metrics=metrics,
        bodies=measurement.sample.bodies,
        summary=summary_rows(metrics),
        probes=probe_rows(metrics["probes"]),
        dimensions=dimension_rows(metrics),
        matrices=_matrices(metrics),
        scatters=_scatters(measurement),
        pictures=measurement.pictures,
        codebook=_word_chart(metrics["codebook"]["all"]),
        cell_colour=cell_colour,
        missing=metrics["not_measured"].get("cross_embodiment"),
        left_out=metrics["not_measured"].get("bodies", {}),
    )


def cell_colour(r2: float | None) -> str:
    """Background of a cell as a CSS colour: from none at 0 and below to the page's accent at 1."""
    share = 0 if r2 is None else round(100 * min(1.0, max(0.0, r2)))
    return f"color-mix(in srgb, var(--accent) {round(0.6 * share)}%, transparent)"


def _matrices(metrics: Mapping) -> list[Matrix]:
    cross = metrics["cross_embodiment"]
    if cross is None:
        return []
    titles = {
        "Codes, linear probe": cross["codes"]["linear"]["matrix"],
        "Codes, MLP probe": cross["codes"]["mlp"]["matrix"],
        "Difference of the frames, linear probe": cross["pixel_difference"]["linear"]["matrix"],
        "Action transfer": metrics["transfer"]["matrix"],
    }
    return [Matrix(title, tuple(map(tuple, values))) for title, values in titles.items()]


def _scatters(measurement: TokenizerMeasurement) -> list[tuple[str, list[ScatterChart]]]:
    """Charts of what linear probes read from codes of their own body, and of what actions do to other frames."""
    sample, dims = measurement.sample, measurement.metrics["settings"]["motion_dims"]
    held_out = sample.held_out_rows()
    body, count = sample.body[held_out], len(sample.bodies)
    true = sample.standardised[held_out]
    probed = []
    for i in range(count):
        decoded = measurement.predictions.by_body[i]
        # Of a body that stands still there is none.
        rows = (body == i) & np.isfinite(decoded).all(axis=1)
        probed.append((true[rows], decoded[rows]))
    transferred = []
    for i, line in enumerate(measurement.transfers):
        cells = [cell for j, cell in enumerate(line) if i != j or count == 1]
        transferred.append((np.concatenate([c.true for c in cells]), np.concatenate([c.decoded for c in cells])))
    onto = "other bodies" if count > 1 else "other episodes"
    charts = {
        "Read from codes by a linear probe of the same body": probed,
        f"Read from frames of {onto} to which the action was applied": transferred,
    }
    drawn = [(title, _dimension_charts(pairs, sample.bodies, dims)) for title, pairs in charts.items()]
    return [(title, charts) for title, charts in drawn if charts]


def _dimension_charts(
    pairs: list[tuple[np.ndarray, np.ndarray]], names: tuple[str, ...], dims: list[int]
) -> list[ScatterChart]:
    """A chart a dimension, of some of the points; none without points."""
    if not any(len(true) for true, _ in pairs):
        return []
    random = np.random.default_rng(0)
    chosen = [random.permutation(len(true))[:_MAX_POINTS] for true, _ in pairs]
    return [
        scatter_chart(
            f"dimension {dim}",
            [
                PointGroup(name, true[rows, column], decoded[rows, column])
                for name, (true, decoded), rows in zip(names, pairs, chosen, strict=True)
            ],
        )
        for column, dim in enumerate(dims[:_MAX_CHARTS])
    ]


def _word_chart(use: Mapping) -> CurveGroup:
    series = tuple(
        Series(f"token {token}", range(1, len(shares) + 1), sorted(shares, reverse=True))
        for token, shares in enumerate(use["word_shares"][:6])
    )
    description = "Share of each word, the commonest first. The legend gives the rarest one's."
    return CurveGroup("How evenly words are used", series, description, x_label="rank of the word")
