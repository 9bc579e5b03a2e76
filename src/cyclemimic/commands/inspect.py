# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic inspect`: data sets → what is in them, and which of their episodes are broken."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemimic.commands.faults import FaultsFound
from cyclemimic.commands.flags import CAMERA, FPS
from cyclemimic.verb_parser import VerbParser

if TYPE_CHECKING:
    from cyclemimic.data import EpisodeSource
    from cyclemimic.data.checking import BrokenEpisode
    from cyclemimic.data.inspection import SourceInspection, VectorSummary

_STATISTICS = ("min", "q01", "mean", "std", "q99", "max")


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Shows what is in some data sets: episodes, frames, cameras, instructions, statistics of actions and "
        "states. Exits with code 2 if it meets a broken episode.",
    )
    parser.add_argument("data", nargs="+", metavar="DIR", help="data sets or mixtures, as of the other verbs")
    parser.add_argument("--camera", help=CAMERA)
    parser.add_argument("--fps", type=float, help=FPS)
    parser.add_argument("--check", action="store_true", help="decode every frame, and list every broken episode")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder to make, of inspect.json and contact_sheet.png"
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Looks through the data sets, and returns what was found as text.

    Raises:
        FaultsFound: with that text, if an episode is broken.
    """
    from cyclemimic.data.checking import open_readable

    opened = [open_readable(open_episodes) for open_episodes in _openers(arguments)]
    inspections = _inspect(opened, arguments.check, arguments.output)
    texts = ["\n".join(map(_printable, _describe(inspection))) for inspection in inspections]
    report = "\n\n".join([*texts, f"Saved: {arguments.output}"] if arguments.output else texts)
    num_broken = sum(len(inspection.broken) for inspection in inspections)
    if num_broken:
        num_episodes = sum(inspection.num_episodes for inspection in inspections)
        raise FaultsFound(
            f"{num_broken} of {num_episodes} episodes are broken, see the list above; replace their files, or leave them "
            "out with `--skip_broken` of the other verbs",
            report,
        )
    return report


def _openers(arguments: argparse.Namespace) -> Iterator[Callable[[Sequence[int] | None], EpisodeSource]]:
    """What opens each data set, with the episodes of some indices or with all; those of a mixture one by one."""
    from cyclemimic.commands.inputs import check_stands_in_mixture, open_episodes
    from cyclemimic.data import read_mixture
    from cyclemimic.data.mixture import is_mixture

    for path in arguments.data:
        if is_mixture(path):
            check_stands_in_mixture(arguments)
            yield from (entry.open for entry in read_mixture(path))
        else:
            yield partial(open_episodes, path, arguments.camera, arguments.fps)


def _inspect(
    opened: Sequence[tuple[EpisodeSource, list[BrokenEpisode]]], check: bool, output: Path | None
) -> list[SourceInspection]:
    """What is in some data sets, written into a folder where there is to be one."""
    from cyclemimic.data.atomic import AtomicFolder
    from cyclemimic.data.inspection import inspect_source

    if output is None:
        return [inspect_source(source, check, broken) for source, broken in opened]
    folder = AtomicFolder(output)
    # What cannot be written shall not be looked through first.
    with folder.writing() as unfinished:
        inspections = [inspect_source(source, check, broken) for source, broken in opened]
        with folder.one_line_errors():
            _write(unfinished, [source for source, _ in opened], inspections)
    return inspections


def _write(folder: Path, sources: Sequence[EpisodeSource], inspections: Sequence[SourceInspection]) -> None:
    from cyclemimic.evaluation.episode_sheet import draw_episodes

    content = [dataclasses.asdict(inspection) for inspection in inspections]
    (folder / "inspect.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    draw_episodes(sources).save(folder / "contact_sheet.png", optimize=True)


def _describe(inspection: SourceInspection) -> Iterator[str]:
    """The lines about one data set."""
    from cyclemimic.evaluation.formatting import THIN_SPACE, format_duration

    duration = format_duration(3600 * inspection.hours).replace(THIN_SPACE, " ")
    width, height = inspection.resolution or ("?", "?")
    others = [camera for camera in inspection.cameras if camera != inspection.camera]
    (shortest, fewest), (longest, most) = inspection.shortest, inspection.longest
    lengths = (
        f"{fewest} frames" if fewest == most else f"{fewest} frames (episode {shortest}) to {most} (episode {longest})"
    )
    yield inspection.name
    yield f"  episodes      {inspection.num_episodes}, of {lengths}"
    yield f"  frames        {inspection.num_frames}, {duration} at {inspection.fps:g} fps"
    yield f"  camera        {inspection.camera}, {width} x {height}" + (
        f"; also {', '.join(others)}" if others else ""
    )
    yield f"  embodiment    {inspection.embodiment}"
    yield f"  instructions  {inspection.num_instructions} distinct" + (
        f", {inspection.num_without_instruction} episodes without" if inspection.num_without_instruction else ""
    )
    yield from (f"    {count:>6} x {text}" for text, count in inspection.frequent_instructions)
    for what, summary in (("actions", inspection.actions), ("states", inspection.states)):
        yield f"  {what:<12}  {f'{len(summary.min)} dimensions' if summary else 'none'}"
        yield from _table(summary) if summary else ()
    if inspection.broken:
        yield f"  broken        {len(inspection.broken)} episodes"
        yield from (f"    episode {episode.index}: {episode.reason}" for episode in inspection.broken)


def _table(summary: VectorSummary) -> Iterator[str]:
    """A line a dimension, or several that follow each other and look the same."""
    lines = []
    for dimension, (constant, binary) in enumerate(zip(summary.constant, summary.binary, strict=True)):
        figures = "".join(f"{getattr(summary, name)[dimension]:>11.4g}" for name in _STATISTICS)
        lines.append(figures + ("  constant" if constant else "  binary" if binary else ""))
    yield " " * 11 + "".join(f"{name:>11}" for name in _STATISTICS)
    dimension = 0
    for line, same in itertools.groupby(lines):
        last = dimension + len(list(same)) - 1
        label = str(dimension) if last == dimension else f"{dimension}-{last}"
        yield f"    {label:>7}{line}"
        dimension = last + 1


def _printable(line: str) -> str:
    """What a data set says must neither steer the terminal nor stop the printing: such signs are spelt out."""
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in line)
