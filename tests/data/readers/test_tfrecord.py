# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct

import numpy as np
import pytest

from cyclemimic.data import DataError
from cyclemimic.data.readers.tfrecord import _masked_checksum, index_records, read_example, read_features

from .rlds_records import checksum, encode_example, write_records

EXAMPLE = {
    "images": [b"first" * 100, b""],
    "numbers": np.array([1.5, -2.0, 3e8], np.float32),
    "counts": np.array([0, 1, 127, 128, -1, 1 << 62], np.int64),
    "text": ["grüße".encode()],
}


def test_checksum_is_crc32c_as_masked_by_tensorflow():
    # 0xE3069283 is the check value of CRC-32C for this text; turned right by 15 bits, plus TensorFlow's constant.
    turned = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert _masked_checksum(b"123456789") == (turned + 0xA282EAD8) & 0xFFFFFFFF == checksum(b"123456789")


def test_values_come_back(tmp_path):
    path = write_records(tmp_path / "x.tfrecord", [encode_example({"a": [b"1"]}), encode_example(EXAMPLE)])
    records = index_records(path)
    assert len(records) == 2 and read_example(records[0]) == {"a": [b"1"]}
    example = read_example(records[1])
    assert example.keys() == EXAMPLE.keys()
    assert example["images"] == EXAMPLE["images"] and example["text"] == EXAMPLE["text"]
    np.testing.assert_array_equal(example["numbers"], EXAMPLE["numbers"])
    np.testing.assert_array_equal(example["counts"], EXAMPLE["counts"])


def test_numbers_that_are_not_packed_are_read(tmp_path):
    # float_list with one field a value, tag 1, fixed32.
    values = b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.0, 2.0))
    path = write_records(
        tmp_path / "x.tfrecord", [encode_example({}, raw={"a": b"\x12" + bytes([len(values)]) + values})]
    )
    assert read_example(index_records(path)[0])["a"].tolist() == [1.0, 2.0]


def test_features_are_read_without_the_pictures(tmp_path, monkeypatch):
    path = write_records(tmp_path / "x.tfrecord", [encode_example({"image": [b"x" * 1_000_000], **EXAMPLE})])
    record, read = index_records(path)[0], []
    plain_open = type(path).open

    def watching_open(self, *args):
        file = plain_open(self, *args)
        plain_read = file.read
        wrapper = type("File", (), {"tell": file.tell, "seek": file.seek, "__enter__": lambda s: s})()
        wrapper.read = lambda size: read.append(size) or plain_read(size)
        type(wrapper).__exit__ = lambda s, *_: file.close()
        return wrapper

    monkeypatch.setattr(type(path), "open", watching_open)
    whole = {"image": [b"x" * 1_000_000], **EXAMPLE}
    for keys in (["counts"], ["numbers", "text"], ["nothing"]):
        features = read_features(record, keys)
        assert features.keys() == set(keys) & whole.keys()
        for key, values in features.items():
            np.testing.assert_array_equal(values, whole[key])
    assert sum(read) < 20_000


@pytest.mark.parametrize("cut", [1, 5, 11, 13, 300, 500])
def test_a_file_that_ends_early_is_one_line(tmp_path, cut):
    path = write_records(tmp_path / "x.tfrecord", [encode_example(EXAMPLE)] * 2)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"x.tfrecord(: record 1 is damaged| ends within record 1)"):
        index_records(path)


def test_a_made_up_length_asks_for_no_memory(tmp_path):
    length = struct.pack("<Q", 1 << 60)
    path = tmp_path / "x.tfrecord"
    path.write_bytes(length + struct.pack("<I", checksum(length)) + b"rest")
    with pytest.raises(DataError, match="ends within record 0"):
        index_records(path)


def test_every_flipped_bit_is_noticed(tmp_path):
    path = write_records(tmp_path / "x.tfrecord", [encode_example(EXAMPLE)])
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for position in random.choice(8 * len(whole), 300, replace=False):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is damaged|ends within"):
            read_example(index_records(path)[0])


def test_nothing_is_read_out_of_the_next_record(tmp_path):
    path = write_records(tmp_path / "x.tfrecord", [encode_example({"a": [b"x" * 40]})[:-30], encode_example(EXAMPLE)])
    record = index_records(path)[0]
    for read in (read_example, lambda record: read_features(record, ["a"])):
        with pytest.raises(DataError, match="no tf.train.Example"):
            read(record)


def test_a_payload_that_is_no_example_is_one_line(tmp_path):
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        record = index_records(write_records(tmp_path / "x.tfrecord", [random.bytes(60)]))[0]
        for read in (read_example, lambda record: read_features(record, ["a"])):
            try:
                read(record)
            except DataError as error:
                assert "no tf.train.Example" in str(error)
                refused += 1
    assert refused > 300
