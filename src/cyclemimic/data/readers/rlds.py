# SPDX-License-Identifier: Apache-2.0
"""Reads RLDS data sets kept as TFRecord files, as those of Open X-Embodiment, without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..checking import BrokenEpisode, BrokenEpisodesError
from ..episode import DataError, Episode
from .cameras import choose_camera
from .images import decode_image
from .licences import read_licence
from .plain_files import choose_episodes, inside, read_json_object
from .tfrecord import Record, index_records, read_example, read_features

_SPLIT = "train"
_STEPS = "steps"
_IMAGES = f"{_STEPS}/observation"
_ACTION = f"{_STEPS}/action"
_STATES = tuple(f"{_STEPS}/observation/{name}" for name in ("state", "proprio", "robot_state"))
_INSTRUCTIONS = (f"{_STEPS}/language_instruction", f"{_STEPS}/observation/natural_language_instruction")


class RldsSource:
    """An RLDS data set as a sequence of [`Episode`]s.

    When it is opened, records are counted and their lengths checked. Actions, states and instructions are read without the
    pictures beside them; a record's checksum is checked when its pictures are read.

    Args:
        root (`str` or `Path`): The folder of a version, which holds `features.json`, `dataset_info.json` and the records.
        fps (`float`): Steps per second; the records do not tell.
        camera (`str`, *optional*): Name of an image of the observation; default is the only one, or of several one that
            sees the scene, and the choice is logged.
        embodiment (`str`, *optional*): Robot body; default is the data set's name.
        episodes (`Sequence[int]`, *optional*): Positions of the episodes to use; all by default.
        name (`str`, *optional*): Name of the data set; default is what `dataset_info.json` says.

    Raises:
        DataError: If the folder is no such data set, lacks the split `train`, the camera or an episode, or a file is damaged.
        ValueError: If `fps` is not positive.

    Example:

    ```python
    >>> from cyclemimic.data import RldsSource

    >>> source = RldsSource("path/to/bridge_dataset/1.0.0", fps=5, camera="image_0")  # doctest: +SKIP
    >>> frames = source[0].read_frames([0, 5])  # doctest: +SKIP
    ```
    """

    def __init__(
        self,
        root: str | Path,
        fps: float,
        camera: str | None = None,
        embodiment: str | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        if not 0 < fps < float("inf"):
            raise ValueError(f"`fps` must be above 0, got {fps}")
        self.root, self.fps = Path(root), float(fps)
        info = _read_json(self.root, "dataset_info.json")
        self.name = name or str(info.get("name") or self.root.resolve().parent.name)
        self.embodiment = embodiment or self.name
        said = info.get("redistributionInfo")
        self.licence = read_licence(self.root, said if isinstance(said, dict) else None)
        self._features = _flatten(_read_json(self.root, "features.json"), "")
        pictures = [key for key, feature in self._features.items() if _is_picture(key, feature)]
        # Of parts of the observation, with their path.
        self.cameras = [key.removeprefix(f"{_IMAGES}/") for key in pictures]
        if not self.cameras:
            raise DataError(f"{self.root}: the observation has no image; give a data set with pictures")
        self.camera = choose_camera(self.cameras, camera, self.root, self.name)
        records = _find_records(self.root, info)
        chosen = choose_episodes(self.root, len(records), episodes)
        self._episodes = self._measured({index: records[index] for index in chosen})

    def _measured(self, records: Mapping[int, Record]) -> list[tuple[int, Record, int]]:
        """Index, record and number of steps of each episode."""
        counted = _counted_feature(self._features, self.root)
        measured, broken = [], []
        for index, record in tqdm(records.items(), desc=f"open {self.name}", unit="episode", delay=2):
            try:
                measured.append((index, record, _count_steps(record, *counted)))
            except DataError as fault:
                broken.append(BrokenEpisode(index, str(fault)))
        if broken:
            raise BrokenEpisodesError(broken[0].reason, broken, [index for index, *_ in measured])
        return measured

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: int) -> Episode:
        position, record, num_frames = self._episodes[index]
        reader = _RldsReader(self._features, record, f"{_IMAGES}/{self.camera}", num_frames)
        return Episode(self.name, self.embodiment, position, num_frames, self.fps, self.camera, reader)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"RldsSource({str(self.root)!r}, camera={self.camera!r}, {len(self)} episodes, {self.fps:g} fps)"


@dataclass(frozen=True)
class _RldsReader:
    """Episode reader of one record; see [`EpisodeReader`]."""

    features: Mapping[str, Mapping[str, Any]]
    record: Record
    image_key: str
    num_frames: int

    def iter_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        pictures = read_example(self.record).get(self.image_key)
        if not isinstance(pictures, list) or len(pictures) != self.num_frames:
            raise self._error(f"{self.image_key} does not hold {self.num_frames} images")
        return (
            decode_image(pictures[index], f"{self.record.path}: an image of {self.image_key}") for index in indices
        )

    def read_instruction(self) -> str | None:
        return self._said[0] if self._said else None

    def read_instructions(self) -> list[str | None] | None:
        return None if len(set(self._said)) <= 1 else self._said

    @cached_property
    def _said(self) -> list[str | None]:
        """What the steps carry, where one is blank what was said last; nothing where the data set has no words."""
        key = next((key for key in _INSTRUCTIONS if key in self.features), None)
        texts = read_features(self.record, [key]).get(key) if key else None
        if not isinstance(texts, list):
            return []
        try:
            said = [text.decode().strip() or None for text in texts]
        except UnicodeDecodeError as error:
            raise self._error(f"{key} is not UTF-8 text") from error
        for index, text in enumerate(said[1:], start=1):
            said[index] = text or said[index - 1]
        return said

    def read_actions(self) -> np.ndarray | None:
        # One vector, or parts by name, such as the arm's and the gripper's.
        keys = [key for key in self.features if key == _ACTION or key.startswith(f"{_ACTION}/")]
        return self._vectors([key for key in keys if _size(self.features[key]) is not None])

    def read_states(self) -> np.ndarray | None:
        return self._vectors([key for key in _STATES if _size(self.features.get(key, {})) is not None][:1])

    def _vectors(self, keys: Sequence[str]) -> np.ndarray | None:
        if not keys:
            return None
        example = read_features(self.record, keys)
        parts = []
        for key in keys:
            values, size = example.get(key), _size(self.features[key])
            if not isinstance(values, np.ndarray) or size is None or len(values) != self.num_frames * size:
                raise self._error(f"{key} does not hold {size} plain numbers for each of {self.num_frames} steps")
            parts.append(values.reshape(self.num_frames, size).astype(np.float32))
        return np.concatenate(parts, axis=1)

    def _error(self, what: str) -> DataError:
        return DataError(
            f"{self.record.path}: {what} in the record at byte {self.record.offset}; download it again, or leave the "
            "episode out with `--skip_broken`"
        )


def find_version(path: Path) -> Path | None:
    """The folder of an RLDS data set: `path`, or its only folder of a version; `None` if there is none."""
    if (path / "features.json").is_file():
        return path
    versions = [found.parent for found in sorted(path.glob("*/features.json"))]
    if len(versions) > 1:
        raise DataError(f"{path} holds {[version.name for version in versions]}; give one of those folders")
    return versions[0] if versions else None


def _read_json(root: Path, name: str) -> dict[str, Any]:
    if not inside(root, name).is_file():
        raise DataError(f"{root} lacks {name}, which stands beside the records of RLDS; download it too")
    return read_json_object(root, name)


def _flatten(feature: Mapping[str, Any], prefix: str) -> dict[str, Mapping[str, Any]]:
    """Leaves of the tree of features, by the names that they have in the records."""
    try:
        if "featuresDict" in feature:
            children = feature["featuresDict"]["features"].items()
            parts = [_flatten(child, f"{prefix}/{name}" if prefix else name) for name, child in children]
            return {key: leaf for part in parts for key, leaf in part.items()}
        if "sequence" in feature:
            leaves = _flatten(feature["sequence"]["feature"], prefix)
            if not prefix.startswith(f"{_STEPS}/"):
                return leaves
            # The steps themselves are one; within a step each is a row of equal parts.
            length = int(feature["sequence"].get("length", -1))
            return {key: _repeated(leaf, length) for key, leaf in leaves.items()}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DataError(
            f"features.json: {prefix or 'its root'} is not as TFDS writes it; download it again"
        ) from error
    return {prefix: feature}


def _repeated(leaf: Mapping[str, Any], length: int) -> Mapping[str, Any]:
    """A feature of so many equal parts a step; of any number, it is nothing that is read or counted."""
    tensor = leaf.get("tensor")
    if length < 1 or not isinstance(tensor, dict):
        return {}
    dimensions = [length, *tensor.get("shape", {}).get("dimensions", [])]
    return {**leaf, "tensor": {**tensor, "shape": {"dimensions": dimensions}}}


def _is_picture(key: str, feature: Mapping[str, Any]) -> bool:
    if not key.startswith(f"{_IMAGES}/") or not isinstance(feature.get("image"), dict):
        return False
    shape = feature["image"].get("shape", {}).get("dimensions", [])
    return feature["image"].get("dtype") == "uint8" and str((shape or [0])[-1]) == "3"


def _size(feature: Mapping[str, Any]) -> int | None:
    """How many numbers a step's value has; `None` if it is no plain number or vector."""
    tensor = feature.get("tensor")
    if not isinstance(tensor, dict) or tensor.get("encoding", "none") != "none":
        return None
    if not str(tensor.get("dtype")).startswith(("float", "int", "uint", "bool")):
        return None
    try:
        size = math.prod(int(dimension) for dimension in tensor.get("shape", {}).get("dimensions", []))
    except (ValueError, AttributeError):
        return None
    return size if size > 0 else None


