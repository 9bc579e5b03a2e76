# SPDX-License-Identifier: Apache-2.0
"""Tables as `datasets` keeps them, of Parquet files, of Arrow files or as an object: a cell in memory at a time."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..episode import DataError
from .parquet import one_line_errors
from .plain_files import find_files, inside, read_json_object

if TYPE_CHECKING:
    from datasets import Dataset

TABLE_SUFFIXES = (".parquet", ".arrow")
# As `datasets` names files; what stands before the numbers is the split.
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
# Or so, without numbers, or a folder so.
_SPLITS = {"train", "test", "validation", "valid", "val", "dev", "eval"}
_STATE_NAME, _SPLITS_NAME = "state.json", "dataset_dict.json"
_READ_BYTES = 1 << 16
# A damaged file that says more would have a list made of its rows.
_MAX_ROWS = 1 << 24


class _Part(Protocol):
    """Rows that follow each other in a table."""

    def __len__(self) -> int: ...

    def cells(self, column: str, rows: Sequence[int]) -> Iterator[Any]:
        """As [`ArrowTable.cells`]."""
        ...


class ArrowTable:
    """Parts of one schema, one after the other. It is picklable, and small where its rows are on disk.

    Args:
        schema (`pyarrow.Schema`): Columns, and what `datasets` says of them.
        parts (`Sequence`): The parts.
    """

    def __init__(self, schema: Any, parts: Sequence[_Part]) -> None:
        self.schema = schema
        self._parts = list(parts)
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + len(part))

    def __len__(self) -> int:
        return self._starts[-1]

    def cells(self, column: str, rows: Sequence[int]) -> Iterator[Any]:
        """Yield each of the ascending rows as a `pyarrow.Array` of one value: a scalar would be a copy.

        Raises:
            DataError: If a file is damaged.
        """
        for index, group in groupby(rows, lambda row: bisect_right(self._starts, row) - 1):
            yield from self._parts[index].cells(column, [row - self._starts[index] for row in group])

    def cell(self, column: str, row: int) -> Any:
        """Return a row as in [`cells`]."""
        return next(self.cells(column, [row]))


def is_table(path: Path) -> bool:
    """Whether a file goes by the name of a Parquet or Arrow file."""
    return path.suffix in TABLE_SUFFIXES and path.is_file()


def find_tables(root: Path, pattern: str | None) -> list[Path]:
    """The files of one split of a data set, as `datasets` lays them out in a folder, or of a pattern there.

    Raises:
        DataError: If there are none, or those of several splits, or one lies outside the folder.
    """
    if (root / _SPLITS_NAME).is_file():
        splits = sorted(path.parent.name for path in root.glob(f"*/{_STATE_NAME}"))
        raise DataError(f"{root} holds the splits {splits}; give one of those folders")
    if pattern is None and is_saved(root):
        # Not all Arrow files of the folder: `datasets` keeps what it has computed beside them.
        return [inside(root, name) for name in _saved_names(root)]
    files = find_files(root, pattern, is_table)
    if not files:
        raise DataError(f"{root / (pattern or '')} holds no table ({', '.join(TABLE_SUFFIXES)})")
    found = {split: where for path in files for split, where in _split_of(path, root)}
    if len(found) > 1:
        raise DataError(f"{root} holds several splits, {sorted(found)}; give one, as {found[min(found)]!r}")
    return files


def _split_of(path: Path, root: Path) -> Iterator[tuple[str, str]]:
    """The split that a file's name, or that of a folder below `root`, says it is of, and how to ask for that alone."""
    folders = path.relative_to(root).parts[:-1]
    match = _SHARD.fullmatch(path.stem)
    stem = match[1] if match else path.stem
    for depth, name in ((len(folders), stem), *reversed(list(enumerate(folders)))):
        if name.lower() in _SPLITS:
            beside = root.joinpath(*folders[:depth])
            is_file = depth == len(folders)
            yield name.lower(), str(beside / (f"{stem}{'-*' if match else ''}{path.suffix}" if is_file else name))
            return
    if match:
        yield str(path.parent / stem), f"{path.parent / stem}-*{path.suffix}"


