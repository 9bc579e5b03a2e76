# SPDX-License-Identifier: Apache-2.0
"""Video files through PyAV: frames picked by time from any part of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from ..episode import DataError, stack_frames
from .images import MAX_PIXELS
from .orientation import upright
from .video_clock import episode_clock, iter_by_place, lacks_times

# Frames between two wanted ones beyond which seeking beats decoding what lies between. Encoders for robot data place
# a keyframe every 2 to 30 frames (lerobot: 2; this package: 10).
_SEEK_GAP_FRAMES = 32
# Decoding threads take a few milliseconds to start: they pay off from about this many frames on.
_MIN_FRAMES_FOR_THREADS = 32
# How long after its last frame a file may still be asked for it: containers round durations, and some count the time that
# the last frame is shown.
_LAST_FRAME_SHOWN_S = 1.0
_Timed = tuple[float, av.VideoFrame]
_Choice = Callable[[_Timed | None, _Timed | None, float, float], av.VideoFrame | None]
_REMEDY = "replace it or leave its episode out with `--skip_broken`"
# Only these containers are looked into: others, such as playlists, lead ffmpeg to further files, or to the network.
_OPEN_OPTIONS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi", "protocol_whitelist": "file"}
# A damaged header must not ask for more memory than there is.
_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}


class NamedVideo(NamedTuple):
    """A video that is no file of its own, or one that messages should call by another name. It is opened once.

    Args:
        file (`Path` or `BinaryIO`): The file, or an object to read and seek in.
        name (`str`): What messages call it.
    """

    file: Path | BinaryIO
    name: str

    def __str__(self) -> str:
        return self.name


def iter_frames(
    video: str | Path | NamedVideo,
    fps: float,
    num_frames: int,
    indices: Sequence[int] | None = None,
    start_s: float = 0.0,
    by_time: bool = False,
    end_s: float | None = None,
) -> Iterator[np.ndarray]:
    """Decode frames of an episode that is the whole or a part of a video file.

    Frame `i` is the one nearest to `start_s + i / fps`, found by presentation time, so files with many episodes, B-frames
    or a higher frame rate than the episode's are read right. Decoding starts at the last keyframe before the first
    wanted frame, in AVI with H.264, HEVC or B-frames at the start of the file, and ends at the last.

    Args:
        video (`str`, `Path` or `NamedVideo`): Video file.
        fps (`float`): Frames per second of the episode.
        num_frames (`int`): Number of frames the episode has.
        indices (`Sequence[int]`, *optional*): Ascending frame indices in `[0, num_frames)`; all by default.
        start_s (`float`, *optional*, defaults to 0.0): Where in the file the episode starts, in seconds.
        by_time (`bool`, *optional*, defaults to `False`): `fps` is a rate to look at the file with, not its own: frame `i`
            is what a viewer sees at `start_s + i / fps`, however long it has been shown by then. Without it, a file
            that has no frame there is broken.
        end_s (`float`, *optional*): Where in the file the next episode starts, if that is known.

    Yields:
        `np.ndarray` of shape `(height, width, 3)`: RGB, `uint8`, turned as players show it; pixels are taken for square.

    Raises:
        DataError: If the file is missing or does not decode, or ends before the last wanted frame.
    """
    indices = range(num_frames) if indices is None else indices
    if len(indices) == 0:
        return
    video, count = Path(video) if isinstance(video, str) else video, 0
    with open_video(video) as (container, stream):
        # Not in a data loader's workers, nor where one thread was asked for: threads cost a sixth of the decoding.
        has_threads = torch.get_num_threads() > 1 and len(indices) >= _MIN_FRAMES_FOR_THREADS
        stream.thread_type = "AUTO" if has_threads else "NONE"
        if by_time:
            time_of, rate = (lambda index: start_s + index / fps), fps
        else:
            time_of, rate = episode_clock(container, stream, fps, num_frames, start_s, end_s)
        converter = VideoReformatter()
        # Not a list: an episode is as long as its metadata says, true or not.
        times_s = (time_of(index) for index in indices)
        choose = _shown_at if by_time else _nearest_to
        size = None
        for frame in _pick(container, stream, times_s, 1 / rate, choose):
            picture = upright(converter.reformat(frame, format="rgb24").to_ndarray(), frame)
            height, width, _ = picture.shape
            if size not in (None, (width, height)):
                raise DataError(
                    f"video {video} changes from {size[0]} x {size[1]} to {width} x {height} pixels; {_REMEDY}"
                )
            size = width, height
            count += 1
            yield picture
    if count < len(indices):
        raise DataError(
            f"video {video} has no frame at {start_s + indices[count] / fps:.3f} s (frame {indices[count]} of "
            f"{num_frames}); {_REMEDY}"
        )


@contextmanager
def open_video(video: Path | NamedVideo) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video at its first video stream; what goes wrong there and in the block is a one-line `DataError`."""
    file = video.file if isinstance(video, NamedVideo) else video
    if isinstance(file, Path) and not file.is_file():
        raise DataError(f"video {video} does not exist; {_REMEDY}")
    opened = str(file) if isinstance(file, Path) else file
    try:
        with av.open(opened, "r", options=_OPEN_OPTIONS, metadata_errors="replace") as container:
            if not container.streams.video:
                raise DataError(f"{video} holds no video stream; {_REMEDY}")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DataError(f"video {video} does not decode (of an unknown codec); {_REMEDY}")
            stream.codec_context.options = _DECODER_OPTIONS
            yield container, stream
    except DataError:
        raise
    # Beside ffmpeg's own, what PyAV raises of numbers that no intact file has.
    except (av.error.FFmpegError, OSError, ValueError, ArithmeticError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise DataError(f"video {video} does not decode ({reason}); {_REMEDY}") from error


def decode_frames(
    path: str | Path, fps: float, num_frames: int, indices: Sequence[int] | None = None, start_s: float = 0.0
) -> np.ndarray:
    """Decode frames into one array: as [`iter_frames`], stacked.

    Args:
        path (`str` or `Path`): Video file.
        fps (`float`): Frames per second of the episode.
        num_frames (`int`): Length of the episode.
        indices (`Sequence[int]`, *optional*): Ascending frame indices; all by default.
        start_s (`float`, *optional*, defaults to 0.0): Where in the file the episode begins, in seconds.

    Returns:
        `np.ndarray` of shape `(len(indices), height, width, 3)`: RGB, `uint8`.

    Raises:
        DataError: As [`iter_frames`].
        ValueError: If `indices` is empty.
    """
    count = num_frames if indices is None else len(indices)
    if count == 0:
        raise ValueError("`indices` must name at least one frame, got none")
    return stack_frames(iter_frames(path, fps, num_frames, indices, start_s), count)


def _pick(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    times_s: Iterable[float],
    period_s: float,
    choose: _Choice,
) -> Iterator[av.VideoFrame]:
    """Yield the frame chosen for each of the ascending times; stop at the first that has none."""
    last_s, previous, current = None, None, None
    # Frames of the file: one looked at once a second has thirty from look to look.
    gap_s = _SEEK_GAP_FRAMES / float(stream.average_rate or 1 / period_s)
    if lacks_times(container, stream):
        gap_s = float("inf")
    stretches = _Stretches()
    for time_s in times_s:
        if last_s is None or time_s - last_s > max(gap_s, stretches.longest_s):
            timed = stretches.watch(_decode_from(container, stream, time_s, period_s))
            previous, current = None, next(timed, None)
        last_s = time_s
        while current is not None and current[0] < time_s:
            previous, current = current, next(timed, None)
        chosen = choose(previous, current, time_s, period_s)
        if chosen is None:
            return
        yield chosen


class _Stretches:
    """
    How far apart a file's keyframes are, as far as it has been seen: who seeks by less lands where decoding is already, or
    before.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0

    def watch(self, timed: Iterable[_Timed]) -> Iterator[_Timed]:
        """The same frames, seen."""
        keyframe_s = None
        for frame_s, frame in timed:
            keyframe_s = frame_s if keyframe_s is None or frame.key_frame else keyframe_s
            self.longest_s = max(self.longest_s, frame_s - keyframe_s)
            yield frame_s, frame


def _nearest_to(
    previous: _Timed | None, current: _Timed | None, time_s: float, period_s: float
) -> av.VideoFrame | None:
    """Of the last frame before `time_s` and the first at or after it, the nearer one; none if both are far."""
    near = [candidate for candidate in (previous, current) if candidate is not None]
    if not near:
        return None
    best_s, best = min(near, key=lambda candidate: abs(candidate[0] - time_s))
    # Half a period is the nearest-frame criterion; the small rest is for timestamps rounded to milliseconds.
    return best if abs(best_s - time_s) <= 0.5 * period_s + 2e-3 else None


def _shown_at(previous: _Timed | None, current: _Timed | None, time_s: float, period_s: float) -> av.VideoFrame | None:
    """Of the two, the one on the screen at `time_s`; none where the file ended before."""
    if current is not None and (previous is None or current[0] <= time_s + 2e-3):
        return current[1]
    if previous is None or (current is None and time_s - previous[0] > _shown_s(previous[1]) + period_s):
        return None
    return previous[1]


def _shown_s(last: av.VideoFrame) -> float:
    """How long the last frame of a file may be asked for: a still at the end of a film stands as long as the file says."""
    told = float(last.duration * last.time_base) if last.duration and last.time_base else 0.0
    return max(_LAST_FRAME_SHOWN_S, told)


def _decode_from(
    container: av.container.InputContainer, stream: av.VideoStream, time_s: float, period_s: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield `(seconds from the stream's start, frame)` from a keyframe before `time_s` on."""
    if stream.time_base is None:
        raise ValueError("no clock")
    tick_s = float(stream.time_base)
    origin_s = stream.start_time * tick_s if stream.start_time else 0.0
    has_times = not lacks_times(container, stream)
    # One frame early, because the nearest frame may be the one before. Demuxers seek by decoding time, which in open
    # groups of pictures is before the presentation time: where the first frame turns out to be late, start over.
    for target_s in [time_s - period_s, 0.0] if has_times and time_s > period_s else [0.0]:
        container.seek(round((target_s + origin_s) / tick_s), stream=stream, backward=True, any_frame=False)
        is_first = True
        for frame in container.decode(stream) if has_times else iter_by_place(container, stream):
            if frame.pts is None:
                continue
            if frame.is_corrupt:
                # ffmpeg fills in what it cannot decode: a picture nobody took, and what follows is built on it.
                raise ValueError("damaged pictures")
            frame_s = frame.pts * tick_s - origin_s
            if is_first and target_s > 0 and frame_s > time_s:
                break
            is_first = False
            yield frame_s, frame
        if not is_first:
            return
