# SPDX-License-Identifier: Apache-2.0
"""Training steps never wait for the device."""

from __future__ import annotations

import traceback
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import cyclemimic
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import AC3_CHECK_STEPS

from .small_trainers import make_policy_trainer, make_tokenizer_trainer

# `.item()`, `bool(tensor)` and indices by a mask, whose number the host must know.
WAITS = {"aten._local_scalar_dense", "aten.is_nonzero", "aten.nonzero", "aten.masked_select"}
PACKAGE, TORCH = Path(cyclemimic.__file__).parent, Path(torch.__file__).parent


class OwnWaits(TorchDispatchMode):
    """Collects the lines of the package that read a number back. What a backbone of transformers does is its own."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: set[str] = set()
        self.operations: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function.overloadpacket)
        self.operations.add(name)
        if name in WAITS:
            frames = [
                frame for frame in traceback.extract_stack()[:-1] if not Path(frame.filename).is_relative_to(TORCH)
            ]
            if Path(frames[-1].filename).is_relative_to(PACKAGE):
                self.lines.add(f"{Path(frames[-1].filename).name}: {frames[-1].line}")
        return function(*args, **(kwargs or {}))


def waits_of_a_step(trainer, batch) -> set[str]:
    """In forward, backward and what the Trainer counts."""
    with OwnWaits() as waits:
        trainer.compute_loss(trainer.model.train(), batch).backward()
    assert "aten.mm" in waits.operations  # it did see the step
    return waits.lines


@pytest.mark.parametrize(
    "make_trainer",
    [make_tokenizer_trainer, make_policy_trainer, partial(make_policy_trainer, finetunes=True)],
    ids=["tokenizer", "pretraining", "fine-tuning"],
)
def test_no_step_waits_for_the_device(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path)
    batches = list(trainer.get_train_dataloader())[:2]
    trainer.compute_loss(trainer.model.train(), batches[0])  # what is asked once, for a whole training
    assert not waits_of_a_step(trainer, batches[1])


def test_whether_ac3_joins_is_asked_once_in_a_while(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.compute_loss(trainer.model.train(), batch)
    trainer.model._ac3_active, trainer.model._host_steps = False, 3 * AC3_CHECK_STEPS
    assert waits_of_a_step(trainer, batch)