def is_saved(path: Path) -> bool:
    """Whether `save_to_disk` made a folder, of a data set or of its splits."""
    return (path / _SPLITS_NAME).is_file() or all(
        (path / name).is_file() for name in (_STATE_NAME, "dataset_info.json")
    )


def _saved_names(root: Path) -> list[str]:
    files = read_json_object(root, _STATE_NAME).get("_data_files")
    files = [file for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    names = [name for file in files if isinstance(name := file.get("filename"), str)]
    if not names or len(names) < len(files):
        raise DataError(f"{root / _STATE_NAME} names no files, as `datasets` does; write the data set again")
    return names


def open_table(paths: Sequence[Path]) -> ArrowTable:
    """Open files, Parquet or Arrow's stream format, as one table; only what describes them is read.

    Raises:
        DataError: If one is not readable, or they do not have the same columns.
    """
    schema, parts = None, []
    for path in paths:
        found, more = _open_parquet(path) if path.suffix == ".parquet" else _open_arrow(path)
        schema = found if schema is None else schema
        if not found.equals(schema):
            raise DataError(
                f"{path} has the columns {found.names}, unlike those of {paths[0]}, {schema.names}, or of other types; "
                "give files of one data set"
            )
        parts.extend(more)
    return ArrowTable(schema, parts)


def wrap_dataset(dataset: Dataset, name: str) -> ArrowTable:
    """A `datasets.Dataset` as a table, of this name in messages; nothing in it is decoded."""
    return ArrowTable(dataset.features.arrow_schema, [_Object(dataset.with_format("arrow"), name)])


def _open_parquet(path: Path) -> tuple[Any, list[_Part]]:
    import pyarrow.parquet as parquet

    with one_line_errors(path), parquet.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]
        if min(sizes, default=0) < 0 or sum(sizes) > _MAX_ROWS:
            raise ValueError(f"{sum(sizes)} rows")
        return file.schema_arrow, [_RowGroup(path, index, size) for index, size in enumerate(sizes)]


def _open_arrow(path: Path) -> tuple[Any, list[_Part]]:
    table = _map_arrow(path)
    return table.schema, [_ArrowFile(path, table.num_rows)]


@dataclass(frozen=True)
class _RowGroup:
    """A row group of a Parquet file. Rows before the wanted one are read over: `datasets` writes groups of 100 MB."""

    path: Path
    index: int
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    def cells(self, column: str, rows: Sequence[int]) -> Iterator[Any]:
        import pyarrow.parquet as parquet

        options = {"pre_buffer": False, "buffer_size": _READ_BYTES, "page_checksum_verification": True}
        with one_line_errors(self.path), parquet.ParquetFile(self.path, **options) as file:
            batches, position = file.iter_batches(1, [self.index], [column], use_threads=False), 0
            for row in rows:
                batch = next(islice(batches, row - position, None), None)
                if batch is None:
                    raise ValueError(f"row group {self.index} has no row {row}")
                batch.validate(full=True)
                position = row + 1
                yield batch.column(column)


@dataclass(frozen=True)
class _ArrowFile:
    """A file in Arrow's stream format: mapped, so only what is looked at is read."""

    path: Path
    num_rows: int

    def __len__(self) -> int:
        return self.num_rows

    def cells(self, column: str, rows: Sequence[int]) -> Iterator[Any]:
        with one_line_errors(self.path, "Arrow"):
            values = _map_arrow(self.path).column(column)
            for row in rows:
                yield values.slice(row, 1).chunk(0)


def _map_arrow(path: Path) -> Any:
    with one_line_errors(path, "Arrow"):
        status = path.stat()
        return _map_arrow_once(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _map_arrow_once(path: Path, size: int, mtime_ns: int) -> Any:
    import pyarrow

    with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
        table = stream.read_all()
    # Of the videos, this looks at where they begin and end.
    table.validate(full=True)
    return table


@dataclass(frozen=True)
class _Object:
    """A `datasets.Dataset` whose rows come as tables."""

    dataset: Dataset
    name: str

    def __len__(self) -> int:
        return len(self.dataset)

    def cells(self, column: str, rows: Sequence[int]) -> Iterator[Any]:
        for row in rows:
            with one_line_errors(self.name, "Arrow"):
                cell = self.dataset[row].column(column).chunk(0)
                cell.validate(full=True)
            yield cell
