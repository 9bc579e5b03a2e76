# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from cyclemimic.data import atomic
from cyclemimic.evaluation.charts import Series
from cyclemimic.evaluation.gallery import GalleryGroup, GalleryPair
from cyclemimic.evaluation.intervals import wilson_interval
from cyclemimic.evaluation.report import (
    SECTIONS,
    Clip,
    CurveGroup,
    DemoReport,
    Headline,
    Provenance,
    ReconstructionRow,
    StageTiming,
    write_report,
)
from cyclemimic.evaluation.success_table import SuccessCell, SuccessRow, SuccessTable

ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Collects attributes and text, and fails where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, name: str) -> list[str]:
        return [value for _, attribute, value in self.attributes if attribute == name]


def image(seed: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def cell(successes: int, trials: int = 20) -> SuccessCell:
    return SuccessCell(successes, trials, *wilson_interval(successes, trials))


def full_report(text: str = "open the drawer", num_clips: int = 2, size: int = 16, num_frames: int = 10) -> DemoReport:
    table = SuccessTable(
        tasks=(text, "reach"),
        rows=(
            SuccessRow("CycleMimic", {text: cell(18), "reach": cell(20)}, cell(38, 40)),
            SuccessRow("random", {text: cell(0)}),
        ),
    )
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (num_frames, size, size, 3), dtype=np.uint8)
    pair = GalleryPair(image(0), image(1), text)
    return DemoReport(
        title=text,
        subtitle=text,
        provenance=Provenance("22 November 2026", 7, text, 725.0, 5_812_000_000, {text: "0.1.0"}, text),
        headlines=(Headline("mean success", "95 %", text), Headline("perplexity", 9.4213)),
        success=table,
        clips=tuple(Clip(text, i % 2 == 0, frames, 20, text) for i in range(num_clips)),
        gallery=(GalleryGroup((3, 12, 0, None), (pair, pair), text),),
        gallery_note=text,
        reconstructions=(
            ReconstructionRow(image(0), image(1), image(2), image(3), image(4), (1, 2, 3, 4), text),
            ReconstructionRow(image(0), image(1), image(2)),
        ),
        curves=(
            CurveGroup(text, (Series(text, [0, 1, 2], [1.0, float("nan"), 0.5]), Series("b", [], [])), text, True),
            CurveGroup("nothing", (Series("empty", [], []),)),
            CurveGroup("no series", ()),
        ),
        timing=(StageTiming("record", 60.0, text), StageTiming("train", 240.0), StageTiming("?", float("nan"))),
        notes=(text,),
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[str, Page]:
    path = write_report(tmp_path_factory.mktemp("report") / "report.html", full_report())
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_page_asks_the_network_for_nothing(written):
    text, parsed = written
    for name in ("src", "poster", "srcset", "data"):
        assert all(value.startswith("data:") for value in parsed.values(name))
    assert all(value.startswith("#") for value in parsed.values("href"))
    assert len(parsed.values("src")) > 20
    without_data = re.sub(r"data:[a-z]+/[a-z0-9]+;base64,[A-Za-z0-9+/=]+", "", text)
    for reference in ("http:", "https:", "//", "@import", "url(", "<link", "<iframe"):
        assert reference not in without_data
    (policy,) = [value for value in parsed.values("content") if "default-src" in value]
    assert "default-src 'none'" in policy and "unsafe-eval" not in policy


def test_every_section_has_a_target_in_the_navigation(written):
    _, parsed = written
    assert parsed.values("href") == [f"#{name}" for name in SECTIONS]
    assert [value for tag, name, value in parsed.attributes if tag == "section" and name == "id"] == list(SECTIONS)


def test_figures_are_formatted(written):
    _, parsed = written
    for expected in ("9.42", "90 %", "18/20", "70 to 97 %", "12 min 05 s", "5.8 GB"):
        assert expected in parsed.text
    assert "nan" not in parsed.text.lower().split()


def test_clips_loop_muted_with_controls_and_a_poster(written):
    _, parsed = written
    videos = [(name, value) for tag, name, value in parsed.attributes if tag == "video"]
    names = [name for name, _ in videos]
    for name in ("controls", "loop", "muted", "playsinline", "poster"):
        assert names.count(name) == 2
    assert all(value.startswith("data:video/mp4;base64,") for name, value in videos if name == "src")


def test_codes_are_shown_with_a_sign_for_what_is_not_shared(written):
    _, parsed = written
    assert "latent action 3 12 0 · " in parsed.values("aria-label")


def test_interval_bar_of_eighteen_of_twenty(written):
    # Worked by hand: centre (0.9 + 1.9208/20) / (1 + 3.8416/20) = 0.8355, half width 0.1365.
    bar = cell(18).bar
    assert (bar.left, bar.left + bar.width, bar.dot) == pytest.approx((69.90, 97.21, 90.0), abs=0.01)
    styles = written[1].values("style")
    assert f"left:{bar.left}%;width:{bar.width}%" in styles and "left:90.0%" in styles


@pytest.mark.parametrize("successes", [0, 20])
def test_interval_bar_stays_inside_at_the_ends(successes):
    bar = cell(successes).bar
    assert 0 <= bar.left <= bar.dot <= bar.left + bar.width + 1e-6 <= 100 + 2e-6


@pytest.mark.parametrize("arguments", [(21, 20, 0, 1), (0, 0, 0, 1), (10, 20, 0.6, 0.9), (10, 20, 0.2, 1.5)])
def test_impossible_cells_are_refused(arguments):
    with pytest.raises(ValueError):
        SuccessCell(*arguments)


def test_sections_without_data_are_left_out_or_explained(tmp_path):
    report = DemoReport(
        "Title", Provenance("today", 0, "laptop", 1.0), missing={"success": "No simulator & no rollout."}
    )
    text = write_report(tmp_path / "report.html", report).read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.values("href") == ["#success"]
    assert "No simulator & no rollout." in parsed.text
    assert "<table" not in text and "<video" not in text and "<svg" not in text


def test_a_reason_gives_way_to_data(tmp_path):
    report = dataclasses.replace(full_report(), missing={"notes": "There are none."})
    assert "There are none." not in write_report(tmp_path / "r.html", report).read_text(encoding="utf-8")


def test_unknown_section_is_named():
    with pytest.raises(ValueError, match="missing must name sections among success, .*; got rollouts"):
        DemoReport("Title", Provenance("today", 0, "laptop", 1.0), missing={"rollouts": "none"})


def test_text_is_never_markup(tmp_path):
    text = write_report(tmp_path / "report.html", full_report(ATTACK)).read_text(encoding="utf-8")
    parsed = Page(text)
    assert text.count("<script>") == 1 and "<img src=x" not in text
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)
    assert parsed.text.count("alert(1)") > 10


