# SPDX-License-Identifier: Apache-2.0
"""What of a folder goes to the Hub, and whether it is fit to: no pickle, no file from elsewhere, no token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .names import names_hub_repository
from .published_card import publish_card
from .redaction import TOKEN_PATTERN

CARD = "README.md"
MAX_SHARD_BYTES = 5_000_000_000
WEIGHTS = ".safetensors"
LABELS = ".parquet"
_TEXTS = {".json", ".py", ".txt", ".md", ".jinja"}
# Suffixes of what is published of each kind of folder. All else stays here: pickles, states of training, logs.
_SUFFIXES = {
    "model": {*_TEXTS, WEIGHTS, ".model", ".png", ".svg"},
    "adapter": {*_TEXTS, WEIGHTS, ".model", ".png", ".svg"},
    "dataset": {LABELS, ".md"},
}
_STATES = {"trainer_state.json"}
# Weights, in shards or whole; which of a repository's a file belongs to.
_WEIGHTS_NAME = re.compile(r"(model|adapter_model)(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_TOKEN = re.compile(TOKEN_PATTERN.encode())


@dataclass(frozen=True)
class Publication:
    """A folder as it is to be on the Hub.

    Args:
        kind (`str`): A model (with its processors, or they alone), an adapter of one, or a data set of labels.
        files (`dict[str, Path | bytes]`): Name to file, or to content where it is another there than here.
    """

    kind: Literal["model", "adapter", "dataset"]
    files: dict[str, Path | bytes]

    @property
    def repo_type(self) -> Literal["model", "dataset"]:
        """The Hub's name for the kind of repository."""
        return "dataset" if self.kind == "dataset" else "model"

    def is_replaced(self, name: str) -> bool:
        """Whether a file that is on the Hub from before belongs to what this takes the place of, and would mix with it."""
        sent = set(map(_part_of, self.files)) - {None}
        # An adapter of other weights would be put on these as they are loaded.
        replaced = sent | ({"adapter_model"} if "model" in sent else set())
        return name not in self.files and _part_of(name) in replaced


def read_publication(
    folder: str | Path, base_model: str | None = None, token: str | None = None, repo_id: str | None = None
) -> Publication:
    """Checks a folder that `save_pretrained` or `cyclemimic label` has made.

    Args:
        folder (`str` or `Path`): Read, never written.
        base_model (`str`, *optional*): Id on the Hub of the model that an adapter belongs to, where the folder names a path.
        token (`str`, *optional*): No file may hold it.
        repo_id (`str`, *optional*): Where it goes: its card then shows how to load it from there.

    Raises:
        ValueError: it is no such folder, or it holds what must not be published.
    """
    folder = Path(folder)
    kind = _kind_of(folder)
    if base_model is not None and kind != "adapter":
        raise ValueError(f"`base_model` must be left out for what is no adapter, got {base_model} for {folder}.")
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix in _SUFFIXES[kind])
    files: dict[str, Path | bytes] = {
        name: folder / name for name in names if name not in _STATES and not name.startswith(".")
    }
    _check_files(folder, list(files), token)
    named = None
    if kind != "dataset":
        _check_carries_code(folder, files)
        _check_is_whole(folder, files)
    if kind == "adapter":
        named, base_model = _base_models(folder, base_model)
        if named != base_model:
            files["adapter_config.json"] = _with_base_model(folder, base_model)
    if CARD in files and (repo_id is not None or base_model is not None):
        text = (folder / CARD).read_text(encoding="utf-8")
        files[CARD] = publish_card(text, repo_id, base_model, named).encode()
    return Publication(kind, files)


def check_weights(folder: str | Path) -> None:
    """Raises `ValueError` where the weights of a checkpoint are pickled, or its index names files outside of it."""
    folder = Path(folder)
    for index in folder.glob(f"*{WEIGHTS}.index.json"):
        shards = set(_read_json(index).get("weight_map", {}).values())
        for shard in sorted(shards):
            if Path(shard).name != shard:
                raise ValueError(f"{index} must name files beside it, got {shard!r}.")
    pickled = sorted(path.name for path in folder.glob("pytorch_model*.bin"))
    if pickled and not any(folder.glob(f"*{WEIGHTS}")):
        raise ValueError(f"{folder} must hold its weights as safetensors, got the pickle {pickled[0]}.")


def _kind_of(folder: Path) -> Literal["model", "adapter", "dataset"]:
    kinds: dict[Literal["adapter", "model"], list[str]] = {
        "adapter": ["adapter_config.json"],
        "model": ["config.json", "processor_config.json", "preprocessor_config.json"],
    }
    for kind, names in kinds.items():
        if any((folder / name).is_file() for name in names):
            return kind
    if any(folder.glob(f"*{LABELS}")):
        return "dataset"
    raise ValueError(
        f"`folder` must be a checkpoint, an adapter or labels, got {folder}, which holds no config.json, "
        "adapter_config.json or Parquet file."
    )


