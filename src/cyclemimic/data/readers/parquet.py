# SPDX-License-Identifier: Apache-2.0
"""Reading Parquet files: only the columns asked for, as arrays, and what goes wrong in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..episode import DataError


def read_parquet(path: Path, columns: Sequence[str] | None = None, filters: Any = None) -> Any:
    """Read a Parquet file into a `pyarrow.Table`; what goes wrong is a one-line `DataError`."""
    # Imported here: importing this package must not need pyarrow (machines that only train may lack it).
    import pyarrow.parquet as parquet

    with one_line_errors(path):
        # Not `read_table(partitioning=...)`: folder names such as `chunk-000` are no columns.
        table = parquet.read_table(
            path, columns=columns, filters=filters, partitioning=None, page_checksum_verification=True
        )
        # Else damage shows where a cell is used, as another exception or as a fault of the process.
        table.validate(full=True)
        return table


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read a Parquet file into a `dict` a row, as [`read_parquet`]."""
    table = read_parquet(path, columns)
    with one_line_errors(path):
        return table.to_pylist()


def parquet_columns(path: Path) -> list[str]:
    """Return the column names of a Parquet file."""
    import pyarrow.parquet as parquet

    with one_line_errors(path):
        return parquet.read_schema(path).names


@contextmanager
def one_line_errors(path: object, kind: str = "Parquet") -> Iterator[None]:
    """What pyarrow raises of a damaged file, as a one-line `DataError`."""
    import pyarrow

    try:
        yield
    # pyarrow's own derive from several of these; texts that are no UTF-8 are a `ValueError`.
    except (
        pyarrow.ArrowException,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        MemoryError,
    ) as error:
        raise DataError(f"{path} is not a readable {kind} file ({error}); download or write it again") from error


def read_column(path: Path, key: str) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Read one numeric column and the `episode_index` column beside it.

    What is read is kept for the next calls: version 3 of LeRobot puts hundreds of episodes into a file, and reading it
    again for each would cost a pass over the file each. Do not write into the arrays.

    Returns:
        `tuple` of the values, of shape `(num_rows, size)`, and the episode index of every row (or `None`); `None` if
        the file has no such column.

    Raises:
        DataError: If the file is not readable, or the column does not hold equally many numbers in every row.
    """
    status = path.stat()
    # Size and time of change are part of the key: a data set may be recorded again at the same place.
    return _read_column(path, key, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_column(path: Path, key: str, size: int, mtime_ns: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    names = parquet_columns(path)
    if key not in names:
        return None
    table = read_parquet(path, [name for name in dict.fromkeys([key, "episode_index"]) if name in names])
    values = _to_array(table.column(key))
    if values is None:
        raise DataError(f"{path}: column {key!r} must hold equally many numbers in every row; write the file again")
    return values, table.column("episode_index").to_numpy() if "episode_index" in names else None


def _to_array(column: Any) -> np.ndarray | None:
    """Convert scalars, or equally long lists, nested or not, to one row of numbers each; `None` if that fails."""
    import pyarrow
    import pyarrow.compute as compute

    num_rows, values = len(column), column.combine_chunks()
    while isinstance(values, (pyarrow.ListArray, pyarrow.LargeListArray, pyarrow.FixedSizeListArray)):
        lengths = compute.min_max(compute.list_value_length(values)).as_py()
        if values.null_count or lengths["min"] != lengths["max"]:
            return None
        values = values.flatten()
    array = values.to_numpy(zero_copy_only=False)
    if values.null_count or array.dtype.kind not in "biuf":
        return None
    return array.reshape(num_rows, array.size // max(1, num_rows))
