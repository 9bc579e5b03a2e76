# SPDX-License-Identifier: Apache-2.0
"""
How long a policy takes for a chunk of actions: `predict_action_chunk` against transformers' own `generate` followed by a
second forward of the backbone over the whole sequence, which is what there is without this package.

    python measure.py
    python measure.py --compile
    python measure.py --size 7b --device cuda --dtype bfloat16 --compile

Weights are random: how long a chunk takes does not depend on them. Both compute the same actions; the
largest difference is printed. They take turns, and the medians of the rounds, and of their ratios, are printed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from transformers import LlamaConfig, LlavaConfig, SiglipVisionConfig

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor

PLAIN = "generate, then a forward"
INSTRUCTION = "put the red block into the drawer, and close it"
IMAGE_SIZE, PATCH_SIZE = 224, 16
# Shapes of SmolLM2-135M and of LLaMA-2 7B, behind SigLIP's base and so400m vision models.
TEXT = {
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "135m": {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
    },
    "7b": {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008},
}
VISION = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "135m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "7b": {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304},
}
VOCABULARY = {"tiny": 512, "135m": 49_152, "7b": 32_064}


def make_policy(
    size: str, device: str, dtype: torch.dtype
) -> tuple[CycleMimicForActionPrediction, CycleMimicProcessor]:
    """A policy of that shape with random weights, and its processor."""
    torch.manual_seed(0)
    processor = CycleMimicProcessor.from_texts([INSTRUCTION], image_size=IMAGE_SIZE, patch_size=PATCH_SIZE)
    backbone = LlavaConfig(
        text_config=LlamaConfig(vocab_size=VOCABULARY[size], max_position_embeddings=2048, **TEXT[size]),
        vision_config=SiglipVisionConfig(
            image_size=IMAGE_SIZE, patch_size=PATCH_SIZE, vision_use_head=False, **VISION[size]
        ),
        image_token_id=processor.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    with torch.device(device):
        model = CycleMimicForActionPrediction(processor.make_config(backbone)).to(dtype).eval()
    return model, processor


@torch.no_grad()
def predict_plainly(model: CycleMimicForActionPrediction, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Tokens by `generate`, then all of the sequence once more for the action decoder."""

    def latent_tokens_only(batch_id: int, sent: torch.Tensor) -> list[int]:
        return model.latent_token_ids.tolist()

    generated = model.backbone.generate(
        **inputs,
        max_new_tokens=model.config.num_latent_tokens,
        min_new_tokens=model.config.num_latent_tokens,
        do_sample=False,
        prefix_allowed_tokens_fn=latent_tokens_only,
        pad_token_id=0,
    )
    sequence = torch.cat([generated, model.act_token_ids.expand(len(generated), -1)], dim=1)
    outputs = model.backbone(
        input_ids=sequence,
        pixel_values=inputs["pixel_values"],
        attention_mask=torch.ones_like(sequence),
        output_hidden_states=True,
    )
    states = outputs.hidden_states[-1]
    num_act_tokens, is_image = model.config.num_act_tokens, sequence == model.config.image_token_id
    visual_states = states[is_image].view(len(states), -1, states.shape[-1])
    return model.action_decoder(visual_states, states[:, -num_act_tokens:])


def seconds(work: Callable[[], object], device: str) -> float:
    """Time of a call, the device's work included."""
    start = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", choices=list(TEXT), default="135m", help="shape of the policy (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of weights and states")
    parser.add_argument("--batch_size", type=int, default=1, help="images at a time (default: %(default)s)")
    parser.add_argument(
        "--compile", action="store_true", help="and a third: predict_action_chunk through torch.compile"
    )
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    model, processor = make_policy(arguments.size, arguments.device, getattr(torch, arguments.dtype))
    images = np.random.default_rng(0).integers(0, 256, (arguments.batch_size, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    inputs = dict(processor(list(images), [INSTRUCTION] * arguments.batch_size).to(arguments.device))
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        PLAIN: lambda: predict_plainly(model, inputs),
        "predict_action_chunk": lambda: model.predict_action_chunk(**inputs),
    }
    if arguments.compile:
        mode = "reduce-overhead" if arguments.device.startswith("cuda") else None
        compiled = torch.compile(model.predict_action_chunk, fullgraph=True, mode=mode)
        ways["the same, compiled"] = lambda: compiled(**inputs)
    chunks = [work().clone() for work in ways.values()]
    difference = max((chunk - chunks[0]).abs().max().item() for chunk in chunks)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, work in ways.items():
            times[name].append(seconds(work, arguments.device))
    print(
        f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.0f} million parameters, "
        f"{inputs['input_ids'].shape[1]} tokens of prompt, largest difference of an action {difference:.1e}\n"
    )
    print("| | median, ms | lowest | highest | times as fast |\n|---|---|---|---|---|")
    for name, values in times.items():
        cells = [f"{1e3 * value:.0f}" for value in (statistics.median(values), min(values), max(values))]
        ratios = [plain / own for plain, own in zip(times[PLAIN], values, strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
