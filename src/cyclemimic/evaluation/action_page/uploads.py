# SPDX-License-Identifier: Apache-2.0
"""Reads what strangers upload: by the package's own decoders, with bounds on bytes, pixels, seconds and frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyclemimic.data import DataError
from cyclemimic.data.readers.images import decode_image
from cyclemimic.data.readers.video import NamedVideo, iter_frames, open_video
from cyclemimic.data.readers.video_files import read_header

from ..film import strip_indices
from ..tiles import fit_image

MAX_BYTES = 64 << 20
"""Largest upload."""
MAX_SECONDS = 120
MAX_VIDEO_PIXELS = 4096 * 2304
MAX_MOMENTS = 12
"""Most pairs that are taken of a video."""
SHOWN_SIDE = 384
_MAX_FPS = 240


@dataclass(frozen=True, eq=False)
class Moment:
    """A pair of frames of a video, and when the first of them is seen, in seconds."""

    start_s: float
    current: np.ndarray
    future: np.ndarray


def read_pictures(current: str | None, future: str | None) -> tuple[np.ndarray, np.ndarray]:
    """
    Two frames of one video, from their files.

    Returns:
        Two arrays `(height, width, 3)`, uint8, RGB, at most [`SHOWN_SIDE`] pixels wide and high.

    Raises:
        DataError: One is missing or no picture, or they are not of one size.
    """
    if current is None or future is None:
        missing = "current and a future" if current is future else "current" if current is None else "future"
        raise DataError(f"Two frames of one video are needed: add a {missing} frame.")
    frames = [read_picture(path, what) for path, what in ((current, "current"), (future, "future"))]
    sizes = [f"{frame.shape[1]} x {frame.shape[0]}" for frame in frames]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"The two frames must be of one size, as frames of one video are; the current one has {sizes[0]} pixels, the "
            f"future one {sizes[1]}."
        )
    return shrink(frames[0]), shrink(frames[1])


def read_picture(path: str, what: str) -> np.ndarray:
    """A picture in its own size. Raises `DataError` if it does not decode."""
    try:
        # Its bytes, for messages name a file by where it lies.
        return decode_image(_checked(path).read_bytes(), f"the {what} frame")
    except DataError as error:
        raise _for_people(error) from error


def read_moments(path: str | None, interval_s: float) -> list[Moment]:
    """
    Pairs of a video, evenly spread over it.

    Args:
        path (`str` or `None`): The file.
        interval_s (`float`): Seconds from the first to the second frame of a pair.

    Returns:
        `list[Moment]`: At most [`MAX_MOMENTS`], as the video goes.

    Raises:
        DataError: There is none, it does not decode, or is too long, too large or too short.
    """
    if path is None:
        raise DataError("A video is needed: add one first.")
    if not 0 < interval_s <= MAX_SECONDS:
        raise DataError(
            f"The seconds between the frames must be above 0 and at most {MAX_SECONDS}, got {interval_s:g}."
        )
    try:
        return _read_moments(NamedVideo(_checked(path), Path(path).name), interval_s)
    except DataError as error:
        raise _for_people(error) from error


def shrink(frame: np.ndarray) -> np.ndarray:
    """The frame, made smaller where a side is longer than [`SHOWN_SIDE`]."""
    return np.asarray(fit_image(frame, SHOWN_SIDE, SHOWN_SIDE)) if max(frame.shape[:2]) > SHOWN_SIDE else frame


def _read_moments(video: NamedVideo, interval_s: float) -> list[Moment]:
    header = read_header(video)
    with open_video(video) as (_, stream):
        pixels = stream.codec_context.width * stream.codec_context.height
    if header.seconds > MAX_SECONDS or header.fps > _MAX_FPS or pixels > MAX_VIDEO_PIXELS:
        raise DataError(
            f"the video may have at most {MAX_SECONDS} s, {_MAX_FPS} frames per second and 4096 x 2304 pixels, got "
            f"{header.seconds:.4g} s, {header.fps:.4g} frames per second and {pixels / 1e6:.3g} million pixels"
        )
    num_frames = max(1, round(header.seconds * header.fps))
    span = max(1, round(interval_s * header.fps))
    if num_frames <= span:
        raise DataError(f"the video is {header.seconds:.3g} s long, too short for two frames {interval_s:g} s apart")
    starts = strip_indices(num_frames - span, MAX_MOMENTS)
    wanted = sorted({index for start in starts for index in (start, start + span)})
    # Each is made small as it comes, or two dozen large frames would be in memory at once.
    decoded = iter_frames(video, header.fps, num_frames, wanted, by_time=True)
    frames = {index: shrink(frame) for index, frame in zip(wanted, decoded, strict=True)}
    return [Moment(start / header.fps, frames[start], frames[start + span]) for start in starts]


def _checked(path: str) -> Path:
    file = Path(path)
    if not file.is_file() or file.stat().st_size > MAX_BYTES:
        raise DataError(f"an upload must be one file of at most {MAX_BYTES >> 20} MB")
    return file


def _for_people(error: DataError) -> DataError:
    """The message as a sentence, without the advice for data sets and what Pillow calls our buffer."""
    message = re.split(r" \(cannot identify|; ", str(error))[0]
    return DataError(f"{message[:1].upper()}{message[1:]}. Choose another file.")
