# SPDX-License-Identifier: Apache-2.0
"""The columns of latent action labels, and what they must hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..episode import DataError
from ..numeric_inputs import as_whole_numbers

METADATA_KEY = b"cyclemimic"
INTEGER_COLUMNS = ("episode_index", "frame_index", "future_index")
COLUMNS = ("source", *INTEGER_COLUMNS, "instruction", "codes")
"""Columns of a label file: `str`, three `int64`, `str` (or null), and a list of `num_latent_tokens` `int64`."""
_NEEDED = ("source", *INTEGER_COLUMNS, "codes")
_SIZES = ("codebook_size", "num_latent_tokens")
PLACE_COLUMN = "place"
"""One more, `str` (or null): the [`Episode`]'s `place`. Labels of before version 2 have none."""


def sizes_of(metadata: Mapping[str, Any]) -> tuple[int, int]:
    """`codebook_size` and `num_latent_tokens`; `DataError` unless they are there, whole numbers of at least 1."""
    sizes = [metadata.get(key) if isinstance(metadata, Mapping) else None for key in _SIZES]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise DataError(f"`metadata` must have {' and '.join(_SIZES)}, whole numbers of at least 1, got {sizes}")
    return int(sizes[0]), int(sizes[1])  # type: ignore[arg-type]  # checked above


def checked_columns(columns: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the columns of numbers as `int64`, `codes` of shape `(num_rows, num_latent_tokens)`.

    Args:
        columns (`Mapping`), metadata (`Mapping`): As of [`LatentLabels`].

    Raises:
        DataError: If a column is missing or does not fit.
    """
    missing = [key for key in _NEEDED if key not in columns]
    if missing:
        raise DataError(f"`columns` must have {list(_NEEDED)}, got none of the name {missing[0]}")
    has_places = columns.get(PLACE_COLUMN) is not None
    lengths = {key: len(columns[key]) for key in (*_NEEDED, *([PLACE_COLUMN] if has_places else []))}
    if len(set(lengths.values())) > 1:
        raise DataError(f"`columns` must be of equal length, got {lengths}")
    kinds = {type(name) for name in columns["source"]}
    if isinstance(columns["source"], str) or not all(issubclass(kind, str) for kind in kinds):
        kind = "one for all" if isinstance(columns["source"], str) else sorted(kind.__name__ for kind in kinds)
        raise DataError(f"`source` must hold a text for each row, got {kind}")
    numbers = {key: _whole_numbers(key, columns[key]) for key in INTEGER_COLUMNS}
    frames, futures = numbers["frame_index"], numbers["future_index"]
    wrong = np.flatnonzero((frames < 0) | (futures <= frames))
    if len(wrong):
        raise DataError(
            "`frame_index` must be at least 0 and `future_index` above it, got "
            f"{frames[wrong[0]]} and {futures[wrong[0]]} in row {wrong[0]}"
        )
    return {**numbers, "codes": checked_codes(columns["codes"], len(frames), metadata)}


def checked_codes(codes: Any, num_rows: int, metadata: Mapping[str, Any]) -> np.ndarray:
    """Return the codes of some rows, one row after another or flat, as `int64` of shape `(num_rows, num_latent_tokens)`.

    Args:
        codes: What is to be those.
        num_rows (`int`): How many.
        metadata (`Mapping`): Says `codebook_size` and `num_latent_tokens`.

    Raises:
        DataError: If they are not as `metadata` says.
    """
    codebook_size, length = sizes_of(metadata)
    allowed = f"`codes` must be {length} integers in [0, {codebook_size - 1}] in each of {num_rows} rows"
    try:
        codes = as_whole_numbers(codes)
    except (TypeError, ValueError) as error:
        raise DataError(f"{allowed}, got others ({error})") from error
    if codes.shape not in ((num_rows, length), (num_rows * length,)):
        raise DataError(f"{allowed}, got shape {codes.shape}")
    if codes.size and not 0 <= codes.min() <= codes.max() < codebook_size:
        raise DataError(f"{allowed}, got {codes.min()} to {codes.max()}")
    return codes.reshape(num_rows, length)


def _whole_numbers(key: str, column: Any) -> np.ndarray:
    try:
        numbers = as_whole_numbers(column)
    except (TypeError, ValueError) as error:
        raise DataError(f"`{key}` must hold a whole number for each row, got others ({error})") from error
    if numbers.ndim != 1:
        raise DataError(f"`{key}` must hold a whole number for each row, got shape {numbers.shape}")
    return numbers
