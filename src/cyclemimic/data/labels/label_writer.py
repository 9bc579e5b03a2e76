# SPDX-License-Identifier: Apache-2.0
"""Writes shards of latent action labels: see [`cyclemimic.data.labels.latent_labels`] for what they are."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..episode import DataError
from .label_columns import COLUMNS, INTEGER_COLUMNS, METADATA_KEY, PLACE_COLUMN, checked_columns

FORMAT_VERSION = 2
UNFINISHED_PREFIX = ".unfinished-"


def shard_name(index: int) -> str:
    """File name of a shard."""
    return f"labels-{index:05d}.parquet"


def write_shard(path: Path, table: Any) -> None:
    """Write a table to a file that exists complete or not at all, whatever interrupts the writing."""
    import pyarrow.parquet as parquet

    # A name of its own: a process that was thought dead may still be writing the same shard.
    unfinished = path.with_name(f"{UNFINISHED_PREFIX}{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            parquet.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within a folder outlast a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_table(columns: Mapping[str, Sequence[Any] | np.ndarray], metadata: Mapping[str, Any]) -> Any:
    """The `pyarrow.Table` of label columns, `metadata` with it.

    Raises:
        ValueError: If a column is missing or does not fit `metadata`.
    """
    import pyarrow

    lengths = {key: len(column) for key, column in columns.items()}
    if set(columns) - {PLACE_COLUMN} != set(COLUMNS) or len(set(lengths.values())) != 1:
        raise ValueError(f"`columns` must be {list(COLUMNS)}, of equal length, got {lengths}")
    numbers = checked_columns(columns, metadata)
    codes = numbers["codes"]
    arrays = {"source": pyarrow.array(columns["source"], pyarrow.string())}
    arrays |= {key: pyarrow.array(numbers[key]) for key in INTEGER_COLUMNS}
    for key in ("instruction", PLACE_COLUMN):
        try:
            arrays[key] = pyarrow.array(columns.get(key, [None] * len(codes)), pyarrow.string())
        except pyarrow.ArrowException as error:
            raise DataError(f"`{key}` must hold a text or None for each row, got others ({error})") from error
    arrays["codes"] = pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(np.ascontiguousarray(codes).reshape(-1)), codes.shape[1]
    )
    return pyarrow.table(arrays).replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()})
