# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest

from cyclemimic.data import DataError, decode_frames, encode_video
from cyclemimic.data.readers.video import _DECODER_OPTIONS, NamedVideo, _decode_from, iter_frames
from cyclemimic.data.writers.video import KEYFRAME_INTERVAL

from ..conftest import make_frames, read_frame_numbers


def write_reference(path, frames, fps, **options):
    """A video with what this package does not write: B-frames, long groups of pictures, other clocks."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=Fraction(fps), options={"crf": "10", **options})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def decode_all(path):
    """Every frame of a file, by PyAV alone."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "video.mp4"
    encode_video(path, make_frames(40), fps=10)
    return path


def test_a_video_in_memory_reads_as_its_file(video):
    data = video.read_bytes()
    frames = np.stack(list(iter_frames(NamedVideo(BytesIO(data), "row 3"), 10, 40, [0, 5, 39])))
    np.testing.assert_array_equal(frames, decode_frames(video, 10, 40, [0, 5, 39]))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{video}\n#EXT-X-ENDLIST\n".encode()
    for damaged in (data[:-100], b"", playlist):
        with pytest.raises(DataError, match="video row 3 does not decode .* with `--skip_broken`"):
            list(iter_frames(NamedVideo(BytesIO(damaged), "row 3"), 10, 40))


