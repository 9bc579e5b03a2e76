# SPDX-License-Identifier: Apache-2.0
"""
Weights are read from the safetensors of a checkpoint itself: a pickle may run code, and a path may lead elsewhere. Each model
folder has this file, as a published checkpoint carries the code of its own folder alone; the two are one text.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedModel
from transformers.utils import cached_file

Model = TypeVar("Model", bound=PreTrainedModel)
Checkpoint = str | os.PathLike[str]

SUFFIX = ".safetensors"
_SHA256_LENGTH = 64
# Of `from_pretrained`'s arguments, where the files are.
_PLACE = ("cache_dir", "local_files_only", "revision", "subfolder", "token")


class SafeWeightsModel(PreTrainedModel):
    """A model that reads no weights but safetensors, and these from its checkpoint alone."""

    # What the Hub recommends for a file, and a small memory can load.
    save_pretrained = partialmethod(PreTrainedModel.save_pretrained, max_shard_size="5GB")
    push_to_hub = partialmethod(PreTrainedModel.push_to_hub, max_shard_size="5GB")  # type: ignore[assignment]

    @classmethod
    def from_pretrained(
        cls: type[Model], pretrained_model_name_or_path: Checkpoint | None, *model_args: Any, **kwargs: Any
    ) -> Model:
        """
        As transformers' own.

        Raises:
            ValueError: The weights are pickled, or the checkpoint names files outside of it.
        """
        load = super().from_pretrained
        return load_safetensors(load, pretrained_model_name_or_path, *model_args, **kwargs)


def load_safetensors(
    load: Callable[..., Model], checkpoint: Checkpoint | None, *arguments: Any, **options: Any
) -> Model:
    """
    A model of safetensors.

    Args:
        load (`Callable`): `from_pretrained` of a model or an Auto class.
        checkpoint (`str` or `os.PathLike`, *optional*): Folder, or id on the Hub.
        arguments, options: Further arguments of `load`.

    Raises:
        ValueError: The weights are pickled, or the checkpoint names files outside of it, or what was downloaded is not what
            the Hub said it would be.
    """
    if options.get("use_safetensors") is False:
        raise ValueError("`use_safetensors` must be true or left out, got False: no pickle is read.")
    options["use_safetensors"] = True
    if checkpoint is None or options.get("gguf_file") is not None:
        return load(checkpoint, *arguments, **options)
    place = {name: options[name] for name in _PLACE if name in options}
    if Path(checkpoint).is_file():  # which `from_pretrained` takes with a `config`
        _refuse_pickle_unless(Path(checkpoint).suffix == SUFFIX, checkpoint)
        return load(checkpoint, *arguments, **options)
    parts = list(dict.fromkeys((checkpoint, _base_of(checkpoint, place))))
    known = {path for part in parts for path in _downloaded(part, place)}
    for part in parts:
        _check(part, place, options.get("variant"))
    model = load(checkpoint, *arguments, **options)
    _check_content({path for part in parts for path in _downloaded(part, place)} - known)
    return model


def _base_of(checkpoint: Checkpoint, place: dict[str, Any]) -> Checkpoint:
    """The model whose weights are loaded: that of an adapter is the one that its config names. As in transformers, a model
    with an adapter in its own folder is its own; one on the Hub is not."""
    adapter = _read(checkpoint, "adapter_config.json", place)
    if adapter is None or (Path(checkpoint).exists() and Path(checkpoint, "config.json").exists()):
        return checkpoint
    return str(adapter.get("base_model_name_or_path"))


def _check(checkpoint: Checkpoint, place: dict[str, Any], variant: str | None) -> None:
    if _read(checkpoint, "adapter_config.json", place) is not None:
        _refuse_pickle_unless(_find(checkpoint, f"adapter_model{SUFFIX}", place), checkpoint)
        if _find(checkpoint, "config.json", place) is None:
            return
    name = f"model.{variant}{SUFFIX}" if variant else f"model{SUFFIX}"
    index = _read(checkpoint, f"model{SUFFIX}.index.{variant}.json" if variant else f"{name}.index.json", place)
    config = _read(checkpoint, "config.json", place)
    files = [*dict((index or {}).get("weight_map") or {}).values(), (config or {}).get("transformers_weights")]
    for file in sorted({str(file) for file in files if file is not None}):
        if Path(file).name != file or not file.endswith(SUFFIX):
            raise ValueError(f"{checkpoint} must name weights beside its config, as *{SUFFIX}, got {file!r}.")
    if config is None and index is None:
        return  # no checkpoint at all, as `from_pretrained` will say
    # By another name, as parallel training saves them, they are in a folder.
    beside = Path(checkpoint, place.get("subfolder") or "").glob(f"*{SUFFIX}")
    _refuse_pickle_unless(index or files[-1] or any(beside) or _find(checkpoint, name, place), checkpoint)


def _downloaded(checkpoint: Checkpoint, place: dict[str, Any]) -> set[Path]:
    """The weights of a commit that are in the cache of the Hub's client, by links to their hashes."""
    is_here = Path(checkpoint).exists()
    found = [None if is_here else _find(checkpoint, name, place) for name in ("config.json", "adapter_config.json")]
    folders = {Path(path).parent for path in found if path is not None}
    links = [path for folder in folders for path in folder.glob(f"*{SUFFIX}") if path.is_symlink()]
    return {path for path in links if len(Path(os.readlink(path)).name) == _SHA256_LENGTH}


def _check_content(paths: set[Path]) -> None:
    """Reads files once more, and removes those of other content: but for transfers by Xet, the client compares sizes alone."""
    wrong = []
    for path in sorted(paths):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != Path(os.readlink(path)).name:
                wrong.append(path)
    for path in wrong:
        path.resolve().unlink(missing_ok=True)
        path.unlink()
    if wrong:
        raise ValueError(
            f"{wrong[0].name} must have the SHA-256 that the Hub says, got other content; it was removed."
        )


def _refuse_pickle_unless(is_safe: object, checkpoint: Checkpoint) -> None:
    if not is_safe:
        raise ValueError(
            f"`pretrained_model_name_or_path` must hold its weights as safetensors, got {checkpoint} without; convert them by "
            '`safetensors.torch.save_file(torch.load("pytorch_model.bin", weights_only=True), "model.safetensors")`.'
        )


def _read(checkpoint: Checkpoint, name: str, place: dict[str, Any]) -> dict[str, Any] | None:
    path = _find(checkpoint, name, place)
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(content).__name__}.")
    return content


def _find(checkpoint: Checkpoint, name: str, place: dict[str, Any]) -> str | None:
    return cached_file(checkpoint, name, _raise_exceptions_for_missing_entries=False, **place)


__all__ = ["SafeWeightsModel", "load_safetensors"]
