# SPDX-License-Identifier: Apache-2.0
"""
The messages of `vla-eval` (protocol version 1): MessagePack maps with `type`, `payload`, `seq` and `timestamp`, arrays as
maps of bytes, dtype and shape, images as such or as PNG or JPEG. What comes from outside is decoded into numbers, text and
arrays, and into nothing else.

https://github.com/allenai/vla-evaluation-harness, `src/vla_eval/protocol`
"""

from __future__ import annotations

import io
import math
import re
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

PROTOCOL_VERSION = 1
REQUESTS = ("hello", "episode_start", "observation", "episode_end")

# Of a message. An observation has a few cameras and states; files of zeros that unpack to gigabytes have more than these.
_MAX_PIXELS = 4096 * 4096
_MAX_ITEMS = 4096
_IMAGE_FORMATS = {"png": "PNG", "jpeg": "JPEG"}
# NumPy evaluates more than names, and some of that (`m8[s/0]`) ends the process with a signal.
_NUMBERS = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248])|bool|u?int(8|16|32|64)?|float(16|32|64)?|half|single|double")


class MessageError(ValueError):
    """A message that cannot be used, and why, in one line; `seq` is its number where that could be read."""

    def __init__(self, reason: str, seq: int = 0) -> None:
        super().__init__(reason)
        self.seq = seq


@dataclass(frozen=True)
class Message:
    """One message: `type` out of [`REQUESTS`] or `"action"` or `"error"`, its content, and the client's number of it."""

    type: str
    payload: dict[str, Any]
    seq: int = 0


def pack_message(message: Message) -> bytes:
    """A message as it is sent."""
    import msgpack

    fields = {"type": message.type, "payload": message.payload, "seq": message.seq, "timestamp": time.time()}
    return msgpack.packb(fields, default=_pack_array)


def unpack_message(data: bytes | str) -> Message:
    """A request as it came.

    Raises:
        MessageError: it is text, cut short, not a map of the four fields, of another type, or holds what is no number,
            text or array.
    """
    import msgpack

    reader = _ArrayReader()
    if isinstance(data, str):
        raise MessageError("a message must be a binary frame of MessagePack, got text.")
    try:
        fields = msgpack.unpackb(
            data,
            object_hook=reader.read,
            list_hook=reader.count,
            ext_hook=_refuse_extension,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
        )
    # Of bytes that are no MessagePack it raises more kinds than it documents.
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise MessageError(f"a message must be one MessagePack map, got {len(data)} bytes: {reason}") from error
    if not isinstance(fields, dict):
        raise MessageError(f"a message must be a map, got {type(fields).__name__}.")
    seq = fields.get("seq")
    if type(seq) is not int:
        raise MessageError(f"`seq` must be an integer, got {_shortened(seq)}.")
    if not isinstance(fields.get("type"), str) or fields["type"] not in REQUESTS:
        raise MessageError(f"`type` must be one of {list(REQUESTS)}, got {_shortened(fields.get('type'))}.", seq)
    if not isinstance(fields.get("payload"), dict):
        raise MessageError(f"`payload` must be a map, got {type(fields.get('payload')).__name__}.", seq)
    return Message(fields["type"], fields["payload"], seq)


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def _refuse_extension(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code} is not part of the protocol")


def _pack_array(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"cannot be sent: {type(value).__name__}")
    return {"__ndarray__": True, "data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}


class _ArrayReader:
    """Makes the arrays and images of one message; they share one budget of pixels, and all that it holds one of items."""

    def __init__(self) -> None:
        self._pixels_left, self._items_left = _MAX_PIXELS, _MAX_ITEMS

    def count(self, items: Any) -> Any:
        """What msgpack calls for every list: `items` as they are, while they are few."""
        self._items_left -= 1 + len(items)
        if self._items_left < 0:
            raise ValueError(f"a message must have at most {_MAX_ITEMS} items")
        return items

    def read(self, fields: dict[str, Any]) -> Any:
        """What msgpack calls for every map, the innermost first."""
        self.count(fields)
        if "__image__" in fields and fields.get("format") != "raw":
            return self._read_image(fields)
        if "__image__" in fields or "__ndarray__" in fields:
            return _unpack_array(fields)
        return fields

    def _read_image(self, fields: dict[str, Any]) -> np.ndarray:
        form, data = fields.get("format"), fields.get("data")
        if form not in _IMAGE_FORMATS or not isinstance(data, bytes):
            raise ValueError(f"an image must be bytes of raw, png or jpeg, got {_shortened(form)}")
        try:
            # The formats are named: the others of pillow are a door to programs that read them.
            with Image.open(io.BytesIO(data), formats=[_IMAGE_FORMATS[form]]) as image:
                self._pixels_left -= image.width * image.height
                if self._pixels_left >= 0:
                    return np.asarray(image)
        # A broken file raises SyntaxError, struct.error and others, by its format.
        except Exception as error:
            raise ValueError(f"an image of {len(data)} bytes cannot be decoded as {form}") from error
        raise ValueError(f"the images of a message must have at most {_MAX_PIXELS} pixels together")


def _unpack_array(fields: dict[str, Any]) -> np.ndarray:
    dtype, shape, data = (fields.get(name) for name in ("dtype", "shape", "data"))
    if not isinstance(dtype, str) or not isinstance(data, bytes):
        raise ValueError("an array must have `dtype` as text and `data` as bytes")
    if not _NUMBERS.fullmatch(dtype):
        raise ValueError(f"an array must be of numbers, got {_shortened(dtype)}")
    dtype = np.dtype(dtype)
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"`shape` of an array must be sizes, got {_shortened(shape)}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {_shortened(shape)} and {dtype} must not have {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)
