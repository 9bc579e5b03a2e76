# SPDX-License-Identifier: Apache-2.0
"""
What a training step takes of one GPU, beside what `cyclemimic plan` computes: memory, time and operations (those of forward and
backward; what checkpointing computes again is time, and not counted).

    python measure.py --model policy-0.5b policy-2b --gradient_checkpointing --peak 790

Weights are random and batches as large as real ones: a step is forward and backward in bfloat16 autocast, as Trainer's mixed
precision does it, and AdamW.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedConfig, PreTrainedModel

from cyclemimic import CycleMimicConfig, CycleMimicForActionPrediction, LatentActionTokenizerForPreTraining
from cyclemimic.planning.memory import model_state_bytes
from cyclemimic.planning.shapes import NUM_TEXT_TOKENS, config_of, shape_of


def make_model(config: PreTrainedConfig, device: str) -> PreTrainedModel:
    """The model of a configuration in training, with random weights."""
    kind = (
        CycleMimicForActionPrediction if isinstance(config, CycleMimicConfig) else LatentActionTokenizerForPreTraining
    )
    with torch.device(device):
        model = kind(config).train()
    if isinstance(model, LatentActionTokenizerForPreTraining) and config.uses_ac3:
        # AC3 has joined, and there are actions to sample.
        codes = torch.randint(config.codebook_size, (64, config.num_latent_tokens), device=device)
        model.buffer.add(codes, torch.arange(64, device=device) % 4)
        model.ac3_steps.fill_(1)
    return model


def make_batch(config: PreTrainedConfig, batch_size: int, device: str) -> dict[str, torch.Tensor]:
    """Random inputs of the size of real ones."""
    if not isinstance(config, CycleMimicConfig):
        shape = (batch_size, config.num_channels, config.image_size, config.image_size)
        return {name: torch.randn(shape, device=device) for name in ("pixel_values", "future_pixel_values")}
    size = config.backbone_config.vision_config.image_size
    images = torch.full((batch_size, config.num_image_tokens), config.image_token_id)
    prompt = torch.randint(config.image_token_id, (batch_size, NUM_TEXT_TOKENS - config.num_latent_tokens))
    codes = torch.randint(config.codebook_size, (batch_size, config.num_latent_tokens))
    latent = torch.tensor(config.latent_token_ids)[codes]
    input_ids = torch.cat((images, prompt, latent), dim=1)
    labels = torch.cat((torch.full_like(input_ids[:, : -config.num_latent_tokens], -100), latent), dim=1)
    batch = {
        "input_ids": input_ids,
        "labels": labels,
        "pixel_values": torch.rand(batch_size, 3, size, size) * 2 - 1,
        "actions": torch.rand(batch_size, config.chunk_size, config.action_dim) * 2 - 1,
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def operations(model: PreTrainedModel, batch: dict[str, torch.Tensor], device: str) -> int:
    """Floating-point operations of a step a sample, counted on two, as one alone cannot be standardised."""
    few = {name: values[:2] for name, values in batch.items()}
    # By products of matrices: for grouped keys, torch's counter knows no other attention in all versions.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        make_step(model, few, device, optimizes=False)()
    return counter.get_total_flops() // 2


def make_step(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], device: str, optimizes: bool = True
) -> Callable[[], None]:
    """A step of training, with or without the optimizer's."""
    kind = torch.device(device).type
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True) if optimizes else None

    def step() -> None:
        model.zero_grad()
        with torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
            loss = model(**batch).loss
        loss.backward()
        if optimizer is not None:
            optimizer.step()
        if kind == "cuda":
            torch.cuda.synchronize(device)

    return step


def measure(name: str, arguments: argparse.Namespace) -> str:
    """A row of the table."""
    device, config, shape = arguments.device, config_of(name), shape_of(name)
    torch.manual_seed(0)
    model, batch = make_model(config, device), make_batch(config, arguments.batch_size, device)
    num_operations = arguments.batch_size * operations(model, batch, device)
    if arguments.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    step = make_step(model, batch, device)
    step()
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    times = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    rate = num_operations / seconds / 1e12
    share = f" ({rate / arguments.peak:.0%})" if arguments.peak else ""
    planned = model_state_bytes("ddp", shape.counts, 1)
    planned += shape.activation_bytes(arguments.batch_size, arguments.gradient_checkpointing)
    measured = f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f}" if on_gpu else "–"
    samples = arguments.batch_size / seconds
    return f"| {name} | {planned / 1e9:.1f} | {measured} | {1e3 * seconds:.0f} | {samples:.1f} | {rate:.3g}{share} |"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", required=True, help="a preset of `cyclemimic plan`, or a checkpoint")
    parser.add_argument("--batch_size", type=int, default=32, help="samples a step (default: %(default)s)")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="compute activations again")
    parser.add_argument("--device", default="cuda", help="torch device (default: %(default)s)")
    parser.add_argument(
        "--peak", type=float, metavar="TFLOP/S", help="what the device can do: TFLOP/s as a share of it"
    )
    parser.add_argument("--rounds", type=int, default=5, help="steps that are timed (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    print("| model | GB computed | GB measured | ms a step | samples a second | TFLOP/s |\n|---|---|---|---|---|---|")
    for name in arguments.model:
        print(measure(name, arguments), flush=True)


if __name__ == "__main__":
    main()
