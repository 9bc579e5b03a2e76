# SPDX-License-Identifier: Apache-2.0
"""A Trainer whose models have a card that says what was trained, and go to the Hub with it and without a pickle."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from huggingface_hub import HfApi
from transformers import PreTrainedModel
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.utils import PushInProgress

from cyclemimic.cards.card import CardData
from cyclemimic.cards.training_cards import write_training_cards
from cyclemimic.hub.publication import read_publication
from cyclemimic.hub.upload import push_folder
from cyclemimic.trainers.checkpointing_trainer import CheckpointingTrainer

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

logger = logging.getLogger(__name__)

CARD = "README.md"


class PublishingTrainer(CheckpointingTrainer):
    """
    [`~transformers.Trainer`] whose `save_model` writes the model's card, too, and which publishes by
    [`~cyclemimic.hub.upload.push_folder`]: weights, configs, code, processor and card, of a checkpoint as of the model at
    the end. Trainer itself uploads pickles (`training_args.bin`, states of optimizers) and puts a card of its own in the
    place of any other.

    Attributes:
        card (`dict[str, Any]`): What the card is to say in place of what the Trainer sees by itself: `title`, `data`
            ([`~cyclemimic.cards.card.CardData`]), `backbone` (folder or Hub id of the model that it was made of) and what
            else the template asks for.

    Raises:
        ValueError: `hub_strategy` is one that uploads states of optimizers.
    """

    push_in_progress: Any
    card_template: ClassVar[str | None] = None
    """Which of the templates tells of the model; `None` for no card."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.card: dict[str, Any] = {}
        self._written_card: tuple[Path, int] | None = None

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if _internal_call:  # a checkpoint
            return super().save_model(output_dir, _internal_call)
        output_dir = output_dir or self.args.output_dir
        self.save_without_push(output_dir)
        if self.args.push_to_hub:
            self.push_saved(output_dir, commit_message="Model save")

    def save_without_push(self, output_dir: str) -> None:
        """`save_model`, whatever `push_to_hub` says. To be called by all processes."""
        self._save_whole_model(output_dir)
        if self.args.should_save:
            self._write_cards(Path(output_dir))

    def push_saved(
        self,
        folder: str | Path,
        commit_message: str | None = None,
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
    ) -> CommitInfo | Future[CommitInfo] | None:
        """
        Publishes what `save_model` has saved, as it is.

        Args:
            folder (`str` or `Path`): Where it was saved.
            commit_message, blocking, token, revision, private: As in `push_to_hub`.

        Returns:
            `CommitInfo`: See [`~cyclemimic.hub.upload.push_folder`]; a `Future` of it without `blocking`, and `None` in all
            processes but the first.
        """
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        push = partial(
            push_folder,
            folder,
            self.hub_model_id,
            private=self.args.hub_private_repo if private is None else private,
            revision=revision or self.args.hub_revision,
            commit_message=commit_message,
            token=token or self.args.hub_token,
        )
        return push() if blocking else HfApi().run_as_future(push)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """
        Saves into `output_dir` and publishes that: see [`~transformers.Trainer.push_to_hub`].

        Raises:
            ValueError: `kwargs`, which are for the card that Trainer writes; or as [`~cyclemimic.hub.upload.push_folder`].
        """
        if kwargs:
            raise ValueError(
                f"`kwargs` must be left out, as the card is not Trainer's: set `card`; got {sorted(kwargs)}."
            )
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        self.save_without_push(self.args.output_dir)
        return self.push_saved(self.args.output_dir, commit_message, blocking, token, revision, private)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The card beside the model in `output_dir`, which `save_model` has written already."""
        if self.is_world_process_zero():
            self._write_cards(Path(self.args.output_dir))

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        strategies = (HubStrategy.END, HubStrategy.EVERY_SAVE)
        if self.args.hub_strategy not in strategies:
            raise ValueError(
                "`hub_strategy` must be end or every_save, as the others upload pickled states, got "
                f"{HubStrategy(self.args.hub_strategy).value}."
            )
        super().init_hf_repo(token, private)

    def describe_training(self) -> dict[str, Any]:
        """What the Trainer sees by itself for the card, under the names of `card`."""
        return {
            "title": Path(self.args.output_dir).resolve().name,
            "data": CardData.of_dataset(self.train_dataset),
            "backbone": _name_of(self.accelerator.unwrap_model(self.model, keep_torch_compile=False)),
        }

    def _save_whole_model(self, output_dir: str) -> None:
        super().save_model(output_dir, _internal_call=True)

    def _write_cards(self, folder: Path) -> None:
        if self.card_template is None:
            return
        # What was added to it since, such as figures or a licence, stays.
        written = (folder.resolve(), self.state.global_step)
        if written != self._written_card or not (folder / CARD).is_file():
            card = self.describe_training() | self.card
            write_training_cards(self, folder, template=self.card_template, **card)
            self._written_card = written

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if not self.is_world_process_zero() or self.args.hub_strategy == HubStrategy.END:
            return
        is_pushing = self.push_in_progress is not None and not self.push_in_progress.is_done()
        if is_pushing and not self.args.hub_always_push:
            return
        checkpoint = Path(checkpoint_folder)
        if not (checkpoint / "config.json").is_file():
            logger.warning("%s holds a part of the model, and is not pushed; `save_model` pushes it whole", checkpoint)
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        by_steps = self.args.save_strategy == SaveStrategy.STEPS
        now = f"step {self.state.global_step}" if by_steps else f"epoch {int(self.state.epoch)}"
        staged = Path(tempfile.mkdtemp(prefix=".push-", dir=self.args.output_dir))
        try:
            self._stage(checkpoint, staged)
        # Training goes on without it: the other processes do, and would wait for this one.
        except (OSError, ValueError) as error:
            logger.warning("a checkpoint was not pushed: %s", error)
            shutil.rmtree(staged, ignore_errors=True)
            return
        push = partial(self._push_staged, staged, f"Training in progress, {now}")
        jobs: Any = [*(self.push_in_progress.jobs if is_pushing else ()), HfApi().run_as_future(push)]
        self.push_in_progress = PushInProgress(jobs)

    def _stage(self, checkpoint: Path, staged: Path) -> None:
        """Puts into a folder what is to be pushed of a checkpoint, which may be gone before it is pushed, and a card."""
        for name in read_publication(checkpoint).files:
            try:
                os.link(checkpoint / name, staged / name)
            except OSError:  # not on every disk
                shutil.copyfile(checkpoint / name, staged / name)
        if self.card_template is not None:
            card = self.describe_training() | self.card
            write_training_cards(self, staged, template=self.card_template, **card)

    def _push_staged(self, folder: Path, commit_message: str) -> None:
        own: dict[str, Any] = {
            "private": self.args.hub_private_repo,
            "revision": self.args.hub_revision,
            "token": self.args.hub_token,
        }
        try:
            push_folder(folder, self.hub_model_id, commit_message=commit_message, **own)
        # Training goes on without it, and nobody asks for the future's error.
        except (OSError, ValueError) as error:
            logger.warning("a checkpoint was not pushed: %s", error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _name_of(model: PreTrainedModel) -> str | None:
    """Folder or Hub id of what a model was made of: its own checkpoint, or that of a model inside it."""
    config = model.config
    parts = (config, *(getattr(config, name, None) for name in config.sub_configs))
    return next((part.name_or_path for part in parts if part is not None and part.name_or_path), None)
