# SPDX-License-Identifier: Apache-2.0
"""Bytes a GPU must hold of a model in training, by strategy (Rajbhandari et al. 2020, and DeepSpeed's own estimators)."""

from __future__ import annotations

from dataclasses import dataclass

STRATEGIES = ("ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp2")


@dataclass(frozen=True)
class ParameterCounts:
    """
    Args:
        trainable (`int`), frozen (`int`): Parameters that are trained, and that are not.
        largest_layer (`int`): Parameters of the largest layer, or of what else is not split, such as an embedding, which is
            whole on every GPU while it computes.
    """

    trainable: int
    frozen: int
    largest_layer: int


def model_state_bytes(strategy: str, counts: ParameterCounts, num_gpus: int) -> int:
    """
    Weights, gradients and the state of AdamW on one GPU, in bfloat16 training.

    Trainer's own mixed precision (DDP, FSDP2) keeps float32 weights and gradients: 4 + 4 + 8 bytes a parameter. DeepSpeed
    keeps bfloat16 weights and gradients, and float32 weights, gradients and moments: 2 + 2 + 4 + 4 + 8.

    Raises:
        ValueError: an unknown strategy, or fewer GPUs than one.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"`strategy` must be one of {list(STRATEGIES)}, got {strategy!r}.")
    if num_gpus < 1:
        raise ValueError(f"`num_gpus` must be at least 1, got {num_gpus}.")
    trainable, frozen, gathered = counts.trainable, counts.frozen, 4 * counts.largest_layer
    shared = {
        "ddp": (16 * trainable + 4 * frozen, 0),
        "zero1": (4 * trainable + 2 * frozen, 16 * trainable),
        "zero2": (2 * trainable + 2 * frozen, 18 * trainable),
        "zero3": (gathered, 18 * trainable + 2 * frozen),
        "zero3_offload": (gathered, 0),
        "fsdp2": (gathered, 16 * trainable + 4 * frozen),
    }
    whole, divided = shared[strategy]
    return whole + divided // num_gpus


def host_bytes(counts: ParameterCounts) -> int:
    """Main memory of all nodes together that ZeRO-3 needs with everything offloaded, DeepSpeed's margin of a half included."""
    return int(1.5 * (18 * counts.trainable + 2 * counts.frozen))


def layer_activation_bytes(
    num_tokens: int, hidden_size: int, intermediate_size: int, kv_ratio: float = 1.0, gated: bool = False
) -> int:
    """
    What one transformer layer keeps for its backward pass in bfloat16, without the attention matrix, which fused attention
    does not store (the terms of Korthikanti et al. 2022, eq. 2, without dropout): inputs and outputs of both norms, query,
    key, value, what attention returns; and of the MLP the results of its first product, of the activation and, gated, of
    the gate and of their product.

    Args:
        num_tokens (`int`): Of the whole batch.
        hidden_size, intermediate_size (`int`): Widths.
        kv_ratio (`float`): Key heads over query heads.
        gated (`bool`): Whether the MLP is gated (LLaMA, Gemma).
    """
    width = (6 + 2 * kv_ratio) * hidden_size + (4 if gated else 2) * intermediate_size
    return int(2 * num_tokens * width)


def checkpointed_activation_bytes(num_tokens: int, hidden_size: int, num_layers: int, layer_bytes: int) -> int:
    """The same of a model whose layers keep their inputs alone, and of the one layer that is computed again."""
    return 2 * num_tokens * hidden_size * num_layers + layer_bytes
