# SPDX-License-Identifier: Apache-2.0
"""
One process of those that `test_distributed_resume.py` starts: `resume_runs.py INITIAL FOLDER STRATEGY [...]` trains the models in
INITIAL with every strategy in turn, from the last checkpoint in `FOLDER/STRATEGY/CASE` where there is one.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState
from parity_runs import GLOBAL_BATCH_SIZE, ZERO_STAGES, deepspeed_config, make_trainer, prepare_deepspeed
from transformers.trainer_utils import get_last_checkpoint

CASES = ("tokenizer", "finetune")


def run(strategy: str, case: str, initial: Path, output: Path) -> None:
    AcceleratorState._reset_state()
    GradientState._reset_state()
    changes = {"deepspeed": deepspeed_config(ZERO_STAGES[strategy])} if strategy in ZERO_STAGES else {}
    changes |= {"per_device_train_batch_size": GLOBAL_BATCH_SIZE // 2, "max_steps": 4}
    changes |= {"save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(case, initial, output, **changes)
    trainer.train(resume_from_checkpoint=bool(output.is_dir() and get_last_checkpoint(output)))


def main() -> None:
    initial, folder, *strategies = sys.argv[1:]
    if set(strategies) & ZERO_STAGES.keys():
        prepare_deepspeed()
    for strategy in strategies:
        for case in CASES:
            run(strategy, case, Path(initial), Path(folder) / strategy / case)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
