# SPDX-License-Identifier: Apache-2.0
"""
How long a training step of the tokenizer takes, forward, backward and AdamW: the Genie objective of the package against
the same architecture written plainly (plain.py), and AC3 against the Genie objective.

    python measure.py
    python measure.py --size paper --batch_size 32 --device cuda --dtype bfloat16 --compile

Both have the same weights and the same loss; by how much it differs is printed. They take turns, and the medians of the rounds, and
of their ratios, are printed; on a GPU also the memory that each needs at most. TFLOP/s count the operations of a step by torch's own
counter, those that the backward pass computes again left out; `--peak` puts them in relation to what the chip can do.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Sequence

import plain
import torch
from torch.utils.flop_counter import FlopCounterMode

from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerForPreTraining
from cyclemimic.trainers.compiled_layers import compile_layers

SIZES: dict[str, dict[str, object]] = {
    "tiny": {
        "image_size": 32,
        "patch_size": 8,
        "vision_config": None,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "num_discriminator_layers": 1,
    },
    "small": {
        "image_size": 128,
        "patch_size": 8,
        "vision_config": None,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "num_encoder_layers": 4,
        "num_decoder_layers": 4,
        "num_discriminator_layers": 4,
    },
    "paper": {},
}
PLAIN, OWN, AC3 = "the Genie objective, written plainly", "the Genie objective", "AC3"


def make_model(size: str, ac3: bool, device: str) -> LatentActionTokenizerForPreTraining:
    """A tokenizer in training, AC3 with it from the first step."""
    torch.manual_seed(0)
    weights = {} if ac3 else {"cycle_weight": 0.0, "adversarial_weight": 0.0}
    with torch.device(device):
        model = LatentActionTokenizerForPreTraining(LatentActionTokenizerConfig(**SIZES[size], **weights)).train()
    if ac3:
        model.buffer.add(torch.randint(16, (256, 4), device=device), torch.arange(256, device=device) % 4)
        model.ac3_steps.fill_(1)
    return model


def make_step(
    loss: Callable[[], torch.Tensor], model: torch.nn.Module, dtype: torch.dtype, device: str
) -> Callable[[], float]:
    """A step of training, which gives the seconds that it took."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    kind = torch.device(device).type
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=kind == "cuda")

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(kind, dtype, enabled=dtype != torch.float32):
            value = loss()
        value.backward()
        optimizer.step()
        if kind == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    return step


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SIZES), default="small", help="of the model (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=8, help="pairs a step (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the autocast")
    parser.add_argument(
        "--compile",
        nargs="?",
        choices=["whole", "layers"],
        const="whole",
        help="the package's steps through torch.compile: as one graph, or layer by layer, which takes seconds to compile",
    )
    parser.add_argument(
        "--peak", type=float, metavar="TFLOP/S", help="what the device can do: TFLOP/s as a share of it"
    )
    parser.add_argument("--trace", metavar="FILE", help="also write what one AC3 step does, for chrome://tracing")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (default: %(default)s)")
    return parser.parse_args()


def write_trace(step: Callable[[], float], path: str) -> None:
    """One step by torch's profiler: a timeline as a file, and as a table the operations that take most of the time."""
    with torch.profiler.profile() as profile:
        step()
    profile.export_chrome_trace(path)
    on_device = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    print(profile.key_averages().table(sort_by=on_device, row_limit=12))


def compile_steps(model: LatentActionTokenizerForPreTraining, parts: str | None) -> None:
    """Through torch.compile, as `--compile` has it."""
    if parts == "whole":
        model._compute = torch.compile(model._compute, fullgraph=True)
    elif parts == "layers":
        compile_layers(model)


def operations(step: Callable[[], float]) -> int:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def timed(step: Callable[[], float], device: str) -> tuple[float, int]:
    """Seconds of a step, and on a GPU the bytes that it needs at most."""
    if not device.startswith("cuda"):
        return step(), 0
    torch.cuda.reset_peak_memory_stats(device)
    return step(), torch.cuda.max_memory_allocated(device)


def row(name: str, times: Sequence[float], num_bytes: int, num_operations: int, arguments: argparse.Namespace) -> str:
    """Of the table: median, extremes, pairs a second, TFLOP/s and memory."""
    median = statistics.median(times)
    rate = num_operations / median / 1e12
    share = f" ({rate / arguments.peak:.0%})" if arguments.peak else ""
    memory = f"{num_bytes / 1e9:.1f}" if num_bytes else "–"
    cells = [f"{1e3 * value:.0f}" for value in (median, min(times), max(times))]
    return f"| {name} | {' | '.join(cells)} | {arguments.batch_size / median:.1f} | {rate:.3g}{share} | {memory} |"


def main() -> None:
    arguments = parse()
    device, dtype = arguments.device, getattr(torch, arguments.dtype)
    genie, ac3 = (make_model(arguments.size, with_ac3, device) for with_ac3 in (False, True))
    config = genie.config
    shape = (2, arguments.batch_size, config.num_channels, config.image_size, config.image_size)
    pair = torch.randn(shape, device=device).unbind()
    bodies = torch.arange(arguments.batch_size, device=device) % 4
    genie(*pair, bodies)  # gives the words of the codebook their first values
    written_plainly = copy.deepcopy(genie.tokenizer)
    expected = plain.loss(written_plainly, *pair).item()
    difference = abs(copy.deepcopy(genie)(*pair, bodies).loss.item() - expected)
    ac3(*pair, bodies)  # asks once whether AC3 has joined
    steps = {
        PLAIN: make_step(lambda: plain.loss(written_plainly, *pair), written_plainly, dtype, device),
        OWN: make_step(lambda: genie(*pair, bodies).loss, genie, dtype, device),
        AC3: make_step(lambda: ac3(*pair, bodies).loss, ac3, dtype, device),
    }
    counts = {name: operations(step) for name, step in steps.items()}
    for model in (genie, ac3):
        compile_steps(model, arguments.compile)
    for step in steps.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    memory = dict.fromkeys(steps, 0)
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            seconds, memory[name] = timed(step, device)
            times[name].append(seconds)
    print(
        f"{sum(weight.numel() for weight in genie.parameters()) / 1e6:.0f} million parameters, batches of "
        f"{arguments.batch_size}, loss {expected:.4f}, differs by {difference:.1e}\n",
        flush=True,
    )
    print("| step | median, ms | lowest | highest | pairs a second | TFLOP/s | GB |\n|---|---|---|---|---|---|---|")
    for name, values in times.items():
        print(row(name, values, memory[name], counts[name], arguments))
    faster = statistics.median(one / own for one, own in zip(times[PLAIN], times[OWN], strict=True))
    cost = statistics.median(one / own for one, own in zip(times[AC3], times[OWN], strict=True))
    print(f"\nthe package's Genie step is {faster:.2f} times as fast as the plain one; AC3 costs {cost:.2f} of it")
    if arguments.trace:
        write_trace(steps[AC3], arguments.trace)


if __name__ == "__main__":
    main()
