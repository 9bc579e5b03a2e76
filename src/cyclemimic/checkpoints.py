# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the package, by folder or by their id on the Hub, checked before their weights are loaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from cyclemimic import (
    CycleMimicConfig,
    CycleMimicForActionPrediction,
    CycleMimicProcessor,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
)
from cyclemimic.hub.names import is_repository_id, load_pinned, split_revision
from cyclemimic.hub.publication import check_weights
from cyclemimic.hub.redaction import first_line

Model = TypeVar("Model", bound=PreTrainedModel)


def read_config(argument: str, checkpoint: str | Path, model_type: str) -> PreTrainedConfig:
    """The configuration of a checkpoint of the package: a folder, or an id on the Hub.

    Args:
        argument (`str`): Which argument named it, for messages.
        checkpoint (`str` or `Path`): What it named; an id may end with `@` and a revision.
        model_type (`str`): What it must be, e.g. `"cyclemimic"`.

    Raises:
        ValueError: there is no such checkpoint, it is one of another model, or its folder has weights that are pickled or
            elsewhere.
    """
    if not (Path(checkpoint).exists() or is_repository_id(split_revision(checkpoint)[0])):
        # Which the Hub would be asked for, and a machine without a connection would blame that.
        raise ValueError(
            f"`{argument}` must be a checkpoint folder or a Hub id, got {checkpoint}, no folder and no OWNER/NAME."
        )
    if (Path(checkpoint) / "adapter_config.json").is_file() and not (Path(checkpoint) / "config.json").is_file():
        raise ValueError(
            f"`{argument}` must be a whole checkpoint, got the adapter {checkpoint}; give the folder above it, where "
            "training has saved the whole, or merge it into its base as its card says."
        )
    check_weights(checkpoint)
    try:
        # Code that comes with a checkpoint would be asked for before its type is seen, and is never needed.
        config = load_pinned(AutoConfig.from_pretrained, checkpoint, trust_remote_code=False)
    except StrictDataclassError as error:
        # Which says the field in one line, and what is wrong with it in the next.
        config, reason = None, " ".join(str(error).split())
    except (OSError, ValueError) as error:
        config, reason = None, first_line(error)
    if config is None:
        raise ValueError(f"`{argument}` must be a checkpoint folder or a Hub id, got {checkpoint}: {reason}")
    if config.model_type != model_type:
        raise ValueError(
            f"`{argument}` must be a checkpoint of model type {model_type}, got {checkpoint} of {config.model_type}."
        )
    return config


def read_finetuned_config(argument: str, checkpoint: str | Path) -> CycleMimicConfig:
    """The configuration of a policy that can act.

    Raises:
        ValueError: as [`read_config`]; or the policy has not been fine-tuned.
    """
    config = cast(CycleMimicConfig, read_config(argument, checkpoint, "cyclemimic"))
    if not config.is_finetuned:
        raise ValueError(f"`{argument}` must be fine-tuned, to act, got {checkpoint}, which is not.")
    return config


def load_whole(
    load: Callable[..., Any], argument: str, checkpoint: str | Path, may_lack: tuple[str, ...] = (), **options: Any
) -> Any:
    """A model, by its class's `from_pretrained`, of a checkpoint that has all of its weights: others would be random.

    Args:
        load (`Callable`): `from_pretrained`.
        argument (`str`): Which argument named the checkpoint, for messages.
        checkpoint (`str` or `Path`): Folder, or id on the Hub.
        may_lack (`tuple[str, ...]`, *optional*): How the names of weights begin that are to be new where it has none.
        options: Further arguments of `from_pretrained`.

    Raises:
        ValueError: it lacks some.
    """
    model, info = load_pinned(load, checkpoint, output_loading_info=True, **options)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(may_lack))
    if missing:
        raise ValueError(
            f"`{argument}` must be a checkpoint with all weights, got {checkpoint}, which lacks {len(missing)}, such as "
            f"{missing[0]}; one that a Trainer put adapters on is to be saved by the Trainer."
        )
    return model


def load_processor(checkpoint: str | Path) -> CycleMimicProcessor:
    """The processor of a policy."""
    return load_pinned(CycleMimicProcessor.from_pretrained, checkpoint)


def load_finetuned(
    checkpoint: str | Path, device: torch.device, dtype: str | None = None
) -> CycleMimicForActionPrediction:
    """A policy that can act, by [`read_finetuned_config`], in evaluation mode on the device, in its own dtype or another."""
    model = load_whole(CycleMimicForActionPrediction.from_pretrained, "policy", checkpoint, dtype=dtype or "auto")
    return place(model, device)


def load_tokenizer(
    checkpoint: str | Path, device: torch.device
) -> tuple[LatentActionTokenizerModel, LatentActionTokenizerImageProcessor]:
    """A trained tokenizer, in evaluation mode on the device, and its image processor.

    Raises:
        ValueError: there is no such checkpoint, it is one of another model, or lacks weights.
    """
    read_config("tokenizer", checkpoint, "latent_action_tokenizer")
    tokenizer = place(load_whole(LatentActionTokenizerModel.from_pretrained, "tokenizer", checkpoint), device)
    return tokenizer, load_pinned(LatentActionTokenizerImageProcessor.from_pretrained, checkpoint)


def choose_device(name: str | None) -> torch.device:
    """The device of that name; without a name, the GPU where there is one.

    Raises:
        ValueError: torch does not know it, or it is not there.
    """
    if name is None and not torch.cuda.is_available():
        return torch.device("cpu")
    if name is None or (name == "cuda" and torch.cuda.is_available()):
        # Processes of one machine, started by `accelerate launch` or `torchrun`, take a GPU each.
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    try:
        return torch.empty(0, device=name).device
    # A build of torch without CUDA says so in an assertion.
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ValueError(f"`device` must be one that torch can use here, such as cpu, got {name}: {reason}") from error


def place(model: Model, device: torch.device) -> Model:
    """The model, moved to the device."""
    # transformers wraps `Module.to` in a way in which type checkers take the device for the model itself.
    movable: Any = model
    return movable.to(device)
