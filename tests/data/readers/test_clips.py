# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
import pytest

from cyclemimic.data import DataError, VideoFileSource, encode_video
from cyclemimic.data.instructions import instructions_of

from ..conftest import make_frames, read_frame_numbers
from .test_video_files import write_video

VTT = """\ufeffWEBVTT - narration

STYLE
::cue { color: red }

NOTE the first cue has a name

intro
00:00.500 --> 00:01.000 align:start
<v Ann>picks up <i>the cup</i>
&amp; looks

00:00:01.200 --> 00:00:09.000
puts it down

00:01.500 --> 00:01.800

"""


@pytest.fixture
def films(tmp_path):
    """Two films of 2 seconds at 10 frames a second."""
    for index, name in enumerate(["a.mp4", "more/b.mkv"]):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encode_video(path, make_frames(20, 10 * index), fps=10)
    return tmp_path / "films"


def rows(source):
    return [
        (e.attributes["file"], round(e.attributes["start_s"], 3), round(e.attributes["end_s"], 3), e.instruction)
        for e in source
    ]


def write_table(folder, kind, entries):
    if kind == "csv":
        lines = ["file,text,start_s,end_s", *(",".join(map(str, entry)) for entry in entries)]
    else:
        keys = ("file", "text", "start_s", "end_s")
        lines = [json.dumps({key: value for key, value in zip(keys, entry) if value != ""}) for entry in entries]
    (folder / f"clips.{kind}").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_names_parts_of_files(films, kind):
    write_table(
        films, kind, [("more/b.mkv", "push", 0.5, 1.5), ("more/b.mkv", "pull", 1.5, 60), ("a.mp4", "look", "", "")]
    )
    source = VideoFileSource(films)
    assert rows(source) == [
        ("more/b.mkv", 0.5, 1.5, "push"),
        ("more/b.mkv", 1.5, 2.0, "pull"),
        ("a.mp4", 0.0, 2.0, "look"),
    ]
    assert [episode.num_frames for episode in source] == [10, 5, 20]
    assert read_frame_numbers(source[0].read_frames()) == list(range(15, 25))
    assert [episode.index for episode in VideoFileSource(films, episodes=[2, 0])] == [2, 0]


def test_frames_of_a_clip_are_those_of_the_file(films):
    whole = VideoFileSource(films, fps=20)[0].read_frames()
    write_table(films, "csv", [("a.mp4", "look", 0.7, 1.3)])
    clip = VideoFileSource(films, fps=20)[0]
    np.testing.assert_array_equal(clip.read_frames(), whole[14:26])
    np.testing.assert_array_equal(clip.read_frames([11, 3]), whole[[25, 17]])


def test_files_without_a_row_are_left_out_and_counted(films, caplog):
    write_table(films, "jsonl", [("a.mp4", "look", "", "")])
    with caplog.at_level("INFO"):
        assert len(VideoFileSource(films)) == 1
    assert "1 of 2 files have no row" in caplog.text


def test_webvtt_beside_a_file(films):
    (films / "a.vtt").write_text(VTT, encoding="utf-8")
    assert rows(VideoFileSource(films)) == [
        ("a.mp4", 0.5, 1.0, "picks up the cup & looks"),
        ("a.mp4", 1.2, 2.0, "puts it down"),
        ("more/b.mkv", 0.0, 2.0, None),
    ]
    assert rows(VideoFileSource(films / "a.mp4"))[0] == ("a.mp4", 0.5, 1.0, "picks up the cup & looks")


