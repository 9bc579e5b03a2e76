# SPDX-License-Identifier: Apache-2.0
"""Decodes one image, of a size that fits in memory and of the few formats that cameras write."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..episode import DataError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 1 << 26
"""Largest frame that is decoded, 8192 x 8192: a header, damaged or made up, must not ask for all memory."""

# Pillow knows many more, of which some start other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
# A tag of EXIF, and Pillow's number of the turn that undoes each of its values.
_ORIENTATION, _TURNS = 0x0112, {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
# What Pillow opens with more than 8 bits a channel, and cuts off at 255 on the way to RGB: all white. PNGs of 16 bits in
# colour are none of them: it halves those as it reads.
_DEEP_MODES = ("I", "F")


def decode_image(file: Path | bytes, what: str) -> np.ndarray:
    """Decode an image file, or its bytes, to RGB.

    Args:
        file (`Path` or `bytes`): The image.
        what (`str`): What messages call it, with the file it is in.

    Returns:
        `np.ndarray` of shape `(height, width, 3)`: RGB, `uint8`.

    Raises:
        DataError: If it does not decode, is larger than [`MAX_PIXELS`], or has more than 8 bits a channel, as depth has.
    """
    # Imported here, as an image is the first thing of a data set that needs it.
    from PIL import Image

    remedy = "replace it, or leave its episode out with `--skip_broken`"
    try:
        if isinstance(file, Path) and not file.is_file():
            raise FileNotFoundError("it is no file")
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS) as image:
            (width, height), mode = image.size, image.mode
            is_deep = mode.startswith(_DEEP_MODES)
            if width * height <= MAX_PIXELS and not is_deep:
                return np.asarray(_upright(image).convert("RGB"))
    # Pillow passes on whatever its decoders meet.
    except (
        OSError,
        ValueError,
        SyntaxError,
        LookupError,
        TypeError,
        EOFError,
        MemoryError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"{what} does not decode ({error or type(error).__name__}); {remedy}") from error
    if is_deep:
        raise DataError(
            f"{what} must have 8 bits a channel, got mode {mode} (depth, or 16 bits); store it as 8-bit grey or RGB, or "
            "leave its episode out with `--skip_broken`"
        )
    raise DataError(
        f"{what} does not decode ({width} x {height} pixels, at most {MAX_PIXELS >> 20} million are read); {remedy}"
    )


def _upright(image: Image.Image) -> Image.Image:
    """As viewers show it: photographs of telephones lie on their side."""
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    # What else cameras write there may be damaged, and the picture intact.
    except Exception:
        return image
    return image if turn is None else image.transpose(turn)  # type: ignore[arg-type]  # numbers of its enumeration
