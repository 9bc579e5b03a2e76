# SPDX-License-Identifier: Apache-2.0
"""Reads trajectories kept as folders of numbered images, as navigation data sets are (RECON, CoryHall, SACSoN by GNM)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..episode import DataError, Episode
from .images import decode_image
from .licences import read_licence
from .plain_files import FramesOnly, choose_episodes, iter_files

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class ImageFolderSource:
    """Folders of images named by their number, `0.jpg`, `1.jpg` …, as a sequence of [`Episode`]s.

    Each folder that holds such images directly is a trajectory, in the order of their names; `root` itself may be one.
    Other files beside the images are not looked at, and pickles never loaded. There are no instructions and no actions.

    Args:
        root (`str` or `Path`): The data set's folder.
        fps (`float`): Frames per second; the images do not tell.
        embodiment (`str`, *optional*): Robot body; default is the data set's name.
        episodes (`Sequence[int]`, *optional*): Positions of the trajectories to use; all by default.
        name (`str`, *optional*): Name of the data set; default is the folder's name.

    Raises:
        DataError: If there is no trajectory, a number is missing or stands twice, or a file lies outside the folder.
        ValueError: If `fps` is not positive.

    Example:

    ```python
    >>> from cyclemimic.data import ImageFolderSource

    >>> source = ImageFolderSource("path/to/recon", fps=4)  # doctest: +SKIP
    >>> frames = source[0].read_frames([0, 4])  # doctest: +SKIP
    ```
    """

    camera = "image"
    cameras = (camera,)

    def __init__(
        self,
        root: str | Path,
        fps: float,
        embodiment: str | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        if not 0 < fps < float("inf"):
            raise ValueError(f"`fps` must be above 0, got {fps}")
        self.root = Path(root)
        self.name = name or self.root.resolve().name
        self.fps = float(fps)
        self.embodiment = embodiment or self.name
        self.licence = read_licence(self.root)
        self._trajectories = self._select(_find_trajectories(self.root), episodes)

    def __len__(self) -> int:
        return len(self._trajectories)

    def __getitem__(self, index: int) -> Episode:
        position, trajectory = self._trajectories[index]
        folder = trajectory.folder.relative_to(self.root).as_posix()
        return Episode(
            source=self.name,
            embodiment=self.embodiment,
            index=position,
            num_frames=len(trajectory.files),
            fps=self.fps,
            camera=self.camera,
            reader=trajectory,
            attributes={"folder": folder},
            place=folder,
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"ImageFolderSource({str(self.root)!r}, {len(self)} episodes, {self.fps:g} fps)"

    def _select(
        self, trajectories: list[_Trajectory], episodes: Sequence[int] | None
    ) -> list[tuple[int, _Trajectory]]:
        if not trajectories:
            raise DataError(f"{self.root} has no folder of numbered images, such as trajectory/0.jpg")
        chosen = choose_episodes(self.root, len(trajectories), episodes)
        return [(index, trajectories[index]) for index in chosen]


@dataclass(frozen=True)
class _Trajectory(FramesOnly):
    """Episode reader of one folder; see [`EpisodeReader`]."""

    folder: Path
    files: tuple[str, ...]

    def iter_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        paths = (self.folder / self.files[index] for index in indices)
        return (decode_image(path, str(path)) for path in paths)


def is_numbered_image(path: Path) -> bool:
    """Whether a file is an image that is named by a number."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.stem.isdecimal()


def _find_trajectories(root: Path) -> list[_Trajectory]:
    numbered: dict[Path, dict[int, str]] = {}
    for path in iter_files(root, is_numbered_image):
        files = numbered.setdefault(path.parent, {})
        if int(path.stem) in files:
            raise DataError(
                f"{path.parent} has number {int(path.stem)} twice, {files[int(path.stem)]} and {path.name}; keep one"
            )
        files[int(path.stem)] = path.name
    return [_trajectory(folder, numbered[folder]) for folder in sorted(numbered)]


def _trajectory(folder: Path, files: dict[int, str]) -> _Trajectory:
    first, last = min(files), max(files)
    if len(files) != last - first + 1:
        missing = next(number for number in range(first, last) if number not in files)
        # Time would jump there, and with it whatever a pair of frames shows.
        raise DataError(
            f"{folder} has images {first} to {last}, but not {missing}; add it, or split the trajectory there"
        )
    return _Trajectory(folder, tuple(files[number] for number in sorted(files)))