def test_text_with_commas_quotes_and_lines(films):
    (films / "clips.csv").write_text('file,text\r\na.mp4,"takes ""it"", then\r\nleaves"\r\n', newline="")
    assert VideoFileSource(films)[0].instruction == 'takes "it", then leaves'


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("clips.csv", "file\na.mp4\n", r"clips.csv, line 2: must have file and text.*got \['file'\]"),
        ("clips.csv", "file,text,who\na.mp4,x,y\n", "clips.csv, line 2: must have file and text"),
        ("clips.csv", "file,text\na.mp4\n", "clips.csv, line 2: must have 2 columns"),
        ("clips.csv", "file,text\na.mp4,x,y\n", "clips.csv, line 2: must have 2 columns"),
        ("clips.csv", 'file,text\na.mp4,"x\n', "is not CSV"),
        ("clips.csv", "file,text\n", "names no clip"),
        ("clips.csv", "file,text\nc.mp4,x\n", "line 2: 'c.mp4' is no video file of the folder"),
        ("clips.csv", "file,text\n../a.mp4,x\n", "line 2: '../a.mp4' is no video file of the folder"),
        ("clips.csv", "file,text,start_s,end_s\na.mp4,x,1,\n", "must both be numbers, or both be left out, got None"),
        ("clips.csv", "file,text,start_s,end_s\na.mp4,x,one,2\n", "must both be numbers.*got 'one'"),
        ("clips.csv", "file,text,start_s,end_s\na.mp4,x,nan,2\n", "must be at least 0, got 'nan'"),
        ("clips.csv", "file,text,start_s,end_s\na.mp4,x,-1,2\n", "must be at least 0, got '-1'"),
        ("clips.csv", "file,text,start_s,end_s\na.mp4,x,1,1\n", "must end after it starts, got 1 to 1 s"),
        ("clips.csv", "file,text,start_s,end_s\na.mp4,x,5,6\n", "is 2 s long, but a clip starts at 5 s"),
        ("clips.csv", "file,text,start_s,end_s\na.mp4,x,2,3\n", "is 2 s long, but a clip starts at 2 s"),
        ("clips.jsonl", "{\n", "clips.jsonl, line 1: is not JSON"),
        ("clips.jsonl", "\n[1]\n", "clips.jsonl, line 2: must be an object, got list"),
        ("clips.jsonl", '{"file": ["a"], "text": "x"}\n', "line 1: .* is no video file of the folder"),
        ("clips.jsonl", '{"file": "a.mp4", "text": 3}\n', "text must be text, got 3"),
        ("clips.jsonl", '{"file": "a.mp4", "text": "x", "start_s": true, "end_s": 2}\n', "got True"),
        ("clips.csv", "file,text\na.mp4,x\nmore/b.mkv,x\na.mp4, x\n", "line 4: says the same as line 2"),
        ("clips.csv", "file,text,text\na.mp4,x,y\n", "line 1: names a column twice"),
        ("clips.csv", "file,text,start_s,end_s\na.mp4,x,0,1\na.mp4,x,5,6\n", "clips.csv, line 3: .*starts at 5 s"),
        ("clips.jsonl", '{"file": "a.mp4", "text": "\\ud800"}\n', r"line 1: text must be Unicode, got '.ud800'"),
        ("clips.jsonl", f'{{"file": "a.mp4", "text": "x", "start_s": {"9" * 400}, "end_s": 2}}\n', "be numbers"),
        ("clips.jsonl", f'{{"file": "a.mp4", "text": {[1] * 9999}}}\n', "text must be text"),
        ("a.vtt", f"WEBVTT\n\n{'9' * 5000}:00:00.000 --> 00:01.000\nx\n", "a.vtt, line 3: '9+' is no time"),
        ("a.vtt", "WEBVTT\n\n00:05.000 --> 00:06.000\nx\n", "a.vtt, line 3: .*starts at 5 s"),
        ("a.vtt", "00:00.000 --> 00:01.000\nx\n", "is no WebVTT"),
        ("a.vtt", "WEBVTT\n\n0 --> 1\nx\n", "a.vtt, line 3: '0 --> 1' is no time as WebVTT has it"),
        ("a.vtt", "WEBVTT\n\n00:02.000 --> 00:01.000\nx\n", "a.vtt, line 3: the clip must end after it starts"),
        ("a.vtt", "WEBVTT\n", "holds no cue with a text"),
    ],
)
def test_texts_that_do_not_fit_are_one_line(films, name, text, message):
    (films / name).write_text(text)
    with pytest.raises(DataError, match=message) as error:
        VideoFileSource(films)
    assert "\n" not in str(error.value) and len(str(error.value)) < 800


def test_characters_that_end_a_line_to_python_alone_are_text(films):
    (films / "clips.jsonl").write_text('{"file": "a.mp4", "text": "one\u2028two"}\n', encoding="utf-8")
    assert VideoFileSource(films)[0].instruction == "one two"


def test_a_clip_of_a_varying_rate_is_that_part_of_the_file(tmp_path):
    """Frames are shown for 1, 2, 3 … thirtieths; the clip starts while one is on the screen."""
    ticks = np.cumsum([0, *range(1, 12)])
    write_video(tmp_path / "phone.mp4", make_frames(12), ticks.tolist(), crf="8", bf="0")
    whole = VideoFileSource(tmp_path, fps=30)[0].read_frames()
    write_table(tmp_path, "csv", [("phone.mp4", "look", 0.5, 1.5)])
    clip = VideoFileSource(tmp_path, fps=30)[0]
    shown = clip.read_frames()
    np.testing.assert_array_equal(shown, whole[15:45])
    expected = np.searchsorted(ticks, np.arange(15, 45), side="right") - 1
    assert read_frame_numbers(shown) == expected.tolist()


def test_rows_of_files_that_a_pattern_does_not_choose_are_passed_over(films):
    write_table(films, "csv", [("more/b.mkv", "push", 0.5, 1.5), ("a.mp4", "look", "", "")])
    assert rows(VideoFileSource(films / "*.mp4")) == [("a.mp4", 0.0, 2.0, "look")]


def test_text_that_is_no_utf8_is_one_line(films):
    (films / "clips.csv").write_bytes(b"file,text\na.mp4,\xff\n")
    with pytest.raises(DataError, match="clips.csv is not UTF-8 text"):
        VideoFileSource(films)


def test_two_kinds_of_text_are_not_guessed_between(films):
    write_table(films, "csv", [("a.mp4", "x", "", "")])
    (films / "a.vtt").write_text(VTT, encoding="utf-8")
    with pytest.raises(DataError, match=r"texts of more than one kind, \['clips.csv', 'a.vtt'\]; keep one"):
        VideoFileSource(films)


def test_a_table_that_links_out_of_the_folder_is_refused(films, tmp_path):
    (tmp_path / "secret.csv").write_text("file,text\na.mp4,x\n")
    (films / "clips.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(DataError, match="leads outside"):
        VideoFileSource(films)


def test_a_place_names_the_clip_whatever_its_index(films):
    before = {episode.index: episode.place for episode in VideoFileSource(films)}
    assert before == {0: "a.mp4#t=0,2", 1: "more/b.mkv#t=0,2"}
    write_table(films, "csv", [("more/b.mkv", "push", 0.5, 1.5), ("a.mp4", "look", "", "")])
    assert [episode.place for episode in VideoFileSource(films)] == ["more/b.mkv#t=0.5,1.5", "a.mp4#t=0,2"]


def test_films_without_words_are_named_with_what_to_do(films):
    with pytest.raises(
        DataError,
        match=r"films: 2 episodes have no instruction, episode 0 \(a\.mp4#t=0,2\) first; .* write a table `clips.csv`",
    ):
        instructions_of([VideoFileSource(films)])