def test_text_that_is_no_unicode_does_not_stop_the_report(tmp_path):
    assert write_report(tmp_path / "report.html", full_report("broken \udcff bytes")).stat().st_size > 0


def test_rows_without_a_transfer_have_no_column_for_it(tmp_path):
    report = dataclasses.replace(full_report(), reconstructions=full_report().reconstructions[1:])
    text = write_report(tmp_path / "report.html", report).read_text(encoding="utf-8")
    assert "another scene" not in Page(text).text


def test_records_check_their_pictures():
    with pytest.raises(ValueError, match="reconstructed must be a uint8 array"):
        ReconstructionRow(image(0), image(1), image(2).astype(np.float32))
    with pytest.raises(ValueError, match="given together"):
        ReconstructionRow(image(0), image(1), image(2), transferred=image(3))
    with pytest.raises(ValueError, match="a frame or more"):
        Clip("reach", True, np.zeros((0, 8, 8, 3), np.uint8))


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    write_report(path, full_report())
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_report(path, full_report("another"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_twelve_clips_would_stay_under_fifteen_megabytes(tmp_path):
    # Two of them, times six. Smooth pictures in motion: noise in every pixel would measure the noise.
    ramp = np.linspace(0, 255, 128)
    frames = np.stack([np.roll(np.add.outer(ramp, ramp) / 2, 2 * step, axis=1) for step in range(100)])
    frames = np.repeat(frames.astype(np.uint8)[..., None], 3, axis=-1)
    clips = tuple(Clip("reach", True, frames[:, :, ::direction]) for direction in (1, -1))
    report = DemoReport("Title", Provenance("today", 0, "laptop", 1.0), clips=clips)
    assert write_report(tmp_path / "report.html", report).stat().st_size * 6 < 15e6
