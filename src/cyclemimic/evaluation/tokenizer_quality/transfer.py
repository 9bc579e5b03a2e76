# SPDX-License-Identifier: Apache-2.0
"""Action transfer: does an action met on one body move another body in the same way?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from .bootstrap import EpisodeBootstrap, estimate_of_cells, mean_of_known
from .cross_embodiment import diagonal_and_rest
from .pair_sample import PairSample
from .passes import EncodedPairs, TokenizerPasses
from .pixel_probe import PixelProbe, fit_pixel_probe
from .probes import mean_correlation, probe_scores
from .settings import QualitySettings

# Actions applied for each pair of bodies.
_NUM_TRANSFERS = 256


@dataclass(frozen=True, eq=False)
class Transfers:
    """Actions of one body applied to frames of another, `k` of them.

    Args:
        actions_of (`np.ndarray` of shape `(k,)`): Pairs in the sample that the actions are of.
        true (`np.ndarray` of shape `(k, num_dims)`): Standardised true motion of those pairs.
        decoded (`np.ndarray` of shape `(k, num_dims)`): Motion that the probe reads in the generated frames.

    `k` is 0 where the actions lead out of what has been seen of the other body from every frame of it.
    """

    actions_of: np.ndarray
    true: np.ndarray
    decoded: np.ndarray


def measure_transfer(
    sample: PairSample,
    encoded: EncodedPairs,
    passes: TokenizerPasses,
    bootstrap: EpisodeBootstrap,
    settings: QualitySettings,
) -> tuple[dict[str, Any], list[list[Transfers]]]:
    """
    Applies actions of each body to frames of each, reads the motion in the generated frames with a probe of real
    frames, and compares it with the true motion of the pair that the action is of. The probe knows on each body the
    motions that its data shows: where one never moves as another does, that cannot be read on it. Nor can a motion that leads
    out of the picture or of the robot's reach: where states tell the motion, an action is played on frames alone from which it stays
    within the states that the data shows of the body, and left out where there is none.

    Args:
        sample ([`PairSample`]), encoded ([`EncodedPairs`]): The pairs and their codes.
        passes ([`TokenizerPasses`]): The tokenizer.
        bootstrap ([`EpisodeBootstrap`]): Over the held-out episodes; those of the actions count.
        settings ([`QualitySettings`]): Seed and steps of the probe.

    Returns:
        `dict` and the transfers from body i (row) to body j (column). The figures are R² on held-out episodes:
        - **real_pairs**: of the probe on real frames, mean over bodies: about the ceiling. **real_pairs_by_body** each.
        - **own_frame**: in frames reconstructed from their own current frame, mean over bodies.
        - **within**, **across**: actions applied to frames of other episodes of the same body, and of other bodies.
        - **real_pairs_per_dim**, **own_frame_per_dim**, **within_per_dim**, **across_per_dim**: the same in each dimension.
          Motion towards the camera, for one, is hard to see.
        - **matrix**: from body i (row) to body j (column).
        - **within_correlation**, **across_correlation**: [`mean_correlation`] of decoded and true motion.
        - **shuffled**: as `across` (with one body, as `within`), with the true motion of another pair.
        - **left_out**: share of the actions that no frame has room for.

        Means are over bodies whose actions move. Intervals are over episodes; the probe and the choice of frames vary beside.
    """
    probe = fit_pixel_probe(sample, settings.transfer_probe_steps, passes.tokenizer.device, seed=settings.seed)
    random = np.random.default_rng(settings.seed)
    count = len(sample.bodies)
    transfers = [
        [_transfer(sample, encoded, passes, probe, i, j, random) for j in range(count)]
        for i in tqdm(range(count), desc="transfer", unit="body")
    ]
    position = np.cumsum(sample.held_out) - 1
    flat = [cell for line in transfers for cell in line]
    matrix = np.array([_r2(cell) for cell in flat]).reshape(count, count)
    resampled = [bootstrap.r2(cell.true, cell.decoded, position[cell.actions_of]) for cell in flat]
    correlations = np.array([_correlation(cell) for cell in flat]).reshape(count, count)
    away = ~np.eye(count, dtype=bool) if count > 1 else np.eye(count, dtype=bool)
    shuffled = [
        _r2(dataclasses.replace(cell, true=random.permutation(cell.true)))
        for cell, is_away in zip(flat, away.flat)
        if is_away
    ]
    num_drawn = count * sum(min(len(sample.held_out_rows(body)), _NUM_TRANSFERS) for body in range(count))
    return {
        **_ceilings(sample, encoded, passes, probe, bootstrap),
        **diagonal_and_rest(matrix, np.array(resampled).reshape(count, count, -1)),
        "within_per_dim": _r2_per_dim(flat, ~away if count > 1 else away),
        "across_per_dim": _r2_per_dim(flat, away) if count > 1 else None,
        "matrix": matrix.tolist(),
        "within_correlation": mean_of_known(np.diag(correlations)),
        "across_correlation": mean_of_known(correlations[away]) if count > 1 else None,
        "shuffled": mean_of_known(np.array(shuffled)),
        "left_out": 1 - sum(len(cell.true) for cell in flat) / num_drawn,
    }, transfers


def _transfer(
    sample: PairSample,
    encoded: EncodedPairs,
    passes: TokenizerPasses,
    probe: PixelProbe,
    action_body: int,
    frame_body: int,
    random: np.random.Generator,
) -> Transfers:
    """Held-out actions of one body on frames of another, or of other episodes of the same."""
    actions_of = sample.held_out_rows(action_body)
    if len(actions_of) > _NUM_TRANSFERS:
        actions_of = np.sort(random.choice(actions_of, _NUM_TRANSFERS, replace=False))
    actions_of, frames_of = _choose_frames(sample, actions_of, frame_body, random)
    true = sample.standardised[actions_of]
    if len(actions_of) == 0:
        return Transfers(actions_of, true, true)
    frames = sample.frames[sample.current[frames_of]]
    generated = passes.decode(frames, encoded.codes[actions_of])
    return Transfers(actions_of, true, probe.predict(frames, generated))


def _choose_frames(
    sample: PairSample, actions_of: np.ndarray, body: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """
    A held-out frame of a body for each action, of another episode and with room for its motion; of the episodes that probes
    are fitted on, where but one is held out.

    Returns:
        Positions in the sample `(k,)` of the actions that have one, and of their frames.
    """
    frames_of = np.full_like(actions_of, -1)
    pool = sample.held_out_rows(body)
    for episode in np.unique(sample.episode[actions_of]):
        mine = np.flatnonzero(sample.episode[actions_of] == episode)
        others = pool[sample.episode[pool] != episode]
        others = others if len(others) else sample.training_rows(body)
        for action, fits in zip(mine, _has_room(sample, actions_of[mine], others, body), strict=True):
            if fits.any():
                frames_of[action] = random.choice(others[fits])
    is_played = frames_of >= 0
    return actions_of[is_played], frames_of[is_played]


def _has_room(sample: PairSample, actions_of: np.ndarray, frames_of: np.ndarray, body: int) -> np.ndarray:
    """Whether an action `(k,)`, played on a frame `(m,)` of a body, ends within the states that its data shows: bool `(k, m)`."""
    if sample.place is None:
        return np.ones((len(actions_of), len(frames_of)), dtype=bool)
    own = sample.body == body
    seen = np.concatenate([sample.place[own], sample.place[own] + sample.motion[own]])
    ends = sample.place[frames_of] + sample.motion[actions_of, None]
    return ((ends >= seen.min(axis=0)) & (ends <= seen.max(axis=0))).all(axis=-1)


def _ceilings(
    sample: PairSample,
    encoded: EncodedPairs,
    passes: TokenizerPasses,
    probe: PixelProbe,
    bootstrap: EpisodeBootstrap,
) -> dict[str, Any]:
    """R² on real pairs and on reconstructions of them."""
    held_out = sample.held_out_rows()
    current, body = sample.frames[sample.current[held_out]], sample.body[held_out]
    true = sample.standardised[held_out]
    rows = [np.flatnonzero(body == j) for j in range(len(sample.bodies))]
    result: dict[str, Any] = {}
    for name, future in (
        ("real_pairs", sample.frames[sample.future[held_out]]),
        ("own_frame", passes.decode(current, encoded.codes[held_out])),
    ):
        decoded = probe.predict(current, future)
        cells = [Transfers(held_out[where], true[where], decoded[where]) for where in rows]
        scores = [_r2(cell) for cell in cells]
        resampled = np.array([bootstrap.r2(true[where], decoded[where], where) for where in rows])
        result[name] = estimate_of_cells(np.array(scores), resampled)
        result[f"{name}_per_dim"] = _r2_per_dim(cells, np.ones(len(cells), dtype=bool))
        result[f"{name}_by_body"] = dict(zip(sample.bodies, scores, strict=True))
    return result


def _r2(cell: Transfers) -> float:
    return probe_scores(cell.true, cell.decoded)["r2"] if len(cell.true) else float("nan")


def _correlation(cell: Transfers) -> float:
    return mean_correlation(cell.true, cell.decoded) if len(cell.true) else float("nan")


def _r2_per_dim(cells: list[Transfers], is_counted: np.ndarray) -> list[float]:
    """R² of each dimension, mean over some cells; where a body does not move along a dimension, over the others."""
    scores = [
        probe_scores(cell.true, cell.decoded)["r2_per_dim"] if len(cell.true) else [np.nan] * cell.true.shape[1]
        for cell, counts in zip(cells, is_counted.flat)
        if counts
    ]
    known = np.isfinite(scores)
    totals = np.where(known, scores, 0.0).sum(axis=0)
    return np.divide(totals, known.sum(axis=0), out=np.full(totals.shape, np.nan), where=known.any(axis=0)).tolist()
