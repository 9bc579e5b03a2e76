# SPDX-License-Identifier: Apache-2.0
"""
Training runs for `test_parity.py` to compare. As a program, `parity_runs.py WORLD_SIZE FOLDER STRATEGY [...]` is one
process of those that train every case with every strategy, in turn; `FOLDER/STRATEGY/CASE` gets the losses and the model.
"""

from __future__ import annotations

import gc
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState, DistributedType, GradientState, PartialState
from transformers import (
    AutoModelForImageTextToText,
    Dinov2Config,
    IJepaConfig,
    LlamaConfig,
    LlavaConfig,
    Trainer,
    TrainingArguments,
    set_seed,
)

from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    CycleMimicTrainer,
    CycleMimicTrainingArguments,
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerTrainer,
    LatentActionTokenizerTrainingArguments,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import AC3_CHECK_STEPS

STEPS = 20
GLOBAL_BATCH_SIZE = 8
NUM_SAMPLES = 40
NUM_NEW_TOKENS = 20
ACTION_DECODER = {"action_decoder_hidden_size": 16, "action_decoder_num_heads": 2}
CASES = ("tokenizer", "finetune", "lora")
# Not of ZeRO, which counts AdamW's steps for all weights together: AC3 joins in the middle, and the discriminator begins.
JOINING = "joining"
# Of ZeRO-3 alone: a policy is made of a backbone, whose vocabulary grows.
RESIZED = "resized"
ZERO_STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}
SINGLE, DDP, FSDP = "single", "ddp", "fsdp"