def _check_files(folder: Path, names: list[str], token: str | None) -> None:
    for name in names:
        path = folder / name
        if path.resolve().parent != folder.resolve():
            raise ValueError(f"`folder` must hold its files itself, got {path}, a link to {path.resolve()}.")
        if path.suffix == WEIGHTS:
            _check_safetensors(path)
        content = _readable(path)
        if _TOKEN.search(content) or (token is not None and token.encode() in content):
            raise ValueError(f"`folder` must hold no access token, and {path} does; remove it, and revoke it.")
    check_weights(folder)


def _readable(path: Path) -> bytes:
    """What a token could stand in: a file, but of tensors and tables what describes them alone."""
    if path.suffix == WEIGHTS:
        with path.open("rb") as file:
            return file.read(int.from_bytes(file.read(8), "little"))
    if path.suffix == LABELS:
        import pyarrow.parquet

        metadata = pyarrow.parquet.read_schema(path).metadata or {}
        return b"\n".join([*metadata, *metadata.values()])
    return path.read_bytes()


def _check_safetensors(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except SafetensorError as error:
        raise ValueError(f"{path} must be a file of safetensors: {error}.") from error
    if path.stat().st_size > MAX_SHARD_BYTES:
        raise ValueError(
            f"{path} must have at most {MAX_SHARD_BYTES} bytes, got {path.stat().st_size}; load the model and save it "
            "again, in shards."
        )


def _check_carries_code(folder: Path, files: dict[str, Path | bytes]) -> None:
    configs = [
        _read_json(folder / name)
        for name in ("config.json", "processor_config.json", "preprocessor_config.json")
        if name in files
    ]
    for reference in [reference for config in configs for reference in _code_of(config)]:
        if f"{reference.split('.')[0]}.py" not in files:
            raise ValueError(f"`folder` must hold the code that its `auto_map` names, got no {reference}.")
    if not all(config.get("auto_map") for config in configs if _is_own(config)):
        raise ValueError(
            f"`folder` must carry its code, got {folder} from an older version; load it and save it again with "
            "`save_pretrained`."
        )


def _check_is_whole(folder: Path, files: dict[str, Path | bytes]) -> None:
    """Raises `ValueError` where a model or adapter comes without its weights, or some of them."""
    for index in (name for name in files if name.endswith(f"{WEIGHTS}.index.json")):
        missing = sorted(set(_read_json(folder / index).get("weight_map", {}).values()) - files.keys())
        if missing:
            raise ValueError(f"`folder` must hold all weights that {index} names, got no {missing[0]} in {folder}.")
    has_weights = any(name.endswith(WEIGHTS) for name in files)
    if "config.json" in files and not has_weights:
        # LeRobot's folder of a policy, which has the checkpoint within.
        nested = next((path.parent.name for path in sorted(folder.glob(f"*/*{WEIGHTS}"))), None)
        remedy = f"; push its folder {nested}" if nested else ""
        raise ValueError(f"`folder` must hold the weights of its config.json, got none in {folder}{remedy}.")
    if "adapter_config.json" in files and not has_weights:
        raise ValueError(f"`folder` must hold the weights of its adapter_config.json, got none in {folder}.")


def _part_of(name: str) -> str | None:
    """What of a repository a file's name makes it a part of: the model's or the adapter's weights, or the labels."""
    if name.endswith(LABELS) and "/" not in name:
        return LABELS
    if name == "adapter_config.json":
        return "adapter_model"
    found = _WEIGHTS_NAME.fullmatch(name)
    return None if found is None else found[1]


def _is_own(config: dict[str, Any]) -> bool:
    """Whether a model or processor is of this package: transformers' own need no code."""
    kinds = (config.get(name) for name in ("model_type", "processor_class", "image_processor_type"))
    return any(re.search("cyclemimic|latent_?action|prismatic", str(kind), re.IGNORECASE) for kind in kinds)


def _code_of(config: dict[str, Any]) -> Iterator[str]:
    for reference in (config.get("auto_map") or {}).values():
        yield from filter(None, [reference] if isinstance(reference, str) else reference)


def _base_models(folder: Path, base_model: str | None) -> tuple[str | None, str]:
    """The model that an adapter belongs to, as its files name it and as the Hub does."""
    named = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    base_model = named if base_model is None else base_model
    if not names_hub_repository(str(base_model)):
        raise ValueError(
            f"`base_model` must be the Hub id of the model that the adapter belongs to, got {base_model}."
        )
    return named, str(base_model)


def _with_base_model(folder: Path, base_model: str) -> bytes:
    config = _read_json(folder / "adapter_config.json")
    return json.dumps({**config, "base_model_name_or_path": base_model}, indent=2).encode()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} must be JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(values).__name__}.")
    return values
