# SPDX-License-Identifier: Apache-2.0
"""Reads plain video files, each an episode, as people film and download them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

from ..checking import BrokenEpisode, BrokenEpisodesError
from ..episode import DataError, Episode, check_num_frames
from .clips import Clip, read_clips
from .licences import read_licence
from .plain_files import FramesOnly, choose_episodes, find_files, split_pattern
from .video import NamedVideo, iter_frames, open_video

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")
_MAX_FPS = 30.0


class VideoFileSource:
    """Video files as a sequence of [`Episode`]s, in the order of their names, those in folders below included.

    All are looked at with one frame rate: frame `i` is what a viewer sees `i / fps` seconds after the start, so files of
    different and of varying rates go together. Only headers are read here. There are no actions.

    Each file is an episode without instruction, unless there are texts beside them: a table `clips.csv` or `clips.jsonl`
    in the folder, with the columns `file`, `text` and, for parts of files, `start_s` and `end_s`; or for each file a
    WebVTT file of its name, `film.vtt` beside `film.mp4`. Then each clip is an episode, in the order of the texts.

    Args:
        root (`str` or `Path`): The folder of the files, one file, or a pattern such as `"videos/*.mp4"`; the folder is then
            what stands before the first part with `*`, `?` or `[`.
        fps (`float`, *optional*): Frames per second to look at them with; default is the lowest rate of all the files, at
            most 30.
        embodiment (`str`, *optional*, defaults to `"unknown"`): Body that moves in them; `"human"` is one.
        episodes (`Sequence[int]`, *optional*): Positions of the files, or clips, to use; all by default.
        name (`str`, *optional*): Name of the data set; default is the folder's name.

    Raises:
        DataError: If there is no video file, one cannot be opened or does not tell how long it is, or lies outside the
            folder; if a text names no clip of theirs.
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
        check_fps(fps)
        self.root, pattern = split_pattern(Path(root))
        root = self.root.resolve()
        self.name = name or (root.stem if root.is_file() else root.name)
        self.embodiment = embodiment or "unknown"
        self.licence = read_licence(self.root)
        clips = read_clips(self.root, _find_videos(self.root, pattern), are_all=pattern is None)
        chosen = choose_episodes(self.root, len(clips), episodes)
        # Several clips may be of one file.
        read = cache(read_header)
        headers = read_headers(chosen, (partial(read, clips[index].path) for index in chosen))
        others = (partial(read, clip.path) for clip in clips)
        self.fps = float(fps or fps_to_look_with([*headers.values(), *readable_headers(others)]))
        placed = {index: _in_picture(clips[index], headers[index]) for index in chosen}
        self._clips = [(index, placed[index], _end_of(placed[index], headers[index].seconds)) for index in chosen]
        for _, clip, end_s in self._clips:
            check_num_frames((end_s - clip.start_s) * self.fps, f"{clip.path}, {end_s:.4g} s long")

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Episode:
        position, clip, end_s = self._clips[index]
        num_frames = max(1, round((end_s - clip.start_s) * self.fps))
        file = clip.path.name if clip.path == self.root else clip.path.relative_to(self.root).as_posix()
        reader = _VideoFileReader(clip, self.fps, num_frames)
        where = {"file": file, "start_s": clip.start_s, "end_s": end_s}
        place = f"{file}#t={clip.start_s:.6g},{end_s:.6g}"
        return Episode(self.name, self.embodiment, position, num_frames, self.fps, self.camera, reader, where, place)

    def __iter__(self) -> Iterator[Episode]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"VideoFileSource({str(self.root)!r}, {len(self)} episodes, {self.fps:g} fps)"


@dataclass(frozen=True)
class _VideoFileReader(FramesOnly):
    """Episode reader of one clip; see [`EpisodeReader`]."""

    clip: Clip
    fps: float
    num_frames: int

    def iter_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        return iter_frames(self.clip.path, self.fps, self.num_frames, indices, self.clip.start_s, by_time=True)

    def read_instruction(self) -> str | None:
        return self.clip.text


@dataclass(frozen=True)
class VideoHeader:
    """What a file says of itself: frames per second on average, length of the picture, and how long after the file it begins."""

    fps: float
    seconds: float
    lead_s: float = 0.0


