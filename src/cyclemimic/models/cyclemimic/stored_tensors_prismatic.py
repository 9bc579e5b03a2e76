# SPDX-License-Identifier: Apache-2.0
"""The tensors of a checkpoint's files, by name and shape; what they hold stays in the files until it is wanted."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Args:
        name (`str`): Its key, as the checkpoint has it.
        shape (`tuple[int, ...]`).
        load (`Callable[[], torch.Tensor]`): Gives the tensor.
    """

    name: str
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]


def open_sharded(folder: Path) -> list[StoredTensor]:
    """The tensors of a folder in transformers' layout."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return open_safetensors(folder / "model.safetensors")
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise ValueError(f"{index}: must hold a `weight_map` from tensors to files, got {type(shards).__name__}.")
    tensors = []
    for name in sorted(set(map(str, shards.values()))):
        if Path(name).name != name:
            raise ValueError(f"{index}: names a file outside of its folder, {name}.")
        tensors += open_safetensors(folder / name)
    return tensors


def open_safetensors(path: Path, prefix: str = "") -> list[StoredTensor]:
    def load(name: str) -> torch.Tensor:
        with safe_open(path, framework="pt") as file:
            return file.get_tensor(name)

    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: must be a safetensors file, {str(error).strip().splitlines()[0]}.") from error
    return [StoredTensor(prefix + name, shape, partial(load, name)) for name, shape in shapes.items()]


def open_torch(path: Path) -> list[StoredTensor]:
    """The tensors of a TRI-ML run, by `part.key`."""
    try:
        # `weights_only`: a file from elsewhere must not run code. `mmap`: nor fill the memory.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: must be a PyTorch file of tensors and nothing else, {reason}") from error
    parts = content.get("model") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise ValueError(f"{path}: must hold a `model` with a dictionary of tensors a part.")
    flat = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    if odd := [name for name, tensor in flat.items() if not isinstance(tensor, torch.Tensor)]:
        raise ValueError(f"{path}: must hold tensors, got something else as {shorten(odd)}.")
    return [StoredTensor(name, tuple(value.shape), value.detach) for name, value in flat.items()]


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path}: must be a JSON file of the checkpoint, {reason}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a JSON object, got {type(content).__name__}.")
    return content


def shorten(names: list[str]) -> str:
    return f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"


__all__ = ["StoredTensor", "open_safetensors", "open_sharded", "open_torch", "read_json", "shorten"]
