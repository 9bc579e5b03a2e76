# SPDX-License-Identifier: Apache-2.0
"""Texts beside video files: which parts of them are episodes, and what is done there (Ego4D's narrations, for one)."""

from __future__ import annotations

import csv
import html
import io
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..episode import DataError
from .plain_files import inside

logger = logging.getLogger(__name__)

_TABLES = ("clips.csv", "clips.jsonl")
_COLUMNS = ("file", "text", "start_s", "end_s")
_TIME = r"(?:(\d{1,6}):)?(\d\d):(\d\d\.\d{3})"
_CUE = re.compile(rf"{_TIME}[ \t]+-->[ \t]+{_TIME}(?:[ \t].*)?")


class Clip(NamedTuple):
    """A part of a video file; until the file's end where `end_s` is `None`. `where` is the line that names it."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None
    text: str | None = None
    where: str = ""


def read_clips(root: Path, files: Sequence[Path], are_all: bool = True) -> list[Clip]:
    """Find the clips of some video files.

    A table, `clips.csv` or `clips.jsonl` in the folder, has a row a clip: `file`, relative to the folder, `text`, and
    `start_s` and `end_s` in seconds from where the file begins, where it is not the whole; files without a row are left out. Or a file has a
    WebVTT file of its name beside it, whose cues are its clips. All others are one clip without text.

    Args:
        root (`Path`): Folder of the files, or the one file.
        files (`Sequence[Path]`): The files.
        are_all (`bool`, *optional*, defaults to `True`): They are all files of the folder. Otherwise rows of others are
            passed over.

    Raises:
        DataError: If there are texts of both kinds, or one does not fit; with file and line.
    """
    tables = [root / name for name in _TABLES if root.is_dir() and (root / name).exists()]
    cues = {path: path.with_suffix(".vtt") for path in files if path.with_suffix(".vtt").exists()}
    if len(tables) + bool(cues) > 1:
        found = [path.name for path in [*tables, *list(cues.values())[:1]]]
        raise DataError(f"{root} holds texts of more than one kind, {found}; keep one")
    if tables:
        return _read_table(root, tables[0], files, are_all)
    return [clip for path in files for clip in (_read_cues(root, path, cues[path]) if path in cues else [Clip(path)])]


def _read_table(root: Path, table: Path, files: Sequence[Path], are_all: bool) -> list[Clip]:
    by_name = {path.relative_to(root).as_posix(): path for path in files}
    rows = _csv_rows if table.suffix == ".csv" else _jsonl_rows
    clips: list[Clip] = []
    lines: dict[Clip, str] = {}
    for row, where in rows(_read_text(root, table), table):
        if not are_all and isinstance(row.get("file"), str) and row["file"] not in by_name:
            continue
        clip = _clip_of(row, by_name, where)
        first = lines.setdefault(clip._replace(where=""), where)
        if first != where:
            raise DataError(f"{where}: says the same as {first.removeprefix(f'{table}, ')}; remove one")
        clips.append(clip)
    if not clips:
        raise DataError(f"{table} names no clip; remove it, or add rows")
    left_out = set(files) - {clip.path for clip in clips}
    if left_out:
        logger.info("%s: %d of %d files have no row, and are left out", table, len(left_out), len(files))
    return clips


def _csv_rows(text: str, table: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = list(reader.fieldnames or ())
        if len(set(names)) < len(names):
            raise DataError(f"{table}, line 1: names a column twice, got {_short(names)}")
        for row in reader:
            where = f"{table}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{where}: must have {len(names)} columns, as the first line has")
            yield {key: value or None for key, value in row.items()}, where
    except csv.Error as error:
        raise DataError(f"{table}, line {reader.line_num}: is not CSV ({error})") from error


def _jsonl_rows(text: str, table: Path) -> Iterator[tuple[Mapping[str, Any], str]]:
    # Not `splitlines`: a text may hold characters, such as U+2028, that end a line to Python but not to JSON.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{table}, line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: is not JSON ({error})") from error
            if not isinstance(row, dict):
                raise DataError(f"{where}: must be an object, got {type(row).__name__}")
            yield row, where


def _clip_of(row: Mapping[str, Any], by_name: Mapping[str, Path], where: str) -> Clip:
    unknown = set(row) - set(_COLUMNS)
    if unknown or not {"file", "text"} <= set(row):
        raise DataError(
            f"{where}: must have file and text, and may have start_s and end_s, got {_short(sorted(map(str, row)))}"
        )
    if not isinstance(row["file"], str) or row["file"] not in by_name:
        raise DataError(f"{where}: {_short(row['file'])} is no video file of the folder")
    if not isinstance(row["text"], str | None):
        raise DataError(f"{where}: text must be text, got {_short(row['text'])}")
    text = " ".join((row["text"] or "").split()) or None
    # JSON can write half a character, which no file can keep.
    if text is not None and not _is_unicode(text):
        raise DataError(f"{where}: text must be Unicode, got {_short(text)}")
    whole = Clip(by_name[row["file"]], text=text, where=where)
    start_s, end_s = (row.get(key) for key in ("start_s", "end_s"))
    if start_s is None and end_s is None:
        return whole
    return _checked(whole._replace(start_s=_seconds(start_s, where), end_s=_seconds(end_s, where)))


def _seconds(value: Any, where: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError("bool")
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: start_s and end_s must both be numbers, or both be left out, got {_short(value)}"
        ) from None
    if not math.isfinite(seconds) or seconds < 0:
        raise DataError(f"{where}: start_s and end_s must be at least 0, got {_short(value)}")
    return seconds


def _checked(clip: Clip) -> Clip:
    if clip.end_s is not None and not clip.start_s < clip.end_s:
        raise DataError(f"{clip.where}: the clip must end after it starts, got {clip.start_s:g} to {clip.end_s:g} s")
    return clip


def _read_cues(root: Path, video: Path, path: Path) -> list[Clip]:
    lines = _read_text(root if root.is_dir() else root.parent, path).split("\n")
    if re.fullmatch(r"WEBVTT(?:[ \t].*)?", lines[0]) is None:
        raise DataError(f"{path} is no WebVTT: its first line must be WEBVTT")
    clips, number = [], 1
    while number < len(lines):
        if "-->" not in lines[number]:
            # Comments, styles and the names of cues: whatever stands up to the next blank line or time.
            number += 1
            continue
        where, match = f"{path}, line {number + 1}", _CUE.fullmatch(lines[number].strip())
        if match is None:
            raise DataError(
                f"{where}: {lines[number][:80]!r} is no time as WebVTT has it, 00:01:02.000 --> 00:01:04.000"
            )
        start_s, end_s = (_to_seconds(*match.groups()[i : i + 3]) for i in (0, 3))
        words = []
        while (number := number + 1) < len(lines) and lines[number].strip():
            words.append(lines[number])
        text = " ".join(html.unescape(re.sub(r"<[^>]*>", "", " ".join(words))).split())
        if text:
            clips.append(_checked(Clip(video, start_s, end_s, text, where)))
    if not clips:
        raise DataError(f"{path} holds no cue with a text; remove it, or write some")
    return clips


def _to_seconds(hours: str | None, minutes: str, seconds: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + float(seconds)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _short(value: Any) -> str:
    """The value as messages show it: in one line, of bounded length."""
    try:
        return repr(value)[:200]
    # An integer with more digits than Python writes.
    except ValueError:
        return "a very long number"


def _read_text(root: Path, path: Path) -> str:
    try:
        # With or without the mark that some programs put first.
        return inside(root, path.relative_to(root)).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}); save it as such") from error
    except OSError as error:
        raise DataError(f"{path} does not open ({error.strerror or error})") from error
