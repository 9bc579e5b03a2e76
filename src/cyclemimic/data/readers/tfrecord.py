# SPDX-License-Identifier: Apache-2.0
"""TFRecord files of `tf.train.Example`s, without TensorFlow. Checksums are those of `google-crc32c` (extra `rlds`)."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..episode import DataError

_REMEDY = "download it again, or leave its episode out with `--skip_broken`"
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
# Longer keys than any data set's: what is read of a feature before it is known whether the rest is wanted.
_MAX_KEY_BYTES = 1024


class Record(NamedTuple):
    """Where a record's payload lies in its file, in bytes."""

    path: Path
    offset: int
    length: int


def index_records(path: Path) -> list[Record]:
    """Find the records of a file; their payloads are passed over.

    Raises:
        DataError: If the file ends within a record, or a record's length is damaged.
    """
    records: list[Record] = []
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position < size:
            header = file.read(12)
            if len(header) < 12 or _masked_checksum(header[:8]) != struct.unpack("<I", header[8:])[0]:
                raise DataError(f"{path}: record {len(records)} is damaged (its length); {_REMEDY}")
            (length,) = struct.unpack("<Q", header[:8])
            record = Record(path, position + 12, length)
            position = record.offset + length + 4
            if position > size:
                raise DataError(f"{path} ends within record {len(records)}; {_REMEDY}")
            records.append(record)
            file.seek(position)
    return records


def read_example(record: Record) -> dict[str, list[bytes] | np.ndarray]:
    """Read a record.

    Returns:
        `dict`: The features: a list of bytes, or a `float32` or `int64` array of one dimension.

    Raises:
        DataError: If the payload does not have its checksum, or is no `tf.train.Example`.
    """
    with record.path.open("rb") as file:
        file.seek(record.offset)
        data = file.read(record.length + 4)
    if len(data) < record.length + 4 or _masked_checksum(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise DataError(f"{record.path}: the record at byte {record.offset} is damaged (checksum); {_REMEDY}")
    try:
        payload = memoryview(data)[:-4]
        features = {}
        for message in _messages(payload, 1):
            for entry in _messages(message, 1):
                key = b"".join(map(bytes, _messages(entry, 1))).decode()
                features[key] = _values(b"".join(map(bytes, _messages(entry, 2))))
    except (IndexError, ValueError, struct.error) as error:
        raise DataError(f"{record.path}: the record at byte {record.offset} is no tf.train.Example") from error
    return features


def read_features(record: Record, keys: Collection[str]) -> dict[str, list[bytes] | np.ndarray]:
    """Read some features without the others, such as images, and without the checksum, which is of the whole record.

    Returns:
        `dict`: As of [`read_example`]; features that the record lacks are left out.

    Raises:
        DataError: If the record is no `tf.train.Example`.
    """
    features: dict[str, list[bytes] | np.ndarray] = {}
    try:
        with record.path.open("rb") as file:
            file.seek(record.offset)
            stop = record.offset + record.length
            while file.tell() < stop and len(features) < len(keys):
                start, length = _enter(file)  # Example.features
                end = start + length
                while file.tell() < end and len(features) < len(keys):
                    start, length = _enter(file)  # an entry of the map
                    if start + length > stop:
                        raise ValueError("length")
                    head = file.read(min(length, _MAX_KEY_BYTES))
                    key = next(_messages_started(head)).decode()
                    if key in keys:
                        entry = head + file.read(length - len(head))
                        features[key] = _values(b"".join(map(bytes, _messages(entry, 2))))
                    file.seek(start + length)
    except (IndexError, ValueError, StopIteration, struct.error) as error:
        raise DataError(f"{record.path}: the record at byte {record.offset} is no tf.train.Example") from error
    return features


def _masked_checksum(data: bytes) -> int:
    try:
        import google_crc32c
    except ImportError as error:
        raise DataError("TFRecord files need the package google-crc32c: pip install 'cyclemimic[rlds]'") from error

    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _enter(file: BinaryIO) -> tuple[int, int]:
    """Read a tag and a length; return where the message begins, and its length."""
    start = file.tell()
    head = file.read(16)
    tag, position = _varint(head, 0)
    length, position = _varint(head, position)
    if tag != 1 << 3 | _LENGTH_DELIMITED:
        raise ValueError("tag")
    file.seek(start + position)
    return start + position, length


def _messages_started(head: bytes) -> Iterator[bytes]:
    """The first messages of an entry, as far as they are in its head."""
    tag, position = _varint(head, 0)
    length, position = _varint(head, position)
    if tag != 1 << 3 | _LENGTH_DELIMITED or position + length > len(head):
        raise ValueError("key")
    yield head[position : position + length]


def _values(feature: bytes) -> list[bytes] | np.ndarray:
    for values in _messages(feature, _BYTES_LIST):
        return [bytes(value) for value in _messages(values, 1)]
    for values in _messages(feature, _FLOAT_LIST):
        return np.concatenate([np.empty(0, "<f4"), *(np.frombuffer(part, "<f4") for part in _messages(values, 1))])
    for values in _messages(feature, _INT64_LIST):
        return np.array([number for part in _messages(values, 1) for number in _varints(part)], dtype=np.int64)
    return []


def _messages(data: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """The fields of that number, packed lists, texts and messages being one each; a plain number is its bytes."""
    data, position = memoryview(data), 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind, start = tag & 7, position
        if kind == _LENGTH_DELIMITED:
            length, start = _varint(data, position)
            position = start + length
        elif kind == _VARINT:
            _, position = _varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("wire type")
        if position > len(data):
            raise ValueError("length")
        if tag >> 3 == number:
            yield data[start:position]


def _varints(data: memoryview) -> Iterator[int]:
    position = 0
    while position < len(data):
        value, position = _varint(data, position)
        yield value - (1 << 64) if value >> 63 else value


def _varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    else:
        raise ValueError("varint")
    if value >> 64:
        raise ValueError("varint")
    return value, position
