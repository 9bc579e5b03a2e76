# SPDX-License-Identifier: Apache-2.0
"""Pictures and clips as data URIs, so that a page carries them inside itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from PIL import Image

# Orange in hue but light enough to read on dark grey and dark enough on white: the mark of a change.
CHANGE_COLOUR = np.array([230, 97, 0], dtype=np.float32)
_WEBP_QUALITY = 86
# x264's constant rate factor: lower is finer and larger.
_CRF = "24"


def check_image(image: np.ndarray, name: str) -> np.ndarray:
    """Check that `image` is a picture this package can show.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)`): uint8, RGB.
        name (`str`): What the message calls it.

    Raises:
        ValueError: If the shape or the type is another.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise ValueError(f"{name} must be a uint8 array of shape (height, width, 3), got {array.dtype} {array.shape}")
    return array


def enlarge(image: np.ndarray, min_width: int) -> np.ndarray:
    """Enlarge by a whole factor with Lanczos until at least `min_width` wide; larger images are left alone.

    Browsers enlarge bilinearly, which blurs a 64 × 64 frame; done here, small frames stay crisp on dense screens.
    """
    height, width = image.shape[:2]
    factor = -(-min_width // width)
    if factor <= 1:
        return image
    return np.asarray(Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.LANCZOS))


def image_uri(image: np.ndarray, min_width: int = 0) -> str:
    """Encode one picture as a WebP data URI.

    Args:
        image (`np.ndarray` of shape `(height, width, 3)`): uint8, RGB.
        min_width (`int`, *optional*, defaults to 0): Enlarge to at least this width in pixels.

    Returns:
        `str`: `data:image/webp;base64,…`.

    Raises:
        ValueError: If `image` is no uint8 RGB picture.
    """
    picture = Image.fromarray(enlarge(check_image(image, "image"), min_width))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=_WEBP_QUALITY, method=4)
    return _uri("image/webp", buffer.getvalue())


def clip_uri(frames: np.ndarray, fps: float, min_width: int = 256) -> str:
    """Encode frames as an H.264 data URI that every browser plays.

    Args:
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`): uint8, RGB.
        fps (`float`): Frames a second.
        min_width (`int`, *optional*, defaults to 256): Enlarge to at least this width in pixels.

    Returns:
        `str`: `data:video/mp4;base64,…`.

    Raises:
        ValueError: If `frames` holds no frame, frames are no uint8 RGB pictures, or `fps` is not positive.
    """
    check_clip(frames, fps)
    height, width = enlarge(frames[0], min_width).shape[:2]
    # 4:2:0 chroma needs even sides; the odd row or column is dropped.
    height, width = max(2, height - height % 2), max(2, width - width % 2)
    buffer = io.BytesIO()
    with av.open(buffer, mode="w", format="mp4") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"crf": _CRF, "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(_cover(enlarge(frame, min_width), height, width), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return _uri("video/mp4", buffer.getvalue())


def check_clip(frames: np.ndarray, fps: float) -> None:
    """Check the arguments of [`clip_uri`]. Raises `ValueError` as it says."""
    if np.ndim(frames) != 4 or len(frames) == 0:
        raise ValueError(
            f"frames must be of shape (num_frames, height, width, 3) with a frame or more, got {np.shape(frames)}"
        )
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}")
    check_image(frames[0], "each frame")


def strip_indices(num_frames: int, count: int) -> list[int]:
    """Indices of `count` evenly spaced frames, first and last included; every frame where there are fewer."""
    if num_frames <= count:
        return list(range(num_frames))
    return np.linspace(0, num_frames - 1, count).round().astype(int).tolist()


def change_overlay(current: np.ndarray, future: np.ndarray) -> np.ndarray:
    """Paint what differs between two frames in orange over a faded grey copy of the future.

    Args:
        current (`np.ndarray` of shape `(height, width, 3)`): uint8, RGB.
        future (`np.ndarray` of shape `(height, width, 3)`): uint8, RGB.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: uint8, RGB.
    """
    before, after = current.astype(np.float32), future.astype(np.float32)
    difference = np.abs(after - before).mean(axis=-1, keepdims=True)
    # A tenth of full scale is a clear change to the eye; below a fiftieth is video noise.
    strength = np.clip((difference - 5.0) / 25.0, 0.0, 0.9)
    grey = 110.0 + 0.5 * after.mean(axis=-1, keepdims=True)
    return (grey * (1 - strength) + CHANGE_COLOUR * strength).round().clip(0, 255).astype(np.uint8)


def sample_strip(frames: Sequence[np.ndarray] | np.ndarray, count: int) -> list[tuple[int, np.ndarray]]:
    """Pick `count` evenly spaced frames. Returns pairs of frame index and frame."""
    return [(index, frames[index]) for index in strip_indices(len(frames), count)]


def _cover(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop to the encoder's size; a one-pixel side is repeated, as it cannot be cropped to two."""
    rows, columns = max(0, height - image.shape[0]), max(0, width - image.shape[1])
    padded = np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="edge") if rows or columns else image
    return np.ascontiguousarray(padded[:height, :width])


def _uri(media_type: str, payload: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(payload).decode('ascii')}"
