# SPDX-License-Identifier: Apache-2.0
"""Video files through PyAV: H.264, written frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

KEYFRAME_INTERVAL = 10
"""Frames from one keyframe to the next in the videos this package writes: random access decodes 5 on average."""

# Hard to tell from the original; without B-frames.
_ENCODER_OPTIONS = {"crf": "16", "preset": "veryfast", "g": str(KEYFRAME_INTERVAL), "bf": "0"}


class VideoWriter:
    """Writes one H.264 file frame by frame; several episodes may follow each other in it.

    Keyframes come at least every [`KEYFRAME_INTERVAL`] frames; without B-frames, frame `i` is at exactly `i / fps`.

    Args:
        path (`str` or `Path`): File to write; it is complete after `close()`.
        fps (`float`): Frames per second.

    Attributes:
        num_frames (`int`): Frames written so far.
        num_bytes (`int`): Bytes of video so far; a few frames that the encoder still holds are not counted.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If frames differ in size, are not `uint8` RGB, or have an odd width or height.
    """

    def __init__(self, path: str | Path, fps: float) -> None:
        self.path = Path(path)
        self.num_frames = 0
        self.num_bytes = 0
        self._rate = Fraction(fps).limit_denominator(10_000)
        with self._os_errors():
            self._container = av.open(str(self.path), "w")
        self._stream: av.VideoStream | None = None

    def write(self, frames: Iterable[np.ndarray]) -> None:
        """Append RGB frames, `uint8` of shape `(height, width, 3)` each."""
        for image in frames:
            if self._stream is None:
                self._stream = self._open_stream(image)
            if image.dtype != np.uint8 or image.shape != (self._stream.height, self._stream.width, 3):
                raise ValueError(
                    f"`frames` must be uint8 of shape ({self._stream.height}, {self._stream.width}, 3) like the first, "
                    f"got {image.dtype} {image.shape}"
                )
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = self.num_frames
            frame.time_base = 1 / self._rate
            self._encode(self._stream, frame)
            self.num_frames += 1

    def close(self) -> None:
        """Flush the encoder and complete the file."""
        stream, self._stream = self._stream, None
        try:
            if stream is not None:
                self._encode(stream, None)
        finally:
            with self._os_errors():
                self._container.close()

    def _encode(self, stream: av.VideoStream, frame: av.VideoFrame | None) -> None:
        with self._os_errors():
            for packet in stream.encode(frame):
                self.num_bytes += packet.size
                self._container.mux(packet)

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        """Turn ffmpeg's errors, which keep the operating system's number, into the `OSError` they stand for."""
        try:
            yield
        except av.error.FFmpegError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _open_stream(self, image: np.ndarray) -> av.VideoStream:
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            raise ValueError(f"`frames` must have an even height and width (yuv420p), got {height} x {width}")
        stream = self._container.add_stream("h264", self._rate, _ENCODER_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = 1 / self._rate
        return stream

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def encode_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write RGB frames, `uint8` of shape `(height, width, 3)` each, to a video file that browsers play.

    Args:
        path (`str` or `Path`): File to write.
        frames (`Iterable[np.ndarray]`): At least one.
        fps (`float`): Frames per second.

    Raises:
        ValueError: As [`VideoWriter`], or if there are no frames.
    """
    with VideoWriter(path, fps) as writer:
        writer.write(frames)
        if writer.num_frames == 0:
            raise ValueError("`frames` must hold at least one frame, got none")
