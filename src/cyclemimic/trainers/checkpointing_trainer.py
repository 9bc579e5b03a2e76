# SPDX-License-Identifier: Apache-2.0
"""A Trainer that can be stopped at any moment: its checkpoints are whole, and SIGTERM saves one first."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler, SequentialSampler, Subset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, rotate_checkpoints

from cyclemimic.data import LabelledMixture, MixtureDataset

logger = logging.getLogger(__name__)

UNFINISHED = ".unfinished"
SETTINGS_NAME = "settings.json"
# Steps after which processes ask each other whether one was told to stop: asking waits for the device.
STOP_CHECK_STEPS = 10
# Of a whole training, and untrue where no step was left to train: Trainer gives 0.
OF_STEPS = ("train_loss", "train_samples_per_second", "train_steps_per_second")


def whole_of(dataset: Any) -> Any:
    """The data set that a [`~torch.utils.data.Subset`] is of."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


class CheckpointingTrainer(Trainer):
    """
    [`~transformers.Trainer`] whose `checkpoint-N` folders appear with the last byte of the last process: one that is there
    is whole, whenever the run was killed. Before, they are in `.unfinished`, which the next checkpoint replaces. SIGTERM
    ends the training after the step under way, with a checkpoint. From a checkpoint that has all steps already, no more
    are trained. A collator with `set_epoch` is told the epoch, by which it may draw and still resume exactly. A mixture, which
    is in random order already, is read in that order, whatever `train_sampling_strategy` says.

    Raises:
        ValueError: `train_dataset` is a part of a mixture, which would have lost its order and its epochs.
    """

    settings: dict[str, Any] | None = None
    """By which one may know whether a checkpoint is of the same training: every one has them in `settings.json`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mixture = whole_of(self.train_dataset)
        if isinstance(self.train_dataset, Subset) and isinstance(mixture, MixtureDataset | LabelledMixture):
            raise ValueError(
                f"`train_dataset` must be a whole mixture, got a Subset of a {type(mixture).__name__}; leave out episodes of "
                "its data sets (`last_episode` in a mixture's file, `episodes` of `open_source`)."
            )
        self._is_saving = False
        self._trained_nothing = False
        self._stop_signal = _StopSignal(self)
        self.add_callback(self._stop_signal)
        self.add_callback(_EpochTeller(self))

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if isinstance(dataset, MixtureDataset | LabelledMixture):
            # In another, each frame would be decoded a hundred times instead of about once.
            return SequentialSampler(dataset)
        return super()._get_train_sampler(train_dataset)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        self._trained_nothing = True
        with self._stop_signal.heard():
            output = super().train(*args, **kwargs)
        return output._replace(training_loss=math.nan) if self._trained_nothing else output

    def _finalize_training(self, *args: Any, **kwargs: Any) -> TrainOutput:
        if not self._stop_signal.has_stopped:
            return super()._finalize_training(*args, **kwargs)
        # A training that was stopped is not over: its last checkpoint is not to make room for the best, nor the best's weights to
        # take the place of those it goes on with.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        best, self.args.load_best_model_at_end = self.args.load_best_model_at_end, False
        try:
            return super()._finalize_training(*args, **kwargs)
        finally:
            self.args.save_total_limit, self.args.load_best_model_at_end = limit, best

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if self._trained_nothing:
            for name in OF_STEPS:
                logs.pop(name, None)  # in place, as Trainer returns the same ones as metrics
        super().log(logs, *args, **kwargs)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        # Trainer does it with the first batch, which there may not be; an evaluation draws, too.
        if resume_from_checkpoint is not None and self.state.global_step >= max_steps:
            self._load_rng_state(resume_from_checkpoint)
        return prepared

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Trainer asks after each step alone whether it was the last, and would train one more step at every resume.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        self._trained_nothing = False
        super()._run_epoch(*args, **kwargs)

    def _get_output_dir(self, trial: Any) -> str:
        run_dir = super()._get_output_dir(trial)
        return os.path.join(run_dir, UNFINISHED) if self._is_saving else run_dir

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        run_dir = Path(super()._get_output_dir(trial))
        unfinished, name = run_dir / UNFINISHED, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.local_process_index == 0:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        pushes, self.args.push_to_hub = self.args.push_to_hub, False
        self._is_saving = True
        try:
            super()._save_checkpoint(model, trial)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        finally:
            self._is_saving, self.args.push_to_hub = False, pushes
        self._name_best(unfinished, run_dir)
        if self.args.should_save:
            self.state.save_to_json(str(unfinished / name / TRAINER_STATE_NAME))
            if self.settings is not None:
                text = json.dumps(self.settings, indent=2, sort_keys=True)
                (unfinished / name / SETTINGS_NAME).write_text(text, encoding="utf-8")
        self._place(unfinished / name, run_dir / name)
        if pushes:
            self._push_from_checkpoint(str(run_dir / name))
        if self.args.should_save:
            limit, best = self.args.save_total_limit, self.state.best_model_checkpoint
            rotate_checkpoints(str(run_dir), limit, best, use_mtime=True)

    def _place(self, source: Path, target: Path) -> None:
        is_first = self.args.process_index == 0
        # On a disk of their own, the other nodes have a share of it, too.
        for is_turn in (is_first, self.args.local_process_index == 0 and not is_first):
            self.accelerator.wait_for_everyone()
            if is_turn and source.is_dir():
                if target.exists():
                    os.replace(target, source.with_name("outdated"))
                os.replace(source, target)
                shutil.rmtree(source.parent, ignore_errors=True)

    def _name_best(self, unfinished: Path, run_dir: Path) -> None:
        best = self.state.best_model_checkpoint
        if best is not None and Path(best).parent == unfinished:
            self.state.best_model_checkpoint = str(run_dir / Path(best).name)


class _EpochTeller(TrainerCallback):
    """Tells the collator which epoch begins, or goes on after resuming: Trainer tells samplers and data sets alone."""

    def __init__(self, trainer: CheckpointingTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        collator: Any = self.trainer.data_collator
        if hasattr(collator, "set_epoch"):
            collator.set_epoch(int(state.epoch))


class _StopSignal(TrainerCallback):
    """Ends a training with a checkpoint when SIGTERM came, in all processes after the same step."""

    def __init__(self, trainer: CheckpointingTrainer) -> None:
        self.trainer = trainer
        self.is_told = False
        """Whether this process has been told to stop."""
        self.has_stopped = False
        """Whether the training has ended for it: in all processes, or in none."""

    @contextmanager
    def heard(self) -> Iterator[None]:
        """SIGTERM does what it always did only after this, not at once."""
        if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
            yield
            return
        self.is_told = self.has_stopped = False
        previous = signal.signal(signal.SIGTERM, self._tell)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
        if self.is_told:
            signal.raise_signal(signal.SIGTERM)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._has_any_been_told(args.world_size, state.global_step):
            self.is_told = self.has_stopped = True
            control.should_save = control.should_training_stop = True
            # It takes the time that is left, and by `save_strategy="best"` could say that nothing is to be saved.
            control.should_evaluate = False
            logger.warning(
                "SIGTERM: training ends after step %d with a checkpoint in %s; `resume_from_checkpoint` goes on from it",
                state.global_step,
                args.output_dir,
            )

    def _tell(self, number: int, frame: FrameType | None) -> None:
        self.is_told = True

    def _has_any_been_told(self, world_size: int, step: int) -> bool:
        if world_size == 1:
            return self.is_told
        if step % STOP_CHECK_STEPS:
            return False
        accelerator = self.trainer.accelerator
        return bool(accelerator.reduce(torch.tensor(float(self.is_told), device=accelerator.device)) > 0)
