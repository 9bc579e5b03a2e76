# SPDX-License-Identifier: Apache-2.0
"""Latent action labels on disk: the only thing that passes from the tokenizer to the policy (paper §4).

A folder of Parquet shards, one row a frame pair, that `datasets.load_dataset(folder)` loads too. The shards' metadata
says which tokenizer made them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...hub.names import names_hub_repository
from ..episode import DataError, Episode
from ..readers.hub import at_revision, open_hub_folder
from .label_columns import (
    COLUMNS,
    INTEGER_COLUMNS,
    METADATA_KEY,
    PLACE_COLUMN,
    checked_codes,
    checked_columns,
    sizes_of,
)

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


class LatentLabels:
    """Latent action labels of frames, looked up by data set, episode and frame.

    Args:
        columns (`Mapping`): The columns [`COLUMNS`], without `instruction` if it is not needed; `codes` of shape
            `(num_rows, num_latent_tokens)`; with or without [`PLACE_COLUMN`].
        metadata (`Mapping`): At least `codebook_size` and `num_latent_tokens`.

    Raises:
        DataError: If a column is missing, of another length or no column of such values, the codes are not as `metadata`
            says, a `future_index` is not above its `frame_index`, or a frame is labelled twice.

    Attributes:
        codebook_size (`int`), num_latent_tokens (`int`), tokenizer (`str` or `None`): Of the tokenizer that made them.
        metadata (`dict`): All that was kept with them.
        folder (`Path` or `None`), name (`str` or `None`): Where they were loaded from, and the folder's name or the id on the
            Hub.

    Example:

    ```python
    >>> from cyclemimic.data import LatentLabels

    >>> labels = LatentLabels.from_folder("path/to/labels")  # doctest: +SKIP
    >>> labels.lookup("drawer", episode_index=0, frame_index=12)  # doctest: +SKIP
    array([ 3,  3,  9, 14])
    ```
    """

    def __init__(self, columns: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        self.codebook_size, self.num_latent_tokens = sizes_of(metadata)
        self.metadata = dict(metadata)
        self.folder: Path | None = None
        self.name: str | None = None
        self.tokenizer: str | None = metadata.get("tokenizer")
        numbers = checked_columns(columns, metadata)
        names = sorted(set(columns["source"]))
        ids = {name: index for index, name in enumerate(names)}
        source_ids = np.fromiter(map(ids.__getitem__, columns["source"]), np.int64, len(columns["source"]))
        keys = [numbers[key] for key in INTEGER_COLUMNS]
        order = np.lexsort((keys[1], keys[0], source_ids))
        source_ids, episode, self._frame_index, self._future_index = (values[order] for values in (source_ids, *keys))
        self._codes = numbers["codes"][order]
        for kept in (self._frame_index, self._future_index, self._codes):
            kept.flags.writeable = False
        # Rows of one episode are one slice, so a look-up is one dictionary access and one binary search.
        is_start = np.ones(len(order), dtype=bool)
        is_start[1:] = (np.diff(source_ids) != 0) | (np.diff(episode) != 0)
        starts = np.flatnonzero(is_start)
        stops = np.append(starts[1:], len(order))
        self._slices = {
            (names[source_ids[start]], int(episode[start])): slice(int(start), int(stop))
            for start, stop in zip(starts, stops)
        }
        places = columns.get(PLACE_COLUMN)
        self._places = {} if places is None else dict(zip(self._slices, (places[row] for row in order[starts])))
        repeated = np.flatnonzero(~is_start[1:] & (np.diff(self._frame_index) == 0))
        if len(repeated):
            row = repeated[0]
            raise DataError(
                f"labels: {names[source_ids[row]]}, episode {episode[row]}, frame {self._frame_index[row]} is labelled "
                "twice"
            )

    @classmethod
    def from_folder(cls, path: str | Path) -> LatentLabels:
        """Load the label shards of the folder `path`.

        Raises:
            DataError: If the folder holds no labels, not all of them, or shards that do not belong together.
        """
        import pyarrow

        from ..readers.parquet import read_parquet

        paths = sorted(Path(path).glob("*.parquet"))
        if not paths and Path(path).with_name(Path(path).name + ".partial").exists():
            raise DataError(f"{path} is not complete yet; run `cyclemimic label` again to finish it")
        if not paths:
            raise DataError(f"{path} holds no labels (Parquet files); make them with `cyclemimic label`")
        tables = [read_parquet(shard) for shard in paths]
        metadata = [_metadata_of(table, shard) for table, shard in zip(tables, paths)]
        if any(other != metadata[0] for other in metadata):
            raise DataError(f"{path} mixes labels of different tokenizers or settings; keep one set a folder")
        num_shards = metadata[0].get("num_shards", len(paths))
        if len(paths) != num_shards:
            raise DataError(
                f"{path} holds {len(paths)} of {num_shards} shards; run `cyclemimic label` again to finish"
            )
        has_places = all(PLACE_COLUMN in table.column_names for table in tables)
        texts = ["source", PLACE_COLUMN] if has_places else ["source"]
        table = pyarrow.concat_tables([table.select([*texts, *INTEGER_COLUMNS, "codes"]) for table in tables])
        codes = table.column("codes").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        columns = {key: table.column(key).to_numpy() for key in INTEGER_COLUMNS}
        columns |= {key: _shared_objects(table.column(key)) for key in texts}
        try:
            columns["codes"] = checked_codes(codes, table.num_rows, metadata[0])
            labels = cls(columns, metadata[0])
        except DataError as error:
            raise DataError(f"{path}: {error}; label the data again") from error
        labels.folder, labels.name = Path(path), Path(path).resolve().name
        return labels

    @classmethod
    def from_hub(cls, repo_id: str, revision: str | None = None) -> LatentLabels:
        """Load labels that are a data set on the Hub.

        Args:
            repo_id (`str`): `owner/name`.
            revision (`str`, *optional*): Branch, tag or, for exactly the same ones, commit.

        Raises:
            DataError: If there is no such data set or no access to it, and as `from_folder`.
        """
        labels = cls.from_folder(open_hub_folder(repo_id, revision, ["*.parquet", "README.md"]).path)
        labels.name = repo_id
        return labels

    def push_to_hub(self, repo_id: str, private: bool | None = None, token: str | None = None) -> CommitInfo:
        """Publish the folder that they were loaded from as a data set: see [`~cyclemimic.hub.upload.push_folder`], also for
        `repo_id`, `private` and `token`.

        Raises:
            ValueError: If they were not loaded from a folder, and as `push_folder`.
        """
        from ...hub.upload import push_folder

        if self.folder is None:
            raise ValueError(
                "`push_to_hub` must be called on labels of a folder, as `write_labels` makes it, got labels that are in "
                "memory only."
            )
        return push_folder(self.folder, repo_id, private, token=token)

    def __len__(self) -> int:
        return len(self._codes)

    def __contains__(self, episode: tuple[str, int]) -> bool:
        """Whether a data set's episode, `(source, episode_index)`, has labels."""
        return episode in self._slices

    @property
    def episodes(self) -> list[tuple[str, int]]:
        """Data set and episode index of every episode that has labels."""
        return list(self._slices)

    def lookup(self, source: str, episode_index: int, frame_index: int) -> np.ndarray:
        """Return the codes of a frame, `int64` of shape `(num_latent_tokens,)`; a copy, free to change.

        Args:
            source (`str`): Name of the data set.
            episode_index, frame_index (`int`): Which episode of it, and which frame.

        Raises:
            KeyError: If the frame has no label; the message says what has.
        """
        frames, codes = self.episode(source, episode_index)
        row = int(np.searchsorted(frames, frame_index))
        if row == len(frames) or frames[row] != frame_index:
            raise KeyError(
                f"{source}, episode {episode_index}: frame {frame_index} has no label; labelled are {len(frames)} "
                f"frames from {frames[0]} to {frames[-1]}"
            )
        # Without one, torch warns of what is read-only when it makes a batch.
        return codes[row].copy()

    def episode(self, source: str, episode_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the labelled frames of an episode, ascending, and their codes `(num_frames, num_latent_tokens)`; read-only.

        Args:
            source (`str`): Name of the data set.
            episode_index (`int`): Which episode of it.

        Raises:
            KeyError: If the episode has no labels; the message says which data sets have.
        """
        rows = self._rows(source, episode_index)
        return self._frame_index[rows], self._codes[rows]

    def future_frames(self, source: str, episode_index: int) -> np.ndarray:
        """Return the second frames of an episode's pairs, in the order of the first ones ([`~LatentLabels.episode`]); read-only.

        Args:
            source (`str`), episode_index (`int`): As there.

        Raises:
            KeyError: As there.
        """
        return self._future_index[self._rows(source, episode_index)]

    def check_is_of(self, episode: Episode) -> None:
        """
        Raise `DataError` where the labels of a data set's episode of this name and index are of another one: as far as they
        tell, of another camera, length or place.

        Args:
            episode ([`Episode`]): Of the data set that they are to be used with.
        """
        camera = self.metadata.get("cameras", {}).get(episode.source)
        if camera not in (None, episode.camera):
            raise DataError(f"`labels` must be of {episode.source}'s camera {episode.camera}, got those of {camera}.")
        key = episode.source, episode.index
        if camera is None or key not in self:
            return
        # The last pair of an episode ends with it.
        length = int(self.future_frames(*key).max()) + 1
        another = f"`labels` must be of these data sets, got those of another {episode.source}, whose episode {episode.index}"
        if length != episode.num_frames:
            raise DataError(f"{another} has {length} frames instead of {episode.num_frames}.")
        place = self._places.get(key)
        if place not in (None, episode.place):
            remedy = "" if self.folder is None else "; label the data again"
            raise DataError(f"{another} is {place} instead of {episode.place}{remedy}.")

    def _rows(self, source: str, episode_index: int) -> slice:
        rows = self._slices.get((source, episode_index))
        if rows is None:
            known = sorted({name for name, _ in self._slices})
            raise KeyError(f"{source}, episode {episode_index}, has no labels; there are labels for {known}")
        return rows


def open_labels(path: str | Path, revision: str | None = None) -> LatentLabels:
    """Load labels by a folder or, where there is no such folder, by the id of a data set on the Hub.

    Args:
        path (`str` or `Path`): Folder that `cyclemimic label` has made, `owner/name` or `owner/name@revision`.
        revision (`str`, *optional*): Branch, tag or commit of labels on the Hub; the main branch by default.

    Raises:
        DataError: If there are no such labels, or a folder is given with `revision`.
    """
    path, revision = at_revision(path, revision)
    # While they are made, the folder has another name; `from_folder` says so.
    if names_hub_repository(path) and not Path(f"{path}.partial").exists():
        return LatentLabels.from_hub(str(path), revision)
    if revision is not None:
        raise DataError(f"{path} holds no labels on the Hub; leave out their revision, got {revision!r}")
    return LatentLabels.from_folder(path)


def _shared_objects(column: Any) -> np.ndarray:
    """A column of texts. Millions of rows share a few: one object each, not one a row."""
    encoded = column.combine_chunks().dictionary_encode()
    texts = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    return texts[encoded.indices.fill_null(-1).to_numpy()]


def _metadata_of(table: Any, path: Path) -> dict[str, Any]:
    try:
        metadata = json.loads((table.schema.metadata or {})[METADATA_KEY])
        if min(metadata["codebook_size"], metadata["num_latent_tokens"]) < 1:
            raise ValueError("sizes")
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{path} holds no latent action labels; make them with `cyclemimic label`") from None
    missing = set(COLUMNS) - set(table.column_names)
    if missing:
        raise DataError(f"{path} lacks the columns {sorted(missing)}; label the data again")
    return metadata
