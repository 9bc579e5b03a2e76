# SPDX-License-Identifier: Apache-2.0
"""The demo's report: one HTML file that opens offline, for people who look rather than read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import numpy as np

from cyclemimic.data.atomic import write_atomically

from .charts import Series
from .film import check_clip, check_image
from .gallery import GalleryGroup
from .page import render_page
from .success_table import SuccessTable

# In the order of the page; the keys of `DemoReport.missing`.
SECTIONS = ("success", "clips", "gallery", "reconstructions", "curves", "timing", "notes")


@dataclass(frozen=True)
class Headline:
    """A figure at the top of the page.

    Args:
        label (`str`): What it is.
        value (`float`, `int` or `str`): The figure; numbers are formatted, text is shown as it is.
        detail (`str`, *optional*): A small line below, such as an interval.
    """

    label: str
    value: float | int | str
    detail: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where the figures come from.

    Args:
        date (`str`): When the run ended, as it should be read.
        seed (`int`): Seed of the run.
        hardware (`str`): Machine.
        seconds (`float`): Time the run took.
        peak_memory_bytes (`int`, *optional*): Peak resident memory of the run.
        versions (`Mapping[str, str]`, *optional*): Package to version.
        command (`str`, *optional*): The command that makes this report again.
    """

    date: str
    seed: int
    hardware: str
    seconds: float
    peak_memory_bytes: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class CurveGroup:
    """One chart.

    Args:
        title (`str`): Name of the chart.
        series (`tuple[Series, ...]`): Its lines, up to six in distinct colours.
        description (`str`, *optional*): What to look for.
        log_scale (`bool`, *optional*, defaults to `False`): Whether the vertical axis is logarithmic.
        x_label (`str`, *optional*, defaults to `"step"`): Name of the horizontal axis.
    """

    title: str
    series: tuple[Series, ...]
    description: str = ""
    log_scale: bool = False
    x_label: str = "step"


@dataclass(frozen=True, eq=False)
class ReconstructionRow:
    """One transition, and the same latent action in another scene. Pictures are uint8 `(height, width, 3)`.

    Args:
        current (`np.ndarray`): `o_t`.
        future (`np.ndarray`): `o_{t+H}`, the real one.
        reconstructed (`np.ndarray`): `D(o_t, z)`, with `z = E(o_t, o_{t+H})`.
        transfer_current (`np.ndarray`, *optional*): `o_c`, a frame of another scene.
        transferred (`np.ndarray`, *optional*): `D(o_c, z)`.
        codes (`tuple[int, ...]`, *optional*): Codes of `z`.
        caption (`str`, *optional*): Tasks or scenes of the row.
    """

    current: np.ndarray
    future: np.ndarray
    reconstructed: np.ndarray
    transfer_current: np.ndarray | None = None
    transferred: np.ndarray | None = None
    codes: tuple[int, ...] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        for name in ("current", "future", "reconstructed", "transfer_current", "transferred"):
            if (picture := getattr(self, name)) is not None:
                check_image(picture, name)
        if (self.transfer_current is None) != (self.transferred is None):
            raise ValueError("transfer_current and transferred must be given together or not at all")


@dataclass(frozen=True, eq=False)
class Clip:
    """A rollout as filmed.

    Args:
        task (`str`): Task or instruction; clips of one task stand together.
        success (`bool`): Whether the rollout reached its goal.
        frames (`np.ndarray` of shape `(num_frames, height, width, 3)`): uint8, RGB.
        fps (`float`, *optional*, defaults to 20): Frames a second it is played at.
        caption (`str`, *optional*): For example the initial state.
        num_steps (`int`, *optional*): Steps between the first frame and the last; by default a step a frame.
    """

    task: str
    success: bool
    frames: np.ndarray
    fps: float = 20.0
    caption: str = ""
    num_steps: int | None = None

    def __post_init__(self) -> None:
        check_clip(self.frames, self.fps)

    def step_of(self, index: int) -> int:
        """How many steps had been taken at a frame."""
        last = max(1, len(self.frames) - 1)
        return round(index * (last if self.num_steps is None else self.num_steps) / last)


@dataclass(frozen=True)
class StageTiming:
    """How long a stage took; `detail` says on what, such as `"1 200 steps"` or `"found done"`."""

    name: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True, eq=False)
class DemoReport:
    """Everything the report shows. A section without data is left out.

    Args:
        title (`str`): Heading.
        provenance ([`Provenance`]): Where the figures come from.
        subtitle (`str`, *optional*): One or two sentences: what was done.
        headlines (`tuple[Headline, ...]`, *optional*): Figures at the top.
        success ([`SuccessTable`], *optional*): Success rates.
        clips (`Sequence[Clip]`, *optional*): Rollouts, those of one task in a row. Each is asked for once: films that are loaded
            then are not all in memory together.
        gallery (`tuple[GalleryGroup, ...]`, *optional*): Pairs that share a latent action.
        gallery_note (`str`, *optional*): How the pairs were chosen.
        reconstructions (`tuple[ReconstructionRow, ...]`, *optional*): What the tokenizer generates.
        curves (`tuple[CurveGroup, ...]`, *optional*): Loss curves.
        timing (`tuple[StageTiming, ...]`, *optional*): Stages in their order.
        notes (`tuple[str, ...]`, *optional*): Honest remarks: what falls short, what was not measured.
        missing (`Mapping[str, str]`, *optional*): Section (one of `SECTIONS`) to the sentence that says why it has no
            data; shown in its place.
    """

    title: str
    provenance: Provenance
    subtitle: str = ""
    headlines: tuple[Headline, ...] = ()
    success: SuccessTable | None = None
    clips: Sequence[Clip] = ()
    gallery: tuple[GalleryGroup, ...] = ()
    gallery_note: str = ""
    reconstructions: tuple[ReconstructionRow, ...] = ()
    curves: tuple[CurveGroup, ...] = ()
    timing: tuple[StageTiming, ...] = ()
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.missing) - set(SECTIONS)):
            raise ValueError(f"missing must name sections among {', '.join(SECTIONS)}; got {', '.join(unknown)}")


def write_report(path: str | os.PathLike[str], report: DemoReport) -> Path:
    """Write the report as one HTML file: pictures, clips and styles inside, nothing asked of the network.

    Args:
        path (`str` or `os.PathLike`): The file; it appears whole or not at all.
        report ([`DemoReport`]): What to show. All text in it is shown as text, never read as markup.

    Returns:
        `Path`: The file.
    """
    # Sections in the page's order: what has data, then the sentence where it has none but a reason.
    shown = [name for name in SECTIONS if getattr(report, name) or name in report.missing]
    longest = max((stage.seconds for stage in report.timing if math.isfinite(stage.seconds)), default=0.0)
    clips = groupby(report.clips, key=attrgetter("task"))
    page = render_page("report.html", report=report, shown=shown, clips=clips, longest_stage=longest)
    return write_atomically(path, page.encode("utf-8", "replace"))
