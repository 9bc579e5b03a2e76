# SPDX-License-Identifier: Apache-2.0
"""Episodes at a glance: one picture with a row of frames an episode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from cyclemimic.data import DataError, Episode, EpisodeSource

from .film import strip_indices
from .tiles import fit_image, fit_text

_TILE_HEIGHT = 112
# Of panoramas no more than this is worth the room.
_MAX_TILE_WIDTH = 3 * _TILE_HEIGHT
_MARGIN, _GAP, _CAPTION_HEIGHT = 12, 3, 26


@dataclass(frozen=True)
class EpisodeStrip:
    """One row: frames of an episode, scaled already, and a line below."""

    frames: tuple[Image.Image, ...]
    caption: str


def draw_episodes(sources: Iterable[EpisodeSource], num_episodes: int = 6, num_frames: int = 8) -> Image.Image:
    """Draw some frames of some episodes of every data set; only those frames are decoded.

    Args:
        sources (`Iterable[EpisodeSource]`): Data sets; one or more.
        num_episodes (`int`, *optional*, defaults to 6): Rows a data set: evenly chosen episodes, first and last included.
        num_frames (`int`, *optional*, defaults to 8): Columns: evenly spaced frames, first and last included.

    Returns:
        `PIL.Image.Image`: RGB, on white. A row whose frames do not decode says so.
    """
    strips = [
        _strip(source[index], num_frames) for source in sources for index in strip_indices(len(source), num_episodes)
    ]
    return _draw(strips)


def _strip(episode: Episode, num_frames: int) -> EpisodeStrip:
    frames = []
    caption = (
        f"{episode.source} {episode.index}: {episode.num_frames} frames, {episode.num_frames / episode.fps:.3g} s"
    )
    try:
        if episode.instruction:
            caption = f"{caption}, {episode.instruction}"
        for frame in episode.iter_frames(strip_indices(episode.num_frames, num_frames)):
            frames.append(fit_image(frame, _MAX_TILE_WIDTH, _TILE_HEIGHT))
    except DataError:
        caption = f"does not decode: {caption}"
    return EpisodeStrip(tuple(frames), caption)


def _draw(strips: Sequence[EpisodeStrip]) -> Image.Image:
    widths = [sum(frame.width + _GAP for frame in strip.frames) for strip in strips]
    width = max(320, *widths) + 2 * _MARGIN
    row_height = _TILE_HEIGHT + _CAPTION_HEIGHT
    sheet = Image.new("RGB", (width, len(strips) * row_height + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for row, strip in enumerate(strips):
        left, top = _MARGIN, _MARGIN + row * row_height
        for frame in strip.frames:
            sheet.paste(frame, (left, top + (_TILE_HEIGHT - frame.height) // 2))
            left += frame.width + _GAP
        caption = fit_text(draw, strip.caption, font, width - 2 * _MARGIN)
        draw.text((_MARGIN, top + _TILE_HEIGHT + 3), caption, fill=(90, 90, 90), font=font)
    return sheet
