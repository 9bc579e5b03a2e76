# SPDX-License-Identifier: Apache-2.0
"""Labels in the making, shared by processes that may be killed and started again at any moment; or made at once."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import AtomicFolder
from ..episode import DataError
from .label_columns import sizes_of
from .label_writer import FORMAT_VERSION, UNFINISHED_PREFIX, shard_name, sync_folder, to_table, write_shard
from .latent_labels import LatentLabels

logger = logging.getLogger(__name__)

# Hidden, so that `datasets.load_dataset` takes the shards alone.
_PLAN_NAME = ".plan.json"


class LabelFolder:
    """Shards in the sibling folder `<root>.partial`, each complete or absent; with the last one it becomes `root`.

    Processes need not know of each other: the plan, in the folder from the first moment, says what all of them make,
    and whoever finds no shard missing gives the folder its name.

    Args:
        root (`str` or `Path`): Folder to make.
        settings (`Mapping`): JSON values that all labels share, at least `codebook_size` and `num_latent_tokens`, by
            which a run is known again; `data` maps the name of a data set to what it holds.
        num_shards (`int`): Shards of the whole.

    Raises:
        DataError: If `settings` are not such.
    """

    def __init__(self, root: str | Path, settings: Mapping[str, Any], num_shards: int) -> None:
        _check_settings(settings)
        self.num_shards = num_shards
        self.plan = {"format_version": FORMAT_VERSION, **settings, "num_shards": num_shards}
        self._folder = AtomicFolder(root)
        self.root, self._partial = self._folder.root, self._folder.partial

    def start(self) -> bool:
        """Make or join the unfinished folder; `False` if the labels are complete already.

        Raises:
            DataError: If there are labels of another plan, or other files.
        """
        if self._is_complete():
            return False
        with self._folder.one_line_errors():
            self._partial.mkdir(parents=True, exist_ok=True)
            # Looked at again: it may just have got its name, and then the partial folder is a new one.
            if self._is_complete():
                shutil.rmtree(self._partial, ignore_errors=True)
                return False
            try:
                self._write_plan()
            except FileNotFoundError:
                # Another process completed the labels, or tidied up, between these two lines.
                if self._is_complete():
                    return False
                raise
        self._check_plan(self._partial)
        return True

    def is_missing(self, index: int) -> bool:
        """Whether nobody has written shard `index` yet; `DataError` if something else took the folder's name meanwhile."""
        return not ((self._partial / shard_name(index)).exists() or self._is_complete())

    def write(self, index: int, columns: Mapping[str, Sequence[Any] | np.ndarray]) -> None:
        """Write shard `index`.

        Args:
            index (`int`): Which shard.
            columns (`Mapping`): The columns [`COLUMNS`], with or without `place`, of equal length; `codes` of shape
                `(num_rows, num_latent_tokens)`, in `[0, codebook_size)`.

        Raises:
            DataError: If the disk is full, or `start` has not been called.
            ValueError: If a column is missing or does not fit, or there is no such shard.
        """
        if index not in range(self.num_shards):
            raise ValueError(f"`index` must be one of {self.num_shards} shards, from 0 on, got {index!r}.")
        table = to_table(columns, self.plan)
        with self._folder.one_line_errors():
            try:
                write_shard(self._partial / shard_name(index), table)
            except FileNotFoundError as error:
                # Unless another process wrote this shard too, and tidied up meanwhile.
                if self.is_missing(index):
                    raise DataError(f"{self._partial} is not there; call `start` before `write`") from error

    def finish(self, card: str | None = None) -> bool:
        """Give the folder its name, and `card` as its `README.md`, if no shard is missing; returns whether it has it."""
        if any(self.is_missing(index) for index in range(self.num_shards)):
            return False
        with self._folder.one_line_errors():
            try:
                for path in self._partial.glob(UNFINISHED_PREFIX + "*"):
                    path.unlink(missing_ok=True)
                if card is not None:
                    (self._partial / "README.md").write_text(card, encoding="utf-8")
                os.rename(self._partial, self.root)
                sync_folder(self.root.parent)
            except FileNotFoundError:
                # Two processes found the last shard; the other was faster.
                if not self._is_complete():
                    raise
        return True

    def _is_complete(self) -> bool:
        if not self.root.exists():
            return False
        self._check_plan(self.root)
        return True

    def _write_plan(self) -> None:
        path = self._partial / _PLAN_NAME
        if path.exists():
            return
        if any(self._partial.glob("*.parquet")):
            raise DataError(f"{self._partial} holds files of something else; remove it or give another folder")
        unfinished = path.with_name(f"{UNFINISHED_PREFIX}{uuid.uuid4().hex}")
        try:
            with unfinished.open("x", encoding="utf-8") as file:
                json.dump(self.plan, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            _give_name(unfinished, path)
            sync_folder(self._partial)
        except FileExistsError:
            pass
        finally:
            unfinished.unlink(missing_ok=True)

    def _check_plan(self, folder: Path) -> None:
        try:
            found = json.loads((folder / _PLAN_NAME).read_text(encoding="utf-8"))
            before, now = _flatten(found), _flatten(json.loads(json.dumps(self.plan)))
        except (OSError, ValueError, AttributeError, LookupError):
            # The folder got its name since it was looked at.
            if folder == self._partial and self.root.exists():
                return
            raise DataError(f"{folder} exists already and holds no labels of this verb; give another folder") from None
        for key in [key for key in {**before, **now} if before.get(key) != now.get(key)]:
            raise DataError(
                f"{folder} exists already, with other labels: {key} was {before.get(key)}, now it is {now.get(key)}; "
                "give another folder, or remove this one"
            )


def write_labels(
    output_dir: str | Path, columns: Mapping[str, Sequence[Any] | np.ndarray], metadata: Mapping[str, Any]
) -> LatentLabels:
    """Save labels of your own, such as the codes of another tokenizer, as `cyclemimic label` saves its own: `pretrain` and
    `open_labels` read them.

    Args:
        output_dir (`str` or `Path`): Folder to make.
        columns (`Mapping`): The columns of [`LatentLabels`], a row a frame pair: `source`, `episode_index`, `frame_index`,
            `future_index` and `codes`; with or without `instruction` and `place`.
        metadata (`Mapping`): JSON values; at least `codebook_size` and `num_latent_tokens`, and `tokenizer`, its name, where
            there is one. With `cameras`, of each data set the name of its camera, labels are checked against the data.

    Returns:
        [`LatentLabels`]: As loaded from the folder.

    Raises:
        DataError: If `output_dir` exists, or cannot be written.
        ValueError: If a column or `metadata` does not fit.

    Example:

    ```python
    >>> import tempfile
    >>> import numpy as np
    >>> from cyclemimic.data import write_labels

    >>> columns = {"source": ["drawer"] * 3, "episode_index": [0] * 3, "frame_index": [0, 1, 2], "future_index": [5, 6, 7]}
    >>> columns["codes"] = np.array([[3, 9], [3, 9], [14, 0]])
    >>> sizes = {"codebook_size": 16, "num_latent_tokens": 2}
    >>> labels = write_labels(tempfile.mkdtemp() + "/labels", columns, sizes)
    >>> labels.lookup("drawer", episode_index=0, frame_index=2)
    array([14,  0])
    ```
    """
    folder = LabelFolder(output_dir, metadata, 1)
    LatentLabels(columns, metadata)
    columns = {"instruction": [None] * len(columns["codes"]), **columns}
    to_table(columns, folder.plan)
    if folder.root.exists() or not folder.start():
        raise DataError(f"{output_dir} exists already; give another folder")
    folder.write(0, columns)
    folder.finish()
    return LatentLabels.from_folder(output_dir)


def _check_settings(settings: Mapping[str, Any]) -> None:
    sizes_of(settings)
    try:
        json.dumps(dict(settings), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"`metadata` must be JSON values, got others ({error})") from error
    for key in ("data", "cameras"):
        if not isinstance(settings.get(key, {}), Mapping):
            raise DataError(f"`metadata` must have {key} by the data set's name, got {settings[key]!r}")


def _give_name(unfinished: Path, path: Path) -> None:
    """As a rename, but `FileExistsError` where another process was faster: its plan is never replaced."""
    try:
        os.link(unfinished, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # A file system without links, such as FAT. Between these two lines another may be faster, which `_check_plan` shows.
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(unfinished, path)


def _flatten(plan: dict[str, Any]) -> dict[str, Any]:
    plan = dict(plan)
    # Before what follows from them: the message names the cause.
    data = {f"data set {name}": value for name, value in plan.pop("data", {}).items()}
    last = {name: plan.pop(name, None) for name in ("cameras", "num_shards")}
    return {**plan, **data, **last}
