# SPDX-License-Identifier: Apache-2.0
"""Pieces of the pictures made of many pictures: a frame fitted into its place, a line of text cut to its width."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_REPLACED: dict[int, str | int] = {ord("–"): "-", ord("—"): "-", ord("→"): ">", ord("…"): "..."}


def fit_image(image: np.ndarray, width: int, height: int) -> Image.Image:
    """Scale a picture, `uint8` RGB, so that it just fits into `width` x `height` pixels; its proportions stay."""
    picture = Image.fromarray(image)
    scale = min(width / picture.width, height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)


def fit_text(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> str:
    """One line of `text`, cut to `width` pixels; what Pillow's own font has no sign for is replaced."""
    text = " ".join(text.translate(_REPLACED).split())
    text = text.encode("latin-1", "replace").decode("latin-1")
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."
