# SPDX-License-Identifier: Apache-2.0
"""How close reconstructed frames are to the real ones, and to a copy of the current frame."""

from __future__ import annotations

import numpy as np

from .passes import EncodedPairs


def reconstruction_scores(encoded: EncodedPairs, rows: np.ndarray) -> dict[str, float | None]:
    """
    Args:
        encoded ([`EncodedPairs`]): Errors of each pair.
        rows (`np.ndarray` of shape `(m,)`): Pairs to look at.

    Returns:
        `dict`: of the mean squared error over all pixels in [0, 1], so that frames where much moves weigh most:
        - **psnr**, **copy_psnr**: in dB, of the reconstruction and of the current frame in its place; `None` where
          there is no error at all.
        - **copy_ratio**: error of the reconstruction over that of the copy; 1 is no better than a copy; `None` where
          nothing moves.
    """
    error, copied = float(encoded.squared_error[rows].mean()), float(encoded.copy_squared_error[rows].mean())
    return {
        "psnr": _psnr(error),
        "copy_psnr": _psnr(copied),
        "copy_ratio": error / copied if copied > 0 else None,
    }


def _psnr(error: float) -> float | None:
    return float(-10 * np.log10(error)) if error > 0 else None
