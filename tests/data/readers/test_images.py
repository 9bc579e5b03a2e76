# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from cyclemimic.data import DataError
from cyclemimic.data.readers import images as images_module
from cyclemimic.data.readers.images import decode_image


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


def test_files_and_bytes_become_rgb(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(pixels)))
    np.testing.assert_array_equal(decode_image(path, "a"), pixels)
    np.testing.assert_array_equal(decode_image(path.read_bytes(), "a"), pixels)
    grey = decode_image(encode(Image.new("L", (2, 3), 9)), "grey")
    assert grey.shape == (3, 2, 3) and (grey == 9).all()


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "EPS"])
def test_kinds_that_no_camera_writes_are_refused(kind):
    with pytest.raises(DataError, match="frame 3 does not decode"):
        decode_image(encode(Image.new("RGB", (8, 8)), kind), "frame 3")


def test_the_largest_image_is_read_and_no_larger_one(monkeypatch):
    monkeypatch.setattr(images_module, "MAX_PIXELS", 64)
    assert decode_image(encode(Image.new("RGB", (32, 2))), "a").shape == (2, 32, 3)
    with pytest.raises(DataError, match=r"a does not decode \(13 x 5 pixels, at most"):
        decode_image(encode(Image.new("RGB", (13, 5))), "a")


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_grey_of_sixteen_bits_is_refused_and_does_not_become_white(tmp_path, mode):
    path = tmp_path / "frame_000000.png"
    path.write_bytes(encode(Image.new(mode, (4, 4), 1000)))
    with pytest.raises(DataError, match=r"frame_000000.png must have 8 bits a channel, got mode I(;16)? ") as caught:
        decode_image(path, str(path))
    assert "\n" not in str(caught.value)


def test_colour_of_sixteen_bits_is_read_at_half_its_depth():
    pixels = np.full((2, 3, 3), 0x5A80, dtype=">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    file = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    assert (decode_image(file, "a") == 0x5A).all()


def test_a_photograph_stands_as_viewers_show_it():
    image, exif, file = Image.new("RGB", (4, 2)), Image.Exif(), io.BytesIO()
    image.putpixel((0, 0), (255, 0, 0))
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(file, "PNG", exif=exif)
    frame = decode_image(file.getvalue(), "photo")
    assert frame.shape == (4, 2, 3) and frame[0, 1].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_turns(orientation):
    image, exif, file = Image.new("RGB", (4, 2)), Image.Exif(), io.BytesIO()
    image.putpixel((0, 0), (255, 0, 0))
    exif[0x0112] = orientation
    image.save(file, "PNG", exif=exif)
    with Image.open(file) as opened:
        np.testing.assert_array_equal(decode_image(file.getvalue(), "photo"), ImageOps.exif_transpose(opened))


def test_damaged_remarks_leave_an_intact_picture():
    file = io.BytesIO()
    Image.new("RGB", (4, 2)).save(file, "PNG", exif=b"Exif\0\0no such thing")
    assert decode_image(file.getvalue(), "photo").shape == (2, 4, 3)
