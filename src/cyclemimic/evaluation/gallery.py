# SPDX-License-Identifier: Apache-2.0
"""Image pairs that share one latent action across tasks or embodiments (the paper's Figure 1, supplement)."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclemimic.data.atomic import write_atomically

from .film import check_image
from .page import render_page
from .tiles import fit_image, fit_text


@dataclass(frozen=True, eq=False)
class GalleryPair:
    """Two frames of one video.

    Args:
        current (`np.ndarray` of shape `(height, width, 3)`): uint8, RGB, `o_t`.
        future (`np.ndarray` of shape `(height, width, 3)`): uint8, RGB, `o_{t+H}`.
        caption (`str`): Task or embodiment; shown as text, whatever it holds.
    """

    current: np.ndarray
    future: np.ndarray
    caption: str

    def __post_init__(self) -> None:
        check_image(self.current, "current")
        check_image(self.future, "future")
        if self.current.shape != self.future.shape:
            raise ValueError(
                f"current and future must have the same shape, got {self.current.shape} and {self.future.shape}"
            )


@dataclass(frozen=True)
class GalleryGroup:
    """Pairs that share one latent action.

    Args:
        codes (`tuple[int | None, ...]`): The latent action; `None` for a token that the pairs do not share.
        pairs (`tuple[GalleryPair, ...]`): What to show side by side.
        note (`str`, *optional*): A line beside the codes, such as how often the action is used.
    """

    codes: tuple[int | None, ...]
    pairs: tuple[GalleryPair, ...]
    note: str = ""


def write_gallery(
    path: str | os.PathLike[str],
    groups: Sequence[GalleryGroup],
    title: str = "Latent actions across tasks",
    subtitle: str = "",
    notes: Sequence[str] = (),
) -> Path:
    """Write the gallery as a page of its own, and beside it a PNG contact sheet for papers and model cards.

    Args:
        path (`str` or `os.PathLike`): The HTML file; the sheet has the same name with `.png`.
        groups (`Sequence[GalleryGroup]`): What to show.
        title (`str`, *optional*): Heading.
        subtitle (`str`, *optional*): Line below it.
        notes (`Sequence[str]`, *optional*): Remarks at the end.

    Returns:
        `Path`: The HTML file. Without a group there is no sheet.
    """
    if groups:
        buffer = io.BytesIO()
        contact_sheet(groups).save(buffer, format="PNG", optimize=True)
        write_atomically(Path(path).with_suffix(".png"), buffer.getvalue())
    page = render_page("gallery.html", groups=groups, title=title, subtitle=subtitle, notes=notes)
    return write_atomically(path, page.encode("utf-8", "replace"))


def contact_sheet(groups: Sequence[GalleryGroup], tile: int = 128) -> Image.Image:
    """Draw the groups as one picture: a row an action, each pair as current and future side by side.

    Args:
        groups (`Sequence[GalleryGroup]`): What to show; one or more.
        tile (`int`, *optional*, defaults to 128): Side of the square a frame is fitted into, pixels.

    Returns:
        `PIL.Image.Image`: RGB, on white.
    """
    columns = max((len(group.pairs) for group in groups), default=0)
    texts = ["  ".join("·" if code is None else str(code) for code in group.codes) for group in groups]
    bold, small = ImageFont.load_default(16), ImageFont.load_default(12)
    label = max([128, *(round(bold.getlength(text)) + 16 for text in texts)])
    pair_width, row_height = 2 * tile + 26, tile + 34
    sheet = Image.new("RGB", (label + columns * pair_width + 10, len(groups) * row_height + 16), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (group, text) in enumerate(zip(groups, texts, strict=True)):
        top = 14 + row * row_height
        draw.text((label / 2, top + tile / 2), text, fill="black", font=bold, anchor="mm")
        for column, pair in enumerate(group.pairs):
            left = label + column * pair_width
            for offset, image in ((0, pair.current), (tile + 2, pair.future)):
                picture = fit_image(image, tile, tile)
                corner = (left + offset + (tile - picture.width) // 2, top + (tile - picture.height) // 2)
                sheet.paste(picture, corner)
            caption = fit_text(draw, pair.caption, small, 2 * tile)
            draw.text((left, top + tile + 3), caption, fill=(90, 90, 90), font=small)
    return sheet
