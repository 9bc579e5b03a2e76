# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import pickle
import random

import numpy as np
import pytest
from PIL import Image

from cyclemimic.serving.protocol import Message, MessageError, pack_message, unpack_message

from .harness_client import msgpack, observation, pack


def image(form: str, data: bytes | None = None, size: tuple[int, int] = (4, 6)) -> dict:
    if data is None:
        buffer = io.BytesIO()
        Image.new("RGB", size, (200, 100, 0)).save(buffer, form)
        data = buffer.getvalue()
    return {"__image__": True, "format": form, "data": data, "shape": [size[1], size[0], 3]}


def array(**changed) -> dict:
    return {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2], **changed}


@pytest.mark.parametrize("form", ["png", "jpeg"])
def test_images_are_unpacked(form):
    message = unpack_message(pack("observation", {"images": {"front": image(form)}}, 7))
    seen = message.payload["images"]["front"]
    assert (message.type, message.seq, seen.shape, seen.dtype) == ("observation", 7, (6, 4, 3), np.uint8)
    np.testing.assert_allclose(seen[2, 2].astype(int), [200, 100, 0], atol=3)


def test_arrays_come_back_as_they_were():
    values = {"a": np.arange(6, dtype=np.float64).reshape(2, 3), "b": np.full((2, 2, 3), 7, np.uint8)}
    payload = unpack_message(pack("observation", values, 1)).payload
    for name, value in values.items():
        np.testing.assert_array_equal(payload[name], value)
        assert payload[name].dtype == value.dtype


def test_packed_as_the_harness_unpacks():
    fields = msgpack.unpackb(pack_message(Message("action", {"actions": np.ones(2, np.float32)}, 9)))
    assert set(fields) == {"type", "payload", "seq", "timestamp"}
    assert fields["payload"]["actions"] == {
        "__ndarray__": True,
        "data": np.ones(2, np.float32).tobytes(),
        "dtype": "<f4",
        "shape": [2],
    }


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (array(dtype="O"), "must be of numbers, got 'O'"),
        (array(dtype="V8"), "must be of numbers"),
        (array(dtype="nonsense"), "must be of numbers, got 'nonsense'"),
        # NumPy divides by zero there, outside of Python: the process would be gone.
        (array(dtype="m8[s/0]"), "must be of numbers"),
        (array(dtype="(1,2"), "must be of numbers"),
        (array(dtype="f4,f4"), "must be of numbers"),
        (array(dtype="f4\n"), "must be of numbers"),
        (array(dtype=5), "`dtype` as text"),
        (array(data="text"), "`data` as bytes"),
        (array(shape=[3]), "shape [3] and float32 must not have 8 bytes"),
        (array(shape=[-2]), "`shape` of an array must be sizes"),
        (array(shape=[2**40, 2**40]), "must not have 8 bytes"),
        (image("png", b"\x89PNG cut"), "cannot be decoded as png"),
        (image("gif"), "must be bytes of raw, png or jpeg, got 'gif'"),
        (image("png", image("jpeg")["data"]), "cannot be decoded as png"),
        (image("png", size=(5000, 5000)), "must have at most 16777216 pixels together"),
        ([image("png", size=(2100, 2100))] * 4, "must have at most 16777216 pixels together"),
        (list(range(5000)), "exceeds max_array_len"),
        ([[[]] * 4000] * 1000, "a message must have at most 4096 items"),
        ([{"a": {}}] * 2000, "a message must have at most 4096 items"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_content_is_refused(payload, reason):
    with pytest.raises(MessageError) as error:
        unpack_message(pack("observation", {"x": payload}, 1))
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{}", "must be a binary frame of MessagePack, got text."),
        (b"", "got 0 bytes"),
        (b"\x93\x01\x02", "incomplete input"),
        (b"\x01", "must be a map, got int."),
        (b"\x81" * 5000, "got 5000 bytes"),
        (b"\xdd\xff\xff\xff\xff", "exceeds max_array_len"),
        (pack("action", {}, 1), "`type` must be one of"),
        (pack(["hello"], {}, 1), "`type` must be one of"),
        (pack("hello", [], 1), "`payload` must be a map, got list."),
        (pack("hello", {}, "1"), "`seq` must be an integer, got '1'."),
        (pack("hello", {}, True), "`seq` must be an integer, got True."),
        (pack("hello", {"x": "a" * 99}, 1)[:-40], "incomplete input"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_malformed_message_is_refused(data, reason):
    with pytest.raises(MessageError) as error:
        unpack_message(data)
    assert reason in str(error.value)


def test_nothing_is_unpickled():
    class Boom:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    hidden = msgpack.ExtType(78, pickle.dumps(Boom()))
    with pytest.raises(MessageError, match="extension type 78 is not part of the protocol"):
        unpack_message(pack("observation", {"x": hidden}, 1))


def test_random_damage_is_refused_or_read_and_never_worse():
    whole = bytearray(pack("observation", observation() | {"images": {"front": image("png")}}, 1))
    chance, refused = random.Random(0), 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            unpack_message(bytes(damaged[: chance.randint(1, len(damaged))]))
        except MessageError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize("kind", [array(), [1], {"a": 1}, None, 3])
def test_a_type_that_is_no_text_is_refused(kind):
    with pytest.raises(MessageError, match="`type` must be one of"):
        unpack_message(msgpack.packb({"type": kind, "payload": {}, "seq": 1, "timestamp": 0.0}))