def run(strategy: str, case: str, world_size: int, folder: Path) -> None:
    """Trains from the models in `folder` (`save_initial_models`), and saves the model and what was logged."""
    # So that the next strategy finds nothing of the one before.
    AcceleratorState._reset_state()
    GradientState._reset_state()
    changes: dict[str, Any] = {"per_device_train_batch_size": GLOBAL_BATCH_SIZE // world_size}
    if strategy in ZERO_STAGES:
        changes["deepspeed"] = deepspeed_config(ZERO_STAGES[strategy])
    if strategy == FSDP:
        changes |= {"fsdp": True, "fsdp_config": {"version": 2}}
    output = folder / strategy / case
    trainer = make_trainer(case, folder, output, **changes)
    trainer.train()
    trainer.save_model(str(output / "model"))
    if trainer.is_world_process_zero():
        record = {
            "engine": engine_of(trainer),
            "world_size": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
            "lines": [line for line in trainer.state.log_history if "loss" in line],
        }
        (output / "record.json").write_text(json.dumps(record), encoding="utf-8")
    del trainer
    gc.collect()


def engine_of(trainer: Trainer) -> str:
    """What trains: the class of the wrapper, with the stage of ZeRO."""
    model = trainer.model_wrapped
    name = "FSDPModule" if isinstance(model, torch.distributed.fsdp.FSDPModule) else type(model).__name__
    return f"{name} {model.zero_optimization_stage()}" if name == "DeepSpeedEngine" else name


def deepspeed_config(stage: int) -> dict[str, Any]:
    return {
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
    }


class Samples(torch.utils.data.Dataset):
    def __init__(self, columns: dict[str, torch.Tensor]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


def make_trainer(case: str, folder: Path, output_dir: Path, **changes: Any) -> Trainer:
    arguments = {
        "output_dir": str(output_dir),
        "max_steps": STEPS,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 3,
        "learning_rate": 1e-3,
        # Where the gradient is nothing but rounding, AdamW would make whole steps of it.
        "adam_epsilon": 1e-3,
    } | changes
    if case in ("tokenizer", JOINING):
        arguments = prepared(LatentActionTokenizerTrainingArguments(**arguments))
        model = LatentActionTokenizerForPreTraining.from_pretrained(folder / case)
        return LatentActionTokenizerTrainer(model, arguments, train_dataset=pairs_of_frames())
    extra = {
        "finetune": {"gradient_checkpointing": True},
        "lora": {"lora_rank": 2},
        RESIZED: {"learning_rate": 0.0, "max_steps": 1},
    }
    arguments = prepared(CycleMimicTrainingArguments(**arguments | extra.get(case, {})))
    set_seed(3)
    if case == RESIZED:
        model = CycleMimicForLatentActionPrediction.from_backbone(str(folder / "backbone"), make_processor())
    else:
        model = CycleMimicForActionPrediction.from_pretrained(folder / "policy")
    # Of the adapters that it adds.
    set_seed(3)
    return CycleMimicTrainer(
        model, arguments, train_dataset=demonstrations(make_processor(), with_actions=case != RESIZED)
    )


def prepared(arguments: TrainingArguments) -> TrainingArguments:
    if arguments.fsdp:
        # accelerate, to which these were made known just now, lets FSDP run on GPUs alone. torch's, which it calls, runs on
        # a CPU as well.
        PartialState().distributed_type = DistributedType.MULTI_GPU
    return arguments


def save_initial_models(folder: Path) -> None:
    """What every run starts from."""
    set_seed(0)
    make_tokenizer(AC3_CHECK_STEPS).save_pretrained(folder / "tokenizer")
    # Asked again five steps on.
    make_tokenizer(AC3_CHECK_STEPS - 5).save_pretrained(folder / JOINING)
    processor = make_processor()
    backbone = AutoModelForImageTextToText.from_config(make_backbone_config(processor, num_new=NUM_NEW_TOKENS))
    backbone.save_pretrained(folder / "backbone")
    policy = CycleMimicForActionPrediction.from_backbone(backbone, processor, **ACTION_DECODER)
    policy.save_pretrained(folder / "policy")


def make_tokenizer(steps: int) -> LatentActionTokenizerForPreTraining:
    """On a frozen vision model, with AC3 about to join after so many steps, and actions of two bodies in its buffer."""
    config = LatentActionTokenizerConfig(
        image_size=16,
        patch_size=4,
        vision_config=Dinov2Config(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
        ),
        hidden_size=16,
        num_attention_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_discriminator_layers=1,
        codebook_size=8,
        num_latent_tokens=2,
        codebook_dim=4,
        buffer_batches=2,
        buffer_batch_size=6,
        dead_code_steps=3,
        cycle_ramp_steps=40,
        cycle_weight=0.1,
        adversarial_weight=0.1,
        # Drawn frame by frame on each rank, so one process and two draw other numbers.
        generated_noise_std=0.0,
    )
    model = LatentActionTokenizerForPreTraining(config)
    model.steps.fill_(steps)
    model.ac3_steps.fill_(1)
    model.buffer.add(torch.randint(8, (6, 2)), torch.arange(6) % 2)
    return model


def pairs_of_frames() -> Samples:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(NUM_SAMPLES, 3, 16, 16, generator=generator)
    # Some pairs move much, others little: no half of a batch is like the other.
    change = torch.randn(NUM_SAMPLES, 3, 16, 16, generator=generator) * torch.rand(
        NUM_SAMPLES, 1, 1, 1, generator=generator
    )
    bodies = torch.randint(2, (NUM_SAMPLES,), generator=generator)
    return Samples({"pixel_values": frames, "future_pixel_values": frames + change, "embodiment_ids": bodies})


def make_processor() -> CycleMimicProcessor:
    return CycleMimicProcessor.from_texts(
        ["task one", "task two"], image_size=16, patch_size=8, chunk_size=3, action_dim=2
    )


def make_backbone_config(processor: CycleMimicProcessor, num_new: int = 0) -> LlavaConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return LlavaConfig(
        vision_config=IJepaConfig(image_size=16, patch_size=8, **sizes),
        text_config=LlamaConfig(vocab_size=len(processor.tokenizer) - num_new, **sizes),
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def demonstrations(processor: CycleMimicProcessor, with_actions: bool) -> Samples:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (NUM_SAMPLES, 16, 16, 3), dtype=np.uint8)
    texts = [("task one", "task two")[index % 2] for index in range(NUM_SAMPLES)]
    batch = processor(
        list(images),
        texts,
        latent_actions=torch.from_numpy(random.integers(0, 16, (NUM_SAMPLES, 4))),
    )
    actions = torch.from_numpy(random.uniform(-1, 1, (NUM_SAMPLES, 3, 2))).float()
    # Episodes end at other places in each half of a batch.
    mask = torch.from_numpy(random.random((NUM_SAMPLES, 3)) < 0.7)
    return Samples({**batch} | ({"actions": actions, "actions_mask": mask} if with_actions else {}))


def prepare_deepspeed() -> None:
    """Lets it run on a CPU, and soon."""
    import deepspeed
    from peft.tuners.trainable_tokens.layer import TrainableTokensLayer

    # Beside gloo, it would compile a transport of its own for a minute and more.
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None
    # On GPUs, accelerate does so.
    deepspeed.init_distributed("gloo")

    def collect(layer: TrainableTokensLayer, weight: torch.Tensor, rows: list[int], width: int) -> torch.Tensor:
        with deepspeed.zero.GatheredParameters([weight]):
            return weight[rows].clone()

    # PEFT's own, for ZeRO-3, takes a GPU for granted.
    TrainableTokensLayer._collect_token_weights = collect


def main() -> None:
    world_size, folder, *strategies = sys.argv[1:]
    if set(strategies) & ZERO_STAGES.keys():
        prepare_deepspeed()
    for strategy in strategies:
        for case in CASES if strategy in ZERO_STAGES else (*CASES, JOINING):
            run(strategy, case, int(world_size), Path(folder))
        if strategy == "zero3":
            run(strategy, RESIZED, int(world_size), Path(folder))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
