# SPDX-License-Identifier: Apache-2.0
"""When the frames of an episode are shown in its video file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import av
import numpy as np

# How many frames' time an episode's part of a file may fall short of: some end it when the last frame is shown, not after.
_MAX_SHORTFALL = 1.5


def episode_clock(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    fps: float,
    num_frames: int,
    start_s: float,
    end_s: float | None = None,
) -> tuple[Callable[[int], float], float]:
    """Seconds from the stream's start at which a frame of the episode is shown, by its index, and frames per second.

    Some data sets state a rounded `fps` (3.75 as 4), or a wrong one, beside videos with one frame a row; the file's
    own clock is right for them, and the same as `fps` for all others. Where that clock runs unevenly, as cameras without
    a fixed rate write it, the frame of row `i` is the `i`-th to be shown. In a file of several episodes, the rate is that of
    the two by which the episode lasts as long as its part of the file.

    Args:
        container (`av.container.InputContainer`): The file, at its start; its packets may be read over.
        stream (`av.VideoStream`): The video in it.
        fps (`float`): Frames per second of the episode.
        num_frames (`int`): Number of frames the episode has.
        start_s (`float`): Where in the file the episode starts, in seconds.
        end_s (`float`, *optional*): Where the next one starts, if that is known.

    Raises:
        ValueError: If by either rate the episode would go on into the next.
    """
    rate = float(stream.average_rate or fps)
    if start_s != 0 or stream.frames != num_frames or not stream.average_rate:
        rate = _rate_of_part(rate, fps, num_frames, start_s, end_s)
        return lambda index: start_s + index / rate, rate
    times_s = None if _is_steady(stream, rate) else _shown_times(container, stream)
    if times_s is None or len(times_s) != num_frames:
        return lambda index: index / rate, rate
    return times_s.__getitem__, rate


def _rate_of_part(file_rate: float, fps: float, num_frames: int, start_s: float, end_s: float | None) -> float:
    """The rate of an episode that is a part of a file: the stated one, unless the file's fits the part better."""
    if end_s is None:
        return fps
    length_s = end_s - start_s
    rate = min(fps, file_rate, key=lambda rate: abs(num_frames / rate - length_s))
    if num_frames / rate > length_s + _MAX_SHORTFALL / rate:
        raise ValueError(
            f"an episode of {num_frames} frames at {rate:g} a second does not fit in its {length_s:.2f} s of it"
        )
    return rate


def lacks_times(container: av.container.InputContainer, stream: av.VideoStream) -> bool:
    """Whether a file does not say when its frames are shown: AVI with B-frames, or that may have some, as H.264 and HEVC; it only
    numbers packets as they are decoded."""
    codec = stream.codec_context
    # Headers of the two codecs may leave open whether there are B-frames.
    return container.format.name == "avi" and (codec.has_b_frames or codec.name in ("h264", "hevc"))


def iter_by_place(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Decode a file that [`lacks_times`], from its start: the `i`-th frame to come out is shown at the `i`-th packet's time.

    Decoders give frames in the order in which they are shown, but with the time of their packets, or one guessed from it.
    """
    ticks: deque[int] = deque()
    for packet in container.demux(stream):
        if packet.dts is not None:
            ticks.append(packet.dts)
        for frame in stream.decode(packet):
            frame.pts = ticks.popleft() if ticks else None
            yield frame


def _is_steady(stream: av.VideoStream, rate: float) -> bool:
    """Whether the clock is even by the file's index, which is in memory: reading all packets is ten times the work."""
    # PyAV has it since 17; without, packets tell.
    entries = getattr(stream, "index_entries", ())
    ticks = np.array([entry.timestamp for entry in entries], dtype=np.float64)
    if len(ticks) != stream.frames or not stream.time_base:
        return False
    # The index is in the order and by the clock of decoding: with B-frames it starts earlier, but keeps the pace.
    drift = (ticks - ticks[0]) * float(stream.time_base) * rate - np.arange(len(ticks))
    return bool(np.abs(drift).max() < 0.25)


def _shown_times(container: av.container.InputContainer, stream: av.VideoStream) -> list[float] | None:
    """The times of all frames in the order in which they are shown; nothing is decoded."""
    shown = [packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard]
    ticks = sorted(pts for pts in shown if pts is not None)
    if not stream.time_base or len(ticks) != len(shown) or len(set(ticks)) != len(ticks):
        return None
    tick_s = float(stream.time_base)
    origin_s = stream.start_time * tick_s if stream.start_time else 0.0
    return [pts * tick_s - origin_s for pts in ticks]