def is_video_file(path: Path) -> bool:
    """Whether a file goes by the name of a video; what macOS keeps beside one on other systems' disks does, and is none."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith("._") and path.is_file()


def _find_videos(root: Path, pattern: str | None) -> list[Path]:
    files = find_files(root, pattern, is_video_file)
    if not files:
        raise DataError(f"{root / (pattern or '')} holds no video file ({', '.join(VIDEO_SUFFIXES)})")
    return files


def _in_picture(clip: Clip, header: VideoHeader) -> Clip:
    """A clip by the picture's time: texts count from where the file begins, which may be sound alone."""
    if not header.lead_s:
        return clip
    end_s = None if clip.end_s is None else clip.end_s - header.lead_s
    if end_s is not None and end_s <= 0:
        raise DataError(f"{clip.where}: {clip.path} shows nothing before {header.lead_s:g} s; correct the text")
    return clip._replace(start_s=max(0.0, clip.start_s - header.lead_s), end_s=end_s)


def _end_of(clip: Clip, seconds: float) -> float:
    """Where the clip ends, at the latest with its file."""
    if clip.start_s >= seconds:
        raise DataError(
            f"{clip.where}: {clip.path} is {seconds:.4g} s long, but a clip starts at {clip.start_s:g} s; correct the text"
        )
    return min(seconds, clip.end_s or seconds)


def check_fps(fps: float | None) -> None:
    """Raises `ValueError` unless it may be a rate to look at videos with."""
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"`fps` must be above 0, got {fps}")


def fps_to_look_with(headers: Iterable[VideoHeader]) -> float:
    """
    The lowest rate of the videos, at most 30. Of all videos of a data set, whatever is used of it: an index is the same moment in
    a part of it as in the whole.
    """
    return float(min(_MAX_FPS, *(header.fps for header in headers)))


def readable_headers(reads: Iterable[Callable[[], VideoHeader]]) -> Iterator[VideoHeader]:
    """The headers of those videos that have one that can be read; the others are those of nobody who asks for them."""
    for read in reads:
        with suppress(DataError):
            yield read()


def read_headers(indices: Sequence[int], reads: Iterable[Callable[[], VideoHeader]]) -> dict[int, VideoHeader]:
    """The headers of the videos of some episodes.

    Args:
        indices (`Sequence[int]`): Indices of the episodes.
        reads (`Iterable[Callable]`): Calls that read their headers, in this order.

    Raises:
        BrokenEpisodesError: If some cannot be used; all such named.
    """
    headers: dict[int, VideoHeader] = {}
    broken: list[BrokenEpisode] = []
    for index, read in tqdm(zip(indices, reads), desc="open videos", unit="video", total=len(indices), delay=2):
        try:
            headers[index] = read()
        except DataError as fault:
            broken.append(BrokenEpisode(index, str(fault)))
    if broken:
        # All at once: whoever leaves one out should not have to try again to learn of the next.
        message = broken[0].reason
        if len(broken) > 1:
            named = [episode.index for episode in broken[:100]]
            message = f"{len(broken)} videos cannot be used, episodes {named}; the first: {message}"
        raise BrokenEpisodesError(message, broken, list(headers))
    return headers


def read_header(video: Path | NamedVideo) -> VideoHeader:
    """Raises `DataError` if a video does not open, or tell its frame rate and length."""
    with open_video(video) as (container, stream):
        rate, length, lead_s = stream.average_rate, 0.0, 0.0
        if stream.start_time and stream.time_base and container.start_time is not None:
            lead_s = max(0.0, float(stream.start_time * stream.time_base) - container.start_time / av.time_base)
        if stream.duration and stream.time_base:
            length = float(stream.duration * stream.time_base)
        else:
            # Matroska keeps the length with the file, where sound may outlast the picture, and of each stream in a tag.
            length = _tagged_seconds(stream) or (container.duration or 0) / av.time_base
            # ffmpeg and others write the time of the end there; mkvmerge, on libebml, how long it takes from the start.
            is_end = not any(value.startswith("libebml") for value in container.metadata.values())
            if is_end and stream.start_time and stream.time_base:
                length -= float(stream.start_time * stream.time_base)
    if not rate or not length or rate <= 0 or length <= 0:
        raise DataError(
            f"video {video} does not tell its frame rate and length; write it again with ffmpeg, or replace it, or leave "
            "its episode out with `--skip_broken`"
        )
    return VideoHeader(float(rate), float(length), lead_s)


def _tagged_seconds(stream: av.VideoStream) -> float:
    """Length of a stream by its tag, as `00:00:03.000000000`; 0 where there is none."""
    tags = {key.partition("-")[0].upper(): value for key, value in stream.metadata.items()}
    match = re.fullmatch(r"(\d{1,4}):(\d\d):(\d\d(?:\.\d{1,9})?)", tags.get("DURATION", "").strip(), re.ASCII)
    return 0.0 if match is None else int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