@pytest.mark.parametrize(
    "options",
    [
        {"g": "10", "bf": "0"},
        {"g": "250", "bf": "3"},
        {"g": "7", "bf": "2"},
        # Frames before a keyframe that need one before it as well.
        {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:b-adapt=0:scenecut=0"},
        # So many of them that a seek by decoding time lands behind the frame.
        {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=8:b-adapt=0:scenecut=0"},
    ],
)
def test_any_frame_is_the_one_that_sequential_decoding_gives(tmp_path, options):
    path = tmp_path / "video.mp4"
    write_reference(path, make_frames(42), 10, **options)
    expected = decode_all(path)
    for index in range(42):
        np.testing.assert_array_equal(decode_frames(path, 10, 42, [index])[0], expected[index])
    chosen = [0, 1, 5, 38, 41]
    np.testing.assert_array_equal(decode_frames(path, 10, 42, chosen), expected[chosen])


@pytest.mark.parametrize(
    ("turn", "flips", "expected"),
    [
        (90, {}, np.rot90),
        (-90, {}, lambda picture: np.rot90(picture, -1)),
        (180, {}, lambda picture: np.rot90(picture, 2)),
        (0, {"hflip": True}, np.fliplr),
        (0, {"vflip": True}, np.flipud),
        (-90, {"hflip": True}, lambda picture: np.fliplr(np.rot90(picture, -1))),
        (90, {"vflip": True}, lambda picture: np.flipud(np.rot90(picture))),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_frames_are_turned_as_players_show_them(tmp_path, suffix, turn, flips, expected):
    """Degrees are counterclockwise."""
    path = tmp_path / f"phone.{suffix}"
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    image[:32, :48], image[:32, 48:], image[32:, :48] = 220, 150, 80
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=10, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(turn, **flips)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    frames = decode_frames(path, 10, 3, [0, 2])
    assert frames.shape[1:] == ((96, 64, 3) if turn in (90, -90) else (64, 96, 3))
    for frame in frames:
        np.testing.assert_allclose(frame.astype(int), expected(image).astype(int), atol=12)


def test_long_gaps_are_jumped(tmp_path):
    path = tmp_path / "video.mp4"
    numbers = np.arange(200) % 40
    encode_video(path, make_frames(40)[numbers], fps=25)
    chosen = [0, 3, 77, 150, 151, 199]
    assert read_frame_numbers(decode_frames(path, 25, 200, chosen)) == numbers[chosen].tolist()


@pytest.fixture
def decoded(monkeypatch) -> list[float]:
    """When the frames that are decoded from now on are shown, in seconds."""
    seen = []

    def count(*arguments):
        for timed in _decode_from(*arguments):
            seen.append(timed[0])
            yield timed

    monkeypatch.setattr("cyclemimic.data.readers.video._decode_from", count)
    return seen


def test_long_gaps_are_jumped_at_a_slow_look_too(tmp_path, decoded):
    path = tmp_path / "film.mp4"
    encode_video(path, make_frames(40)[np.arange(600) // 15], fps=30)
    frames = np.stack(list(iter_frames(path, 1, 20, [0, 6, 12, 19], by_time=True)))
    assert read_frame_numbers(frames) == [0, 12, 24, 38]
    # A keyframe interval and the second before, for each; not all that lies between.
    assert len(decoded) <= 4 * (30 + 2 * KEYFRAME_INTERVAL)


def test_a_slow_look_reads_on_where_keyframes_are_far_apart(tmp_path, decoded):
    path = tmp_path / "film.mp4"
    write_reference(path, make_frames(40)[np.arange(600) // 15], 60, g="250", sc_threshold="0")
    frames = np.stack(list(iter_frames(path, 1, 10, by_time=True)))
    assert read_frame_numbers(frames) == [0, 4, 8, 12, 16, 20, 24, 28, 32, 36]
    # Each once, but for the first two looks.
    assert len(decoded) <= 600 + 2 * 60


@pytest.mark.parametrize("options", [{}, {"x264-params": "open-gop=1:keyint=10:bframes=3:b-adapt=0:scenecut=0"}])
def test_avi_with_b_frames_is_decoded_once_from_its_start(tmp_path, options, decoded):
    """AVI does not say when its frames are shown: they are counted."""
    path = tmp_path / "film.avi"
    write_reference(path, make_frames(40)[np.arange(200) % 40], 10, **options)
    chosen = [0, 1, 70, 71, 199]
    np.testing.assert_array_equal(decode_frames(path, 10, 200, chosen), decode_all(path)[chosen])
    assert len(decoded) == 200
    np.testing.assert_array_equal(decode_frames(path, 10, 3, start_s=7.0), decode_all(path)[70:73])


def test_decoding_starts_at_the_last_keyframe_before_the_frame(tmp_path):
    # Times that floating point does not represent must not send the decoder back to the start of a long file.
    path = tmp_path / "video.mp4"
    encode_video(path, make_frames(40)[np.arange(400) % 40], fps=10)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for index in range(2, 400):
            first_s, _ = next(_decode_from(container, stream, index / 10, 0.1))
            assert 1 <= index - round(first_s * 10) <= KEYFRAME_INTERVAL


def test_part_of_a_file_starts_where_it_says(video):
    assert read_frame_numbers(decode_frames(video, 10, 6, start_s=2.3)) == [23, 24, 25, 26, 27, 28]
    assert read_frame_numbers(decode_frames(video, 10, 6, [1, 5], start_s=2.3)) == [24, 28]


def test_video_of_a_higher_rate_is_read_by_time(video):
    assert read_frame_numbers(decode_frames(video, fps=5, num_frames=20)) == list(range(0, 40, 2))


def test_wrong_fps_beside_one_frame_a_row_does_not_matter(video):
    assert read_frame_numbers(decode_frames(video, fps=4, num_frames=40, indices=[0, 13, 39])) == [0, 13, 39]


@pytest.mark.parametrize("start_s", [0, 5])
@pytest.mark.parametrize("num_bframes", [0, 3])
def test_one_frame_a_row_is_read_in_order_whatever_the_clock(tmp_path, num_bframes, start_s):
    """The first half of the file is at 29 frames a second and the second at 31, as from a camera without a fixed rate."""
    path = tmp_path / "camera.mp4"
    frames = make_frames(40)[np.arange(200) % 40]
    with av.open(str(path), "w") as container:
        options = {"crf": "10", "bf": str(num_bframes), "g": "10"}
        stream = container.add_stream("h264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = clock = Fraction(1, 90000)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            shown_s = index / 29 if index < 100 else 100 / 29 + (index - 100) / 31
            frame.pts = round((start_s + shown_s) / clock)
            frame.time_base = clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    expected = decode_all(path)
    assert read_frame_numbers(expected) == (np.arange(200) % 40).tolist()
    np.testing.assert_array_equal(decode_frames(path, 30, 200), expected)
    chosen = [2, 3, 70, 99, 100, 101, 180, 199]
    np.testing.assert_array_equal(decode_frames(path, 30, 200, chosen), expected[chosen])
    for index in range(0, 200, 7):
        np.testing.assert_array_equal(decode_frames(path, 30, 200, [index])[0], expected[index])


def test_video_that_ends_early_is_an_error(video):
    with pytest.raises(DataError, match=r"video\.mp4 has no frame at 4\.000 s \(frame 40 of 50"):
        decode_frames(video, fps=10, num_frames=50)
    with pytest.raises(DataError, match="no frame at"):
        decode_frames(video, fps=10, num_frames=50, indices=[45])


def test_pictures_that_the_decoder_made_up_are_an_error(tmp_path):
    path = tmp_path / "video.mp4"
    frames = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3), dtype=np.uint8)
    encode_video(path, frames, fps=10)
    data = bytearray(path.read_bytes())
    first, last = data.index(b"mdat"), data.index(b"moov")
    # In the last third.
    for position in range(first + 7 * (last - first) // 10, first + 8 * (last - first) // 10, 50):
        data[position] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"video\.mp4 does not decode"):
        decode_frames(path, 10, 30)
    # From keyframe to keyframe, what is whole is read.
    assert decode_frames(path, 10, 30, range(10)).shape == (10, 32, 32, 3)


def test_pictures_beyond_the_largest_are_not_decoded(video, monkeypatch):
    assert int(_DECODER_OPTIONS["max_pixels"]) == 8192 * 8192
    monkeypatch.setitem(_DECODER_OPTIONS, "max_pixels", "1000")
    with pytest.raises(DataError, match=r"video\.mp4 does not decode"):
        decode_frames(video, 10, 40)


def test_a_video_of_two_sizes_is_an_error(tmp_path):
    """Joined without a second look, as raw streams can be."""
    parts = []
    for size in (32, 64):
        with av.open(str(tmp_path / "part.h264"), "w", format="h264") as container:
            stream = container.add_stream("h264", rate=10, options={"bf": "0"})
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
            for frame in make_frames(5, size=size):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        parts.append((tmp_path / "part.h264").read_bytes())
    (tmp_path / "joined.h264").write_bytes(b"".join(parts))
    with av.open(str(tmp_path / "joined.h264")) as source, av.open(str(tmp_path / "joined.mkv"), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = 100 * number
                packet.time_base, packet.stream = Fraction(1, 1000), stream
                container.mux(packet)
    with pytest.raises(DataError, match=r"joined\.mkv changes from 32 x 32 to 64 x 64 pixels"):
        decode_frames(tmp_path / "joined.mkv", 10, 10)


def test_file_that_is_no_video_is_an_error(tmp_path, video):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(DataError, match=r"broken\.mp4 does not decode"):
        decode_frames(path, 10, 5)
    path.write_bytes(video.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"broken\.mp4"):
        decode_frames(path, 10, 40)
    with pytest.raises(DataError, match="does not exist"):
        decode_frames(tmp_path / "missing.mp4", 10, 5)
    with pytest.raises(ValueError, match="`indices`"):
        decode_frames(video, 10, 40, [])
