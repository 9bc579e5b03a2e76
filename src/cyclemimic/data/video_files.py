# SPDX-License-Identifier: Apache-2.0
"""Reads plain video files, each an episode, as people film and download them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from .episode import DataError, Episode, check_num_frames
from .plain_files import FramesOnly, choose_episodes, iter_files
from .video import iter_frames, open_video

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
_MAX_FPS = 30.0


class VideoFileSource:
    """Video files as a sequence of [`Episode`]s, in the order of their names, those in folders below included.

    All are looked at with one frame rate: frame `i` is what a viewer sees `i / fps` seconds after the start, so files of
    different and of varying rates go together. Only headers are read here. There are no instructions and no actions.

    Args:
        root (`str` or `Path`): The folder of the files, or one file.
        fps (`float`, *optional*): Frames per second to look at them with; default is the lowest rate of the files, at
            most 30.
        embodiment (`str`, *optional*, defaults to `"unknown"`): Body that moves in them; `"human"` is one.
        episodes (`Sequence[int]`, *optional*): Positions of the files to use; all by default.
        name (`str`, *optional*): Name of the data set; default is the folder's name.

    Raises:
        DataError: If there is no video file, one cannot be opened or does not tell how long it is, or lies outside the
            folder.
        ValueError: If `fps` is not positive.

    Example:

    ```python
    >>> from cyclemimic.data import VideoFileSource

    >>> source = VideoFileSource("path/to/videos", embodiment="human")  # doctest: +SKIP
    >>> frames = source[0].read_frames([0, 30])  # doctest: +SKIP
    ```
    """

    camera = "video"
    cameras = (camera,)

    def __init__(
        self,
        root: str | Path,
        fps: float | None = None,
        embodiment: str | None = None,
        episodes: Sequence[int] | None = None,
        name: str | None = None,
    ) -> None:
        if fps is not None and not 0 < fps < float("inf"):
            raise ValueError(f"`fps` must be above 0, got {fps}")
        self.root = Path(root)
        self.name = name or self.root.resolve().stem
        self.embodiment = embodiment or "unknown"
        files = _find_files(self.root)
        headers = _read_headers({index: files[index] for index in choose_episodes(self.root, len(files), episodes)})
        self.fps = float(fps or min(_MAX_FPS, *(header.fps for header in headers.values())))
        self._videos = [(index, files[index], header.seconds) for index, header in headers.items()]
        for _, path, seconds in self._videos:
            check_num_frames(seconds * self.fps, f"{path}, {seconds:.4g} s long")

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> Episode:
        position, path, seconds = self._videos[index]
        num_frames = max(1, round(seconds * self.fps))
        file = path.name if path == self.root else path.relative_to(self.root).as_posix()
        reader = _VideoFileReader(path, self.fps, num_frames)
        return Episode(self.name, self.embodiment, position, num_frames, self.fps, self.camera, reader, {"file": file})

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"VideoFileSource({str(self.root)!r}, {len(self)} episodes, {self.fps:g} fps)"


@dataclass(frozen=True)
class _VideoFileReader(FramesOnly):
    """Episode reader of one file; see [`EpisodeReader`]."""

    path: Path
    fps: float
    num_frames: int

    def iter_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        return iter_frames(self.path, self.fps, self.num_frames, indices, by_time=True)


@dataclass(frozen=True)
class _Header:
    """What a file says of itself: frames per second on average, and length."""

    fps: float
    seconds: float


def is_video_file(path: Path) -> bool:
    """Whether a file goes by the name of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _find_files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    files = sorted(iter_files(root, is_video_file))
    if not files:
        raise DataError(f"{root} holds no video file ({', '.join(VIDEO_SUFFIXES)})")
    return files


def _read_headers(files: Mapping[int, Path]) -> dict[int, _Header]:
    headers: dict[int, _Header] = {}
    faults: dict[int, DataError] = {}
    for index, path in files.items():
        try:
            headers[index] = _read_header(path)
        except DataError as fault:
            faults[index] = fault
    if faults:
        first = next(iter(faults.values()))
        if len(faults) == 1:
            raise first
        # All at once: whoever leaves one out should not have to try again to learn of the next.
        raise DataError(f"{len(faults)} videos cannot be used, episodes {list(faults)[:100]}; the first: {first}")
    return headers


def _read_header(path: Path) -> _Header:
    with open_video(path) as (container, stream):
        rate, length = stream.average_rate, None
        if stream.duration:
            length = stream.duration * stream.time_base
        elif container.duration:
            # Matroska keeps the length with the file, not with the stream.
            length = container.duration / av.time_base
    if not rate or not length or rate <= 0 or length <= 0:
        raise DataError(
            f"video {path} does not tell its frame rate and length; write it again with ffmpeg, or replace it, or leave "
            "its episode out with `episodes`"
        )
    return _Header(float(rate), float(length))
