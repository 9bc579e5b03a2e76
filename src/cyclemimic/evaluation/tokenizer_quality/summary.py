# SPDX-License-Identifier: Apache-2.0
"""An evaluation in short: what it was measured on, and the figures to compare tokenizers by."""

from __future__ import annotations

from typing import Any

import numpy as np

from .pair_sample import PairSample
from .probes import PROBES


def summarise(sections: dict[str, Any]) -> dict[str, Any]:
    """The figures to compare tokenizers by: estimates and plain numbers."""
    codes, told = sections["probes"]["codes"], sections["embodiment_predictability"]
    use, transfer = sections["codebook"]["all"], sections["transfer"]
    return {
        **{f"{kind}_r2_{where}": codes[kind][where] for kind in PROBES for where in ("within", "across", "pooled")},
        "linear_correlation_across": codes["linear"]["across_correlation"],
        **{f"{kind}_{name}": codes[kind]["pooled_scores"][name] for kind in PROBES for name in ("nmse", "max_l1")},
        "mutual_information": (sections["mutual_information"]["all"] or {}).get("ksg"),
        "mutual_information_discrete": (sections["mutual_information"]["all"] or {}).get("discrete"),
        "embodiment_accuracy": told and told["codes"]["mlp"],
        "embodiment_accuracy_from_motion": told and told["true_motion"]["mlp"],
        "embodiment_chance": told and told["chance"],
        "transfer_r2_within": transfer["within"],
        "transfer_r2_across": transfer["across"],
        "transfer_r2_real_pairs": transfer["real_pairs"],
        "cycle_token_accuracy": sections["cycle"]["token_accuracy"],
        **sections["reconstruction"]["all"],
        **{name: use[name] for name in ("used_share", "perplexity", "distinct_actions")},
    }


def describe_data(sample: PairSample) -> dict[str, Any]:
    """Pairs and episodes of each body, and the standard deviation of each dimension of the motion."""
    bodies = {}
    for body, name in enumerate(sample.bodies):
        rows, held_out = np.flatnonzero(sample.body == body), sample.held_out_rows(body)
        bodies[name] = {
            "sources": sorted(set(sample.source[rows].tolist())),
            "pairs": len(rows),
            "held_out_pairs": len(held_out),
            "episodes": len(np.unique(sample.episode[rows])),
            "held_out_episodes": len(np.unique(sample.episode[held_out])),
        }
    return {"bodies": bodies, "motion_std": sample.scale.tolist()}


def cross_embodiment_matrices(probes: dict[str, Any], sample: PairSample) -> dict[str, Any]:
    """The matrices of the probes side by side."""
    keys = ("matrix", "within", "across", "across_correlation")
    matrices = {
        name: {kind: {key: scores[key] for key in keys} for kind, scores in kinds.items()}
        for name, kinds in probes.items()
    }
    return {"bodies": sample.bodies, **matrices}
