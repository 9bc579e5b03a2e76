# SPDX-License-Identifier: Apache-2.0
"""Lines of the page's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..formatting import format_number
from .bootstrap import Estimate

_PROBE_NAMES = {
    "codes": "codes",
    "shuffled": "codes, motions shuffled",
    "current_frame": "current frame alone",
    "pixel_difference": "difference of the frames",
    "vision_difference": "difference of vision features",
}
_CEILINGS = {"real pairs": "real_pairs", "own frame": "own_frame"}


@dataclass(frozen=True)
class Row:
    """A line of a table of figures.

    Args:
        name (`str`): What is measured.
        values (`tuple[Estimate | float | None, ...]`): An estimate or a number for each column.
        detail (`str`, *optional*): What to hold it against.
    """

    name: str
    values: tuple[Estimate | float | None, ...]
    detail: str = ""


def summary_rows(metrics: Mapping) -> list[Row]:
    """The main figures; without those across bodies where there is one body."""
    summary, number = metrics["summary"], format_number
    cycle, information = metrics["cycle"], metrics["mutual_information"]["all"]
    across = _rows_across_bodies(metrics)
    rows = [
        Row(
            "true motion from codes, same body, R²",
            (summary["linear_r2_within"],),
            f"linear probe; MLP {number(summary['mlp_r2_within']['value'])}",
        ),
        *across[:2],
        _transfer_row(metrics["transfer"], "within", not across),
        *across[2:],
        Row(
            "cycle accuracy, words",
            (cycle["token_accuracy"],),
            f"commonest word {number(cycle['token_chance'])}; whole actions "
            f"{number(cycle['action_accuracy']['value'])}",
        ),
        Row(
            "reconstruction error over that of a copy",
            (summary["copy_ratio"],),
            f"PSNR {number(summary['psnr'])} dB, of a copy {number(summary['copy_psnr'])} dB",
        ),
        Row(
            "perplexity of the words",
            (summary["perplexity"],),
            f"{number(100 * summary['used_share'])} % of the words in use; "
            f"{number(summary['distinct_actions'])} distinct actions",
        ),
    ]
    if information is not None:
        detail = (
            f"KSG; motions of other episodes {number(information['ksg_shuffled'])}, "
            f"codes as labels {number(information['discrete'])}, of {number(100 * information['discrete_share'])} % of the pairs"
        )
        rows.append(Row("mutual information of codes and motion, nats", (information["ksg"],), detail))
    return rows


def _rows_across_bodies(metrics: Mapping) -> list[Row]:
    summary, told = metrics["summary"], metrics["embodiment_predictability"]
    if told is None:
        return []
    from_motion = format_number(told["true_motion"]["mlp"]["value"])
    return [
        Row(
            "true motion from codes, other body, R²",
            (summary["linear_r2_across"],),
            f"linear probe, correlation {format_number(summary['linear_correlation_across'])}; MLP "
            f"{format_number(summary['mlp_r2_across']['value'])}",
        ),
        Row(
            "body told from codes, accuracy",
            (summary["embodiment_accuracy"],),
            f"lower is more unified; chance {format_number(told['chance'])}, from the true motion {from_motion}",
        ),
        _transfer_row(metrics["transfer"], "across", True),
    ]


def _transfer_row(transfer: Mapping, where: str, has_shuffled: bool) -> Row:
    details = []
    if where == "within":
        details += [f"{name} {format_number(transfer[key]['value'])}" for name, key in _CEILINGS.items()]
    if has_shuffled:
        details.append(f"shuffled {format_number(transfer['shuffled'])}")
    details.append(f"correlation {format_number(transfer[f'{where}_correlation'])}")
    body = {"within": "same body", "across": "other body"}[where]
    return Row(f"action transfer, {body}, R²", (transfer[where],), "; ".join(details))


def probe_rows(probes: Mapping) -> list[Row]:
    """R² of each representation: same body by linear probe and MLP, then other body by both."""
    return [
        Row(
            _PROBE_NAMES[name],
            tuple(kinds[kind][where] for where in ("within", "across") for kind in ("linear", "mlp")),
        )
        for name, kinds in probes.items()
    ]


def dimension_rows(metrics: Mapping) -> list[Row]:
    """R² of each dimension of the motion."""
    probes, transfer = metrics["probes"], metrics["transfer"]
    rows = [
        Row(
            f"{_PROBE_NAMES[name]}, linear probe of all bodies",
            tuple(probes[name]["linear"]["pooled_scores"]["r2_per_dim"]),
        )
        for name in ("codes", "pixel_difference")
    ]
    names = {"real_pairs": "real frames", "own_frame": "own frame", "within": "same body", "across": "other body"}
    rows += [
        Row(f"transfer probe, {name}", tuple(transfer[f"{key}_per_dim"]))
        for key, name in names.items()
        if transfer[f"{key}_per_dim"] is not None
    ]
    return rows
