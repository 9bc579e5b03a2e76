# SPDX-License-Identifier: Apache-2.0
"""Writes TFRecord files and small RLDS data sets by the formats' descriptions, independently of the reader."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def checksum(data: bytes) -> int:
    """CRC-32C bit by bit, masked as TensorFlow does."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode_feature(values: Sequence[bytes] | np.ndarray) -> bytes:
    if not isinstance(values, np.ndarray):
        return message(1, b"".join(message(1, value) for value in values))
    if values.dtype.kind == "f":
        return message(2, message(1, values.astype("<f4").tobytes()))
    return message(3, message(1, b"".join(varint(int(value)) for value in values.ravel())))


def encode_example(
    features: Mapping[str, Sequence[bytes] | np.ndarray], raw: Mapping[str, bytes] | None = None
) -> bytes:
    encoded = {key: encode_feature(values) for key, values in features.items()} | dict(raw or {})
    entries = [message(1, message(1, key.encode()) + message(2, feature)) for key, feature in encoded.items()]
    return message(1, b"".join(entries))


def write_records(path: Path, payloads: Sequence[bytes]) -> Path:
    with path.open("wb") as file:
        for payload in payloads:
            length = struct.pack("<Q", len(payload))
            file.write(length + struct.pack("<I", checksum(length)) + payload + struct.pack("<I", checksum(payload)))
    return path


def encode_image(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


def tensor(dtype: str, *shape: int, encoding: str = "none") -> dict[str, Any]:
    dimensions = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {"tensor": {"shape": dimensions, "dtype": dtype, "encoding": encoding}}


def picture(dtype: str = "uint8", channels: int = 3) -> dict[str, Any]:
    return {"image": {"shape": {"dimensions": ["8", "8", str(channels)]}, "dtype": dtype, "encodingFormat": "png"}}


def tree(children: Mapping[str, Any]) -> dict[str, Any]:
    return {"featuresDict": {"features": dict(children)}}


OBSERVATION = {
    "image": picture(),
    "wrist_image": picture(),
    "depth": picture("uint16", 1),
    "normals": picture("uint16"),
    "state": tensor("float32", 2),
}
STEPS = {
    "observation": tree(OBSERVATION),
    "action": tensor("float32", 3),
    "is_first": tensor("bool"),
    "language_instruction": {"text": {}},
}


def encode_episode(frames: np.ndarray, instruction: bytes = b"push", **changes: Any) -> bytes:
    """An episode as TFDS writes it; `changes` replaces features, by the last part of their name."""
    count = len(frames)
    features = {
        "steps/observation/image": [encode_image(frame) for frame in frames],
        "steps/observation/wrist_image": [encode_image(255 - frame) for frame in frames],
        "steps/observation/depth": [b"x"] * count,
        "steps/observation/state": np.arange(2 * count, dtype=np.float32),
        "steps/action": np.arange(3 * count, dtype=np.float32) + 0.5,
        "steps/is_first": np.arange(count) == 0,
        "steps/language_instruction": [instruction] * count,
    }
    names = {key.rsplit("/", 1)[1]: key for key in features}
    features |= {names.get(name, f"steps/{name.replace('__', '/')}"): value for name, value in changes.items()}
    return encode_example({key: value for key, value in features.items() if value is not None})


def write_rlds(root: Path, shards: Sequence[Sequence[bytes]], steps: Mapping[str, Any] = STEPS) -> Path:
    """A data set called `arms` of the given records; `root` is the folder of its version."""
    root.mkdir(parents=True, exist_ok=True)
    for index, payloads in enumerate(shards):
        write_records(root / f"arms-train.tfrecord-{index:05d}-of-{len(shards):05d}", payloads)
    features = tree({"steps": {"sequence": {"feature": tree(steps)}}, "episode_metadata": tree({"id": {"text": {}}})})
    (root / "features.json").write_text(json.dumps(features))
    info = {"name": "arms", "splits": [{"name": "train", "shardLengths": [str(len(payloads)) for payloads in shards]}]}
    (root / "dataset_info.json").write_text(json.dumps(info))
    return root
