# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaModel, SiglipVisionConfig, SiglipVisionModel

from cyclemimic.planning.memory import (
    ParameterCounts,
    checkpointed_activation_bytes,
    host_bytes,
    layer_activation_bytes,
    model_state_bytes,
)

# A thousand parameters, a tenth of them trained.
COUNTS = ParameterCounts(trainable=100, frozen=900, largest_layer=50)


@pytest.mark.parametrize(
    "strategy, num_gpus, expected",
    [
        ("ddp", 8, 16 * 100 + 4 * 900),
        ("zero1", 4, 4 * 100 + 2 * 900 + 16 * 100 // 4),
        ("zero2", 4, 2 * 100 + 2 * 900 + 18 * 100 // 4),
        ("zero3", 4, 4 * 50 + (18 * 100 + 2 * 900) // 4),
        ("zero3_offload", 4, 4 * 50),
        ("fsdp2", 4, 4 * 50 + (16 * 100 + 4 * 900) // 4),
    ],
)
def test_model_states_by_hand(strategy, num_gpus, expected):
    assert model_state_bytes(strategy, COUNTS, num_gpus) == expected


def test_model_states_are_deepspeeds_estimates():
    zero2 = pytest.importorskip("deepspeed.runtime.zero.stage_1_and_2", reason="needs deepspeed")
    zero3 = pytest.importorskip("deepspeed.runtime.zero.stage3", reason="needs deepspeed")
    counts = ParameterCounts(trainable=7_000_000_000, frozen=0, largest_layer=130_000_000)
    total, layer = counts.trainable, counts.largest_layer
    for num_gpus in (1, 8):
        _, expected = zero2.estimate_zero2_model_states_mem_needs(total, num_gpus, cpu_offload=False)
        assert model_state_bytes("zero2", counts, num_gpus) == expected
        for strategy, offload in (("zero3", False), ("zero3_offload", True)):
            host, expected, _ = zero3.estimate_zero3_model_states_mem_needs(
                total, layer, num_gpus, cpu_offload=offload
            )
            assert model_state_bytes(strategy, counts, num_gpus) == expected
        assert host_bytes(counts) == host


@pytest.mark.parametrize("arguments, name", [(("zero4", 1), "strategy"), (("zero2", 0), "num_gpus")])
def test_bad_arguments(arguments, name):
    strategy, num_gpus = arguments
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        model_state_bytes(strategy, COUNTS, num_gpus)


def test_activations_by_hand():
    # 10 tokens, bfloat16: eight times the width and twice that of the MLP; gated, with half as many keys: 7 and 4.
    assert layer_activation_bytes(10, 8, 32) == 2 * 10 * (8 * 8 + 2 * 32)
    assert layer_activation_bytes(10, 8, 32, kv_ratio=0.5, gated=True) == 2 * 10 * (7 * 8 + 4 * 32)
    assert checkpointed_activation_bytes(10, 8, num_layers=3, layer_bytes=1000) == 2 * 10 * 8 * 3 + 1000


def saved_bytes(model: torch.nn.Module, *args: torch.Tensor, **kwargs: torch.Tensor) -> int:
    """Of all that autograd keeps for the backward pass but the weights, each piece of memory once."""
    weights = {weight.untyped_storage().data_ptr() for weight in [*model.parameters(), *model.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = model(*args, **kwargs).last_hidden_state
    assert output.requires_grad
    return sum(kept.values())


def test_activations_of_a_language_model_are_within_a_third_of_what_autograd_keeps():
    sizes = {"hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 4, "num_key_value_heads": 2}
    found = []
    for num_layers in (2, 4):
        config = LlamaConfig(vocab_size=64, num_hidden_layers=num_layers, **sizes)
        model = LlamaModel(config).to(torch.bfloat16).train()
        found.append(saved_bytes(model, torch.zeros(2, 96, dtype=torch.long), use_cache=False))
    computed = layer_activation_bytes(2 * 96, 128, 352, kv_ratio=0.5, gated=True)
    assert (found[1] - found[0]) / 2 == pytest.approx(computed, rel=1 / 3)


def test_activations_of_a_vision_model_are_within_a_third_of_what_autograd_keeps():
    found = []
    for num_layers in (2, 4):
        config = SiglipVisionConfig(
            hidden_size=128,
            intermediate_size=512,
            num_attention_heads=4,
            image_size=64,
            patch_size=8,
            num_hidden_layers=num_layers,
            vision_use_head=False,
        )
        model = SiglipVisionModel(config).to(torch.bfloat16).train()
        found.append(saved_bytes(model, pixel_values=torch.zeros(2, 3, 64, 64, dtype=torch.bfloat16)))
    assert (found[1] - found[0]) / 2 == pytest.approx(layer_activation_bytes(2 * 64, 128, 512), rel=1 / 3)
