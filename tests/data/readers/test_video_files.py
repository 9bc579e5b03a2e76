# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import re
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from cyclemimic.data import DataError, FramePairDataset, VideoFileSource, encode_video, open_source

from ..conftest import make_frames, read_frame_numbers


def write_video(path, frames, ticks, codec="libx264", rate=30, **options):
    """A video whose frame `i` is shown from `ticks[i]` thirtieths of a second on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for image, tick in zip(frames, ticks, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def own_priority():
    """Of root, SVT-AV1 makes the thread that encodes real-time for good: all else on the machine would wait for this process."""
    before = (os.sched_getscheduler(0), os.sched_getparam(0)) if sys.platform == "linux" else None
    yield
    if before is not None:
        os.sched_setscheduler(0, *before)


@pytest.fixture
def root(tmp_path):
    """Two films of 2 seconds, 10 and 20 frames a second, and a file that is no video."""
    (tmp_path / "more").mkdir()
    encode_video(tmp_path / "a.mp4", make_frames(20), fps=10)
    encode_video(tmp_path / "more" / "b.mp4", make_frames(40), fps=20)
    (tmp_path / "notes.txt").write_text("filmed on Monday")
    return tmp_path


def test_each_file_is_an_episode_at_the_lowest_rate(root):
    source = open_source(root)
    assert isinstance(source, VideoFileSource) and source.fps == 10.0
    first, second = source
    assert (first.attributes["file"], second.attributes["file"]) == ("a.mp4", "more/b.mp4")
    assert first.num_frames == second.num_frames == 20
    assert read_frame_numbers(first.read_frames()) == list(range(20))
    assert read_frame_numbers(second.read_frames()) == list(range(0, 40, 2))
    assert first.instruction is first.actions is first.states is None


def test_the_rate_may_be_given(root):
    source = open_source(root, fps=40, embodiment="human", name="films", episodes=[0])
    assert (source.name, source.embodiment, len(source), source[0].num_frames) == ("films", "human", 1, 80)
    # Each of the ten frames a second is on the screen for four looks.
    assert read_frame_numbers(source[0].read_frames()) == [number for number in range(20) for _ in range(4)]


def test_one_file_is_a_source_too(root):
    source = open_source(root / "more" / "b.mp4")
    assert (source.name, len(source), source.fps, source[0].attributes["file"]) == ("b", 1, 20.0, "b.mp4")


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("*.mp4", ["a.mp4"]),
        ("*/?.mp4", ["more/b.mp4"]),
        ("**/[ab].mp4", ["a.mp4", "more/b.mp4"]),
        ("*", ["a.mp4"]),
    ],
)
def test_a_pattern_chooses_files(root, pattern, files):
    source = open_source(f"{root}/{pattern}")
    assert [episode.attributes["file"] for episode in source] == files
    assert source.name == root.name


def test_a_name_that_looks_like_a_pattern_is_a_name(root):
    (root / "a.mp4").rename(root / "a[1].mp4")
    assert open_source(root / "a[1].mp4")[0].attributes["file"] == "a[1].mp4"


def test_bad_patterns_are_one_line(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    encode_video(outside / "c.mp4", make_frames(2), fps=10)
    (root / "link").symlink_to(outside)
    for pattern, message in [
        ("*.webm", "webm holds no video file"),
        ("*/../a.mp4", "must not go up"),
        ("link/*.mp4", None),
        ("li*/c.mp4", "leads outside"),
    ]:
        if message is None:
            # The folder is the caller's own choice.
            assert len(open_source(root / pattern)) == 1
            continue
        with pytest.raises(DataError, match=message) as raised:
            open_source(root / pattern)
        assert "\n" not in str(raised.value)
    with pytest.raises(DataError, match="leave out `camera`, got 'top'"):
        open_source(root / "*.mp4", "top")


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mp4", "libx264", {"crf": "8"}),
        ("mp4", "libx265", {"crf": "8"}),
        ("mkv", "libx264", {"crf": "8"}),
        ("webm", "libvpx-vp9", {"crf": "8"}),
        ("mp4", "libsvtav1", {"crf": "8"}),
        ("avi", "mpeg4", {"qmax": "2"}),
        ("avi", "mpeg4", {"qmax": "2", "bf": "2"}),
        ("avi", "libx264", {"crf": "8", "bf": "0"}),
        ("avi", "libx264", {"crf": "8", "bf": "3", "b_strategy": "0"}),
    ],
)
@pytest.mark.usefixtures("own_priority")
def test_containers_and_codecs(suffix, codec, options, tmp_path):
    path = tmp_path / f"film.{suffix}"
    frames = np.repeat(np.repeat(make_frames(30, size=16), 8, axis=1), 8, axis=2)
    try:
        write_video(path, frames, range(30), codec, **options)
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this PyAV has no encoder {codec}")
    episode = open_source(path)[0]
    assert (episode.num_frames, round(episode.fps, 3)) == (30, 30.0)
    # Frames that follow each other are 6 apart.
    shown = [episode.read_frames(), *(episode.read_frames([look]) for look in (7, 29))]
    assert np.abs(np.concatenate(shown)[:, :, -16:].astype(int) - frames[[*range(30), 7, 29], :, -16:]).max() <= 2


def test_frames_that_a_camera_dropped_stand_still_in_avi(tmp_path):
    path = tmp_path / "film.avi"
    ticks = [0, 1, 2, 5, 6, 7, 8, 12]
    write_video(path, make_frames(8), ticks, crf="8", bf="0")
    expected = np.searchsorted(ticks, np.arange(13), side="right") - 1
    assert read_frame_numbers(open_source(path)[0].read_frames()) == expected.tolist()


def test_a_varying_rate_is_followed_by_the_clock(tmp_path):
    """Frames are shown for 1, 2, 3 … thirtieths; a frame stays on the screen until the next one comes."""
    ticks = np.cumsum([0, *range(1, 12)])
    write_video(tmp_path / "phone.mp4", make_frames(12), ticks.tolist(), crf="8", bf="0")
    episode = open_source(tmp_path, fps=30)[0]
    looks = np.arange(ticks[-1] + 1)
    expected = np.searchsorted(ticks, looks, side="right") - 1
    assert read_frame_numbers(episode.read_frames(looks)) == expected.tolist()
    # Any single look agrees with looking at all of them.
    assert [read_frame_numbers(episode.read_frames([look]))[0] for look in looks[::7]] == expected[::7].tolist()


def test_pairs_are_a_time_apart(root):
    pairs = FramePairDataset([open_source(root)], interval_s=0.5, min_interval_s=0.5)
    shown = {
        episode: read_frame_numbers(np.stack([pairs[i]["current"], pairs[i]["future"]]))
        for episode, i in (("a", 0), ("b", len(pairs) - 1))
    }
    assert shown == {"a": [0, 5], "b": [28, 38]}


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def no_video(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (truncate, "a.mp4 does not decode"),
        (lambda path: path.write_bytes(b""), "a.mp4 does not decode"),
        (no_video, "a.mp4 holds no video stream"),
        (lambda path: [path.unlink(), path.symlink_to("/etc/hostname")], "a.mp4 is a link out of"),
    ],
)
def test_a_broken_file_is_named_at_once(break_it, message, root):
    break_it(root / "a.mp4")
    with pytest.raises(DataError, match=message) as raised:
        open_source(root)
    assert "\n" not in str(raised.value)
    if "link" not in message:
        assert len(open_source(root, episodes=[1])) == 1


def test_all_broken_files_are_named_at_once(root):
    for path in root.rglob("*.*"):
        path.write_bytes(b"no video")
    with pytest.raises(
        DataError, match=r"2 videos cannot be used, episodes \[0, 1\]; the first: video .*a.mp4 does not"
    ):
        open_source(root)


def test_a_file_that_ends_early_is_no_standing_picture(tmp_path):
    """Matroska says at the start how long it is; what is missing shows when it is asked for."""
    path = tmp_path / "cut.mkv"
    write_video(path, make_frames(40), range(0, 160, 4), crf="8", bf="0", g="1")
    truncate(path)
    episode = open_source(path)[0]
    assert read_frame_numbers(episode.read_frames([0]))[0] == 0
    with pytest.raises(DataError, match="cut.mkv (has no frame at|does not decode)"):
        episode.read_frames()


@pytest.mark.parametrize("muxer", ["Lavf", "libebml"])
@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("webm", "libvpx-vp9"), ("mp4", "libx264")])
def test_a_film_that_starts_late_is_as_long_as_its_frames(suffix, codec, muxer, tmp_path):
    """As ffmpeg cuts with `-copyts`. mkvmerge, on libebml, writes the length where ffmpeg writes the end."""
    path = tmp_path / f"late.{suffix}"
    write_video(path, make_frames(40), range(150, 270, 3), codec, rate=10, crf="8")
    if muxer == "libebml":
        data = re.sub(rb"Lavf\d+\.\d+", lambda found: b"libebml".ljust(len(found[0])), path.read_bytes())
        path.write_bytes(data.replace(b"00:00:09.000000000", b"00:00:04.000000000"))
    episode = open_source(path)[0]
    assert (episode.num_frames, episode.fps) == (40, 10.0)
    assert read_frame_numbers(episode.read_frames()) == list(range(40))


def test_sound_that_outlasts_the_picture_adds_no_frames(tmp_path):
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "8", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("aac", rate=8000)
        for image in make_frames(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    (episode,) = open_source(path)
    assert read_frame_numbers(episode.read_frames()) == list(range(30))


def test_bad_arguments(root):
    with pytest.raises(ValueError, match="`fps` must be above 0"):
        open_source(root, fps=0)
    with pytest.raises(DataError, match="has episodes 0 to 1"):
        open_source(root, episodes=[5])
    with pytest.raises(DataError, match="leave out `camera`, got 'top'"):
        open_source(root, "top")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_still_at_the_end_is_shown_as_long_as_the_file_says(tmp_path, suffix):
    frames = make_frames(5, size=32)
    with av.open(tmp_path / f"film.{suffix}", "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "0", "crf": "1"})
        stream.width = stream.height = 32
        stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = 100 * index, Fraction(1, 1000)
            packets += stream.encode(picture)
        for packet in [*packets, *stream.encode(None)]:
            packet.duration = 4000 if packet.pts == 400 else 100
            container.mux(packet)
    source = VideoFileSource(tmp_path / f"film.{suffix}", fps=2)
    assert source[0].num_frames == 9
    shown = source[0].read_frames().astype(int)
    # After the first, at 0 s, there is nothing but the last.
    assert np.abs(shown[2:] - shown[1]).max() <= 2 and np.abs(shown[1] - frames[4]).mean() < 8


def test_a_part_of_a_folder_is_looked_at_as_the_whole(tmp_path):
    folder = tmp_path / "kitchen.2024"
    folder.mkdir()
    for name, fps in (("a.mp4", 30), ("b.mp4", 30), ("c.mp4", 10)):
        encode_video(folder / name, np.zeros((30, 16, 16, 3), np.uint8), fps)
    # What macOS writes beside files on other systems' disks.
    (folder / "._a.mp4").write_bytes(b"no film")
    whole, part = VideoFileSource(folder), VideoFileSource(folder, episodes=[0])
    assert whole.fps == part.fps == 10 and part[0].num_frames == whole[0].num_frames == 10
    assert len(whole) == 3 and whole.name == "kitchen.2024"
    (folder / "c.mp4").write_bytes(b"no film")
    assert VideoFileSource(folder, episodes=[0]).fps == 30


def write_film_behind_sound(path, lead_s):
    """Thirty frames at 10 fps that begin after so much sound, frame `i` as grey as `8 * i`."""
    with av.open(path, "w") as container:
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        stream = container.add_stream("libx264", rate=10, options={"bf": "0", "crf": "1"})
        stream.width = stream.height = 32
        stream.codec_context.time_base = Fraction(1, 1000)
        for index in range(40):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 16_000, 1024 * index, Fraction(1, 16_000)
            container.mux(sound.encode(silence))
        for index in range(30):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * index, np.uint8), format="rgb24")
            picture.pts, picture.time_base = 100 * index + round(1000 * lead_s), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        container.mux(sound.encode(None))


def test_texts_count_from_where_the_file_begins(tmp_path):
    write_film_behind_sound(tmp_path / "film.mp4", lead_s=0.5)
    cues = "WEBVTT\n\n00:00.000 --> 00:01.000\nfirst\n\n00:01.000 --> 00:02.000\nsecond\n"
    (tmp_path / "film.vtt").write_text(cues)
    first, second = VideoFileSource(tmp_path, fps=10)
    # At a second the picture has been there for half of one.
    assert [round(int(frames.mean()) / 8) for frames in first.read_frames([0, 4])] == [0, 4]
    assert [round(int(frames.mean()) / 8) for frames in second.read_frames([0, 9])] == [5, 14]
    assert (first.num_frames, second.num_frames) == (5, 10)
    (tmp_path / "film.vtt").write_text("WEBVTT\n\n00:00.100 --> 00:00.400\nnothing yet\n")
    with pytest.raises(DataError, match="film.mp4 shows nothing before 0.5"):
        VideoFileSource(tmp_path, fps=10)
