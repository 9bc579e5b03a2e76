# SPDX-License-Identifier: Apache-2.0
"""The plan of a training, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from cyclemimic.planning.memory import STRATEGIES, host_bytes, model_state_bytes
from cyclemimic.planning.shapes import ModelShape

# Steps and global batch of the paper's pretraining (§4).
SCHEDULES = {"the paper's full mixture": (50_000, 512), "the paper's Bridge": (30_000, 256)}


def write_plan(
    shape: ModelShape,
    gpus: Sequence[int],
    batch_size: int,
    checkpointed: bool,
    step_time: float | None = None,
) -> str:
    """
    The table of one model.

    Args:
        shape ([`ModelShape`]): Of the model.
        gpus (`Sequence[int]`): Numbers of GPUs.
        batch_size (`int`): Samples a GPU.
        checkpointed (`bool`): Whether activations are computed again.
        step_time (`float`, *optional*): Measured seconds of a step of `batch_size` samples on one GPU.
    """
    counts = shape.counts
    activations = shape.activation_bytes(batch_size, checkpointed)
    lines = [
        f"**{shape.name}**: {_millions(counts.trainable)} parameters trained, {_millions(counts.frozen)} frozen.",
        "",
        f"Computed, not measured: GB a GPU in bfloat16 training, {batch_size} samples a GPU, of which "
        f"{_gigabytes(activations)} are activations{' (checkpointed)' if checkpointed else ''}.",
        "",
        f"| GPUs | {' | '.join(STRATEGIES)} |",
        "|---" * (len(STRATEGIES) + 1) + "|",
    ]
    for num_gpus in gpus:
        totals = (model_state_bytes(strategy, counts, num_gpus) + activations for strategy in STRATEGIES)
        lines.append(f"| {num_gpus} | {' | '.join(map(_gigabytes, totals))} |")
    lines += [
        "",
        f"zero3_offload also takes {_gigabytes(host_bytes(counts))} GB of main memory, shared out among nodes. Logits and the "
        "buffers of communication come on top.",
    ]
    if step_time is not None:
        lines += ["", *_schedule_lines(gpus, batch_size, step_time)]
    return "\n".join(lines) + "\n"


def gpu_hours(steps: int, global_batch: int, batch_size: int, step_time: float) -> float:
    """Of a schedule, where a GPU takes `step_time` seconds for `batch_size` samples, and none waits for another."""
    return steps * global_batch / batch_size * step_time / 3600


def _schedule_lines(gpus: Sequence[int], batch_size: int, step_time: float) -> list[str]:
    lines = [
        f"Measured by you: {step_time:g} s a step of {batch_size} samples, {3600 / step_time:,.0f} steps an hour. Computed from "
        "it, without the time that GPUs wait for each other:",
        "",
        f"| schedule | GPU hours | {' | '.join(f'days on {count}' for count in gpus)} |",
        "|---" * (len(gpus) + 2) + "|",
    ]
    for name, (steps, global_batch) in SCHEDULES.items():
        hours = gpu_hours(steps, global_batch, batch_size, step_time)
        days = (f"{hours / count / 24:,.1f}" for count in gpus)
        lines.append(f"| {name} ({steps:,} x {global_batch}) | {hours:,.0f} | {' | '.join(days)} |")
    return lines


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} million"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f}" if count >= 5e7 else f"{count / 1e9:.2g}"
