# SPDX-License-Identifier: Apache-2.0
"""Writes latent action labels: see [`cyclemimic.data.labels`] for what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .atomic_folder import AtomicFolder
from .episode import DataError
from .labels import COLUMNS, INTEGER_COLUMNS, METADATA_KEY

_FORMAT_VERSION = 1


class LabelWriter:
    """Writes label shards as they are made; the folder appears, complete, when the block ends well.

    Args:
        folder (`str` or `Path`): Folder to make.
        codebook_size (`int`): Number of codes `K`.
        num_latent_tokens (`int`): Number of codes a pair `L`.
        tokenizer (`str`): Which tokenizer made the codes: its folder or Hub id.
        metadata (`Mapping`, *optional*): Further JSON values to keep, such as `{"interval_s": 1.0}`.
        overwrite (`bool`, *optional*, defaults to `False`): Replace a folder that is there already.
        rows_per_shard (`int`, *optional*, defaults to 1,000,000): Rows a file.

    Raises:
        DataError: If `folder` exists (without `overwrite`), no row was added, or the disk is full.
    """

    def __init__(
        self,
        folder: str | Path,
        codebook_size: int,
        num_latent_tokens: int,
        tokenizer: str,
        metadata: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        rows_per_shard: int = 1_000_000,
    ) -> None:
        if min(codebook_size, num_latent_tokens, rows_per_shard) < 1:
            raise ValueError(
                "`codebook_size`, `num_latent_tokens` and `rows_per_shard` must be at least 1, got "
                f"{codebook_size}, {num_latent_tokens} and {rows_per_shard}"
            )
        self.codebook_size = codebook_size
        self.num_latent_tokens = num_latent_tokens
        self.rows_per_shard = rows_per_shard
        own = {
            "format_version": _FORMAT_VERSION,
            "tokenizer": tokenizer,
            "codebook_size": codebook_size,
            "num_latent_tokens": num_latent_tokens,
        }
        self._metadata = {METADATA_KEY: json.dumps({**(metadata or {}), **own}).encode()}
        self._folder = AtomicFolder(folder, overwrite)
        self._writer: Any = None
        self._num_rows = 0

    def __enter__(self) -> LabelWriter:
        self._folder.start()
        return self

    def add(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """Append rows.

        Args:
            columns (`Mapping`): The columns [`COLUMNS`], of equal length; `codes` of shape
                `(num_rows, num_latent_tokens)`, in `[0, codebook_size)`.

        Raises:
            DataError: If the disk is full.
            ValueError: If a column is missing or does not fit.
        """
        import pyarrow.parquet as parquet

        table = self._to_table(columns)
        with self._folder.one_line_errors():
            while table.num_rows:
                room = self.rows_per_shard - self._num_rows % self.rows_per_shard
                if self._writer is None:
                    path = self._folder.partial / f"labels-{self._num_rows // self.rows_per_shard:05d}.parquet"
                    self._writer = parquet.ParquetWriter(path, table.schema)
                part, table = table.slice(0, room), table.slice(room)
                self._writer.write_table(part)
                self._num_rows += part.num_rows
                if part.num_rows == room:
                    self._close_shard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._folder.one_line_errors():
                self._close_shard()
            if error is None and self._num_rows == 0:
                raise DataError(f"{self._folder.root}: no label was added, so there is nothing to write")
            if error is None:
                self._folder.commit()
        finally:
            self._folder.discard()

    def _close_shard(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def _to_table(self, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> Any:
        import pyarrow

        lengths = {key: len(columns[key]) for key in COLUMNS if key in columns}
        if set(columns) != set(COLUMNS) or len(set(lengths.values())) != 1:
            raise ValueError(f"`columns` must be {list(COLUMNS)}, of equal length, got {lengths or sorted(columns)}")
        codes = np.asarray(columns["codes"], dtype=np.int64)
        if codes.shape != (lengths["codes"], self.num_latent_tokens):
            raise ValueError(f"`codes` must have shape (num_rows, {self.num_latent_tokens}), got {codes.shape}")
        if codes.size and not (0 <= codes.min() and codes.max() < self.codebook_size):
            raise ValueError(
                f"`codes` must be in [0, {self.codebook_size}), got {codes.min()} to {codes.max()}: another tokenizer's?"
            )
        arrays = {"source": pyarrow.array(columns["source"], pyarrow.string())}
        for key in INTEGER_COLUMNS:
            arrays[key] = pyarrow.array(np.asarray(columns[key], dtype=np.int64))
        arrays["instruction"] = pyarrow.array(columns["instruction"], pyarrow.string())
        arrays["codes"] = pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(np.ascontiguousarray(codes).reshape(-1)), self.num_latent_tokens
        )
        return pyarrow.table(arrays).replace_schema_metadata(self._metadata)


def write_labels(
    folder: str | Path,
    columns: Mapping[str, Sequence[Any] | np.ndarray],
    codebook_size: int,
    num_latent_tokens: int,
    tokenizer: str,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    rows_per_shard: int = 1_000_000,
) -> None:
    """Write labels that are in memory; arguments as [`LabelWriter`] and [`LabelWriter.add`]."""
    writer = LabelWriter(
        folder, codebook_size, num_latent_tokens, tokenizer, metadata, overwrite, rows_per_shard=rows_per_shard
    )
    with writer:
        writer.add(columns)
