# SPDX-License-Identifier: Apache-2.0
"""Training of a part of a policy through PEFT: low-rank adapters on its backbone, or the backbone left as it is."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from cyclemimic.models.cyclemimic.modeling_cyclemimic import CycleMimicPreTrainedModel


def add_adapter(
    model: CycleMimicPreTrainedModel | PeftModel, rank: int | None = None, alpha: int = 16, dropout: float = 0.0
) -> PeftModel:
    """
    Freezes a policy but for: low-rank adapters on every linear layer of the backbone (paper §4; OpenVLA's choice of
    layers); the embedding and output rows of the new tokens, which no pretraining has seen; the action decoder,
    where there is one, in full.

    Args:
        model ([`CycleMimicPreTrainedModel`]): Changed in place.
        rank (`int`, *optional*): Of the adapters; by default there are none, and the backbone is frozen.
        alpha (`int`, *optional*, defaults to 16): The adapters' output is scaled by `alpha / rank`.
        dropout (`float`, *optional*, defaults to 0.0): Share of the adapters' inputs that is dropped.

    Returns:
        [`~peft.PeftModel`]: Around the model. Its `save_pretrained` saves what is trained, and nothing else.

    Raises:
        ValueError: it has adapters already.
    """
    if isinstance(model, PeftModel) or has_adapters(model):
        raise ValueError(
            "`model` must have no adapters yet where `lora_rank` or `freeze_backbone` is to put some on it; merge them "
            "(`merge_and_unload`), or load it anew."
        )
    names = {module: name for name, module in model.named_modules()}
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    # Tied rows are trained once: PEFT sees in the config that they are.
    tables = [embeddings] if head.weight is embeddings.weight else [embeddings, head]
    has_decoder = getattr(model, "action_decoder", None) is not None
    config = LoraConfig(
        r=8 if rank is None else rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=DUMMY_TARGET_MODULES if rank is None else _linear_layers(model),
        modules_to_save=["action_decoder"] if has_decoder else None,
        trainable_token_indices={names[table]: model.config.new_token_ids for table in tables},
    )
    return get_peft_model(model, config)


def has_adapters(model: nn.Module) -> bool:
    """Whether PEFT has put adapters into a model."""
    return any(isinstance(module, BaseTunerLayer) for module in model.modules())


def check_adapters(model: nn.Module) -> None:
    """Raises `ValueError` for adapters of a model that could not be saved with it, or not be gone on with."""
    if isinstance(model, PeftModel):
        if not isinstance(model.active_peft_config, LoraConfig):
            raise ValueError(f"`model` must have adapters of LoRA, got {model.active_peft_config.peft_type.value}.")
    elif has_adapters(model):
        raise ValueError("`model` must be the PeftModel where it has adapters, got what is within it.")


def weightless_copy(model: PeftModel) -> PeftModel:
    """The same with parameters that have a shape and no values, for [`merged_copy`] to fill in."""
    # What deepcopy finds here it takes for copied. ZeRO-3 has emptied the parameters, and keeps their shapes.
    copies = {
        id(parameter): nn.Parameter(
            parameter.new_empty(getattr(parameter, "ds_shape", parameter.shape), device="meta")
        )
        for parameter in model.parameters()
    }
    return copy.deepcopy(model, copies)


def merged_copy(model: PeftModel, state_dict: dict[str, torch.Tensor] | None = None) -> CycleMimicPreTrainedModel:
    """
    The policy with what was trained in its own weights, in main memory.

    Args:
        model ([`~peft.PeftModel`]): Stays as it is.
        state_dict (`dict[str, torch.Tensor]`, *optional*): Values in place of the model's.
    """
    state_dict = model.state_dict() if state_dict is None else state_dict
    # As above: so the device need not have room for two models.
    copies = {id(buffer): state_dict.get(name, buffer) for name, buffer in model.named_buffers()}
    copies |= {id(parameter): state_dict[name] for name, parameter in model.named_parameters()}
    copies = {key: tensor.detach().to("cpu", copy=True) for key, tensor in copies.items()}
    for parameter in model.parameters():
        copies[id(parameter)] = nn.Parameter(copies[id(parameter)], requires_grad=False)
    return copy.deepcopy(model, copies).merge_and_unload()


def check_resumed(model: nn.Module, checkpoint: str | Path) -> None:
    """Raises `ValueError` unless the checkpoint is of a run that trained the same part of the model."""
    is_adapter = (Path(checkpoint) / "adapter_config.json").is_file()
    kept = LoraConfig.from_pretrained(str(checkpoint)) if is_adapter else None
    own = model.active_peft_config if isinstance(model, PeftModel) else None
    found, wanted = _described(kept), _described(own)
    if found != wanted:
        raise ValueError(f"`resume_from_checkpoint` must be of a run {wanted}, as this is, got one {found}.")
    if kept is not None and own is not None and set(kept.target_modules) != set(own.target_modules):
        raise ValueError(
            f"`resume_from_checkpoint` must be of a run with adapters on {len(own.target_modules)} layers, as this is "
            f"(`freeze_vision`), got one on {len(kept.target_modules)}."
        )


def _described(config: LoraConfig | None) -> str:
    if config is None:
        return "in full"
    if config.target_modules == DUMMY_TARGET_MODULES:
        return "with `freeze_backbone`"
    return f"with `lora_rank` {config.r} and `lora_alpha` {config.lora_alpha}"


def _linear_layers(model: CycleMimicPreTrainedModel) -> list[str]:
    """Names of the backbone's linear layers, the vocabulary head and what is frozen already apart."""
    # Which reads the weights of its own linear layer past the layer.
    inside = {
        part
        for module in model.backbone.modules()
        if isinstance(module, nn.MultiheadAttention)
        for part in module.modules()
    }
    head = model.get_output_embeddings()
    return [
        f"backbone.{name}"
        for name, module in model.backbone.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and module is not head
        and module not in inside
    ]