def _counted_feature(features: Mapping[str, Mapping[str, Any]], root: Path) -> tuple[str, int]:
    """A feature of which each step has equally many numbers, the fewest, and how many: steps are counted by it."""
    sizes = {key: _size(feature) for key, feature in features.items() if key.startswith(f"{_STEPS}/")}
    known = {key: size for key, size in sizes.items() if size is not None}
    if not known:
        raise DataError(f"{root}: no step has a number, by which steps could be counted; give a data set of episodes")
    key = min(known, key=known.__getitem__)
    return key, known[key]


def _count_steps(record: Record, key: str, size: int) -> int:
    steps, rest = divmod(len(read_features(record, [key]).get(key, ())), size)
    if steps < 1 or rest:
        raise DataError(
            f"{record.path}: the record at byte {record.offset} has no step, or a part of one; leave its episode out "
            "with `--skip_broken`"
        )
    return steps


def _find_records(root: Path, info: Mapping[str, Any]) -> list[Record]:
    try:
        lengths = {part["name"]: [int(count) for count in part["shardLengths"]] for part in info["splits"]}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{root}: splits in dataset_info.json are not as TFDS writes them; download it again"
        ) from error
    if _SPLIT not in lengths:
        raise DataError(f"{root} has no split {_SPLIT!r}, but {sorted(lengths)}; no other is read")
    shard_lengths = lengths[_SPLIT]
    paths = sorted(root.glob(f"*-{_SPLIT}.tfrecord-*-of-*"))
    if len(paths) != len(shard_lengths):
        raise DataError(
            f"{root} has {len(paths)} files of split {_SPLIT}, dataset_info.json says {len(shard_lengths)}; download all"
        )
    records = []
    for path, expected in zip(paths, shard_lengths, strict=True):
        found = index_records(inside(root, path.name))
        if len(found) != expected:
            raise DataError(f"{path} has {len(found)} records, dataset_info.json says {expected}; download it again")
        records += found
    return records
