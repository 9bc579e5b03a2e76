# SPDX-License-Identifier: Apache-2.0
"""Where a training verb starts, and how it ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from accelerate.utils import gather_object
from huggingface_hub.utils import validate_repo_id
from transformers import Trainer, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, get_last_checkpoint

from cyclemimic.cards.card import CardData
from cyclemimic.commands.settings import check_same_settings, mixed_precision
from cyclemimic.data import EpisodeSource, LabelledMixture, MixtureDataset, WeightedSource, frame_store
from cyclemimic.hub.names import split_revision
from cyclemimic.trainers.publishing_trainer import PublishingTrainer

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo


def checkpoint_to_resume(arguments: TrainingArguments, settings: Mapping[str, Any]) -> str | None:
    """
    The checkpoint to go on from, `None` for a start.

    Args:
        arguments ([`~transformers.TrainingArguments`]): `resume_from_checkpoint` is a checkpoint's folder, or `true`
            for the last one in `output_dir`.
        settings (`Mapping`): Of this training ([`settings_of`]).

    Raises:
        ValueError: there is no such checkpoint, it lacks what training goes on from, or is of a training with other
            settings; or training is to start where a finished model lies; or Trainer would refuse, hours later.
    """
    _check_what_trainer_checks_late(arguments)
    output_dir, wanted = Path(arguments.output_dir), arguments.resume_from_checkpoint
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"`output_dir` must be a folder, got the file {output_dir}.")
    # Of a YAML file, "no" and "yes".
    if wanted is None or wanted.lower() in ("false", "no"):
        if (output_dir / "config.json").exists():
            raise ValueError(
                f"`output_dir` must not hold a model yet, got {output_dir}, which does; give another folder, or go on "
                "with `resume_from_checkpoint`."
            )
        if output_dir.is_dir() and (last := get_last_checkpoint(output_dir)) is not None:
            raise ValueError(
                f"`output_dir` must not hold checkpoints of another training, got {last}; give another folder, remove it, or "
                "go on from it with `resume_from_checkpoint`."
            )
        return None
    if wanted.lower() in ("true", "yes"):
        wanted = get_last_checkpoint(output_dir) if output_dir.is_dir() else None
        if wanted is None:
            raise ValueError(
                f"`resume_from_checkpoint` must find a checkpoint in `output_dir`, got none in {output_dir}."
            )
    if not (Path(wanted) / "trainer_state.json").is_file():
        raise ValueError(f"`resume_from_checkpoint` must be a checkpoint's folder or true, got {wanted}.")
    if not _has_states(Path(wanted)):
        raise ValueError(
            "`resume_from_checkpoint` must be a checkpoint-N folder, with the states of optimizer and schedule, got "
            f"{wanted}, which lacks them, as finished models and checkpoints of `save_only_model` do."
        )
    check_same_settings(wanted, settings)
    return wanted


def _check_what_trainer_checks_late(arguments: TrainingArguments) -> None:
    """Refuses what Trainer does when all data is open, labels are written and the model is loaded."""
    saves_the_best = SaveStrategy(arguments.save_strategy) == SaveStrategy.BEST
    for name, value in (
        ("eval_strategy", IntervalStrategy(arguments.eval_strategy).value),
        ("eval_on_start", arguments.eval_on_start),
        ("load_best_model_at_end", arguments.load_best_model_at_end),
        ("save_strategy", "best" if saves_the_best else "no"),
    ):
        if value not in ("no", False):
            raise ValueError(
                f"`{name}` must be left out, got {value}: training has no data to evaluate on; `evaluate-tokenizer`, "
                "`evaluate-policy` and `rollout` do, afterwards."
            )
    if mixed_precision(arguments) == "fp16" and arguments.device.type == "cpu":
        raise ValueError("`fp16` must be left out on a CPU, which would train in float32, got true.")
    if arguments.hub_model_id is not None:
        validate_repo_id(arguments.hub_model_id)
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except ImportError as error:
        raise ValueError(f"`optim` must be what is installed, got {arguments.optim}: {error}") from error
    except ValueError:
        # One that asks for the model, which is not there yet.
        pass
    for make_callback in get_reporting_integration_callbacks(arguments.report_to):
        try:
            make_callback()
        except RuntimeError as error:
            # A logger that is not installed.
            raise ValueError(f"`report_to` must be what is installed, got {arguments.report_to}: {error}") from error


def _has_states(checkpoint: Path) -> bool:
    """Whether it holds states of optimizer and schedule, which Trainer would silently begin anew without."""
    names = [path.name for path in checkpoint.iterdir()]
    # DeepSpeed keeps both in a folder of its own, and FSDP the optimizer's in one.
    if any(name.startswith("global_step") for name in names):
        return True
    return "scheduler.pt" in names and any("optimizer" in name for name in names)


@contextmanager
def whole_weights(training: TrainingArguments) -> Iterator[None]:
    """
    What is loaded within is whole in every process, as labelling and copying need it. Left alone, transformers shares
    weights out as they are loaded for a training by ZeRO-3, which shares out itself what it trains.
    """
    config = getattr(training, "hf_deepspeed_config", None) or getattr(training.deepspeed_plugin, "dschf", None)
    if config is None:
        yield
        return
    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(config)


def check_same_data(
    checkpoint: str | None,
    settings: dict[str, Any],
    dataset: Any,
    sources: Sequence[WeightedSource] | Sequence[EpisodeSource],
) -> None:
    """
    Notes in `settings` what was opened of the data, and what else the order of streamed pairs depends on.

    Raises:
        ValueError: it differs from the checkpoint's that training goes on from, or between the processes, one of which has
            missed a data set, say.
    """
    opened = [_opened(source) for source in sources]
    if any(other != opened for other in gather_object([opened])):
        raise ValueError(
            f"`data` must be the same in every process, got {[facts['name'] for facts in opened]} in one, and others elsewhere."
        )
    settings["data_sets"] = [facts["name"] for facts in opened]
    settings |= {f"data set {facts['name']}": facts for facts in opened}
    pairs = dataset.pairs if isinstance(dataset, LabelledMixture) else dataset
    if isinstance(pairs, MixtureDataset):
        settings |= {"samples_a_process": pairs.batch_size, "reading_processes": pairs.num_streams}
    else:
        settings["samples"] = len(pairs)
    if checkpoint is not None:
        check_same_settings(checkpoint, settings)


def _opened(entry: WeightedSource | EpisodeSource) -> dict[str, Any]:
    """What tells a data set from what it was in another run, as JSON."""
    source = entry.source if isinstance(entry, WeightedSource) else entry
    facts: dict[str, Any] = {"name": source.name, "embodiment": source.embodiment, "camera": source[0].camera}
    facts["frames"] = sum(episode.num_frames for episode in source)
    if isinstance(entry, WeightedSource):
        facts |= {"weight": entry.weight, "interval_s": list(entry.interval_range_s)}
        facts["min_interval_s"] = entry.min_interval_s
    return facts


def fits_in_memory(sources: Sequence[WeightedSource], transform: Callable[[np.ndarray], np.ndarray]) -> bool:
    """
    Whether the frames of all data sets, as `transform` makes them, are few enough to be kept on any machine: the order of
    training follows from it, which is not to depend on the memory of this one.
    """
    num_bytes = 0
    for entry in sources:
        frame = next(frame_store.iter_transformed(entry.source[0], [0], transform))
        num_bytes += frame.nbytes * sum(episode.num_frames for episode in entry.source)
    return num_bytes <= frame_store.MAX_BYTES


def keep_workers(arguments: TrainingArguments) -> None:
    """Lets data loader's workers outlive an epoch, where they keep what they have decoded: else each decodes all anew."""
    arguments.dataloader_persistent_workers = arguments.dataloader_num_workers > 0


def stream_pairs(
    sources: Sequence[WeightedSource],
    transform: Callable[[np.ndarray], np.ndarray],
    arguments: TrainingArguments,
    with_future: bool = True,
) -> MixtureDataset:
    """Pairs, or their current frames alone, that are decoded as training goes, for the processes that it will have.

    Raises:
        ValueError: batches are to shrink, on whose size the order of pairs depends.
    """
    if arguments.auto_find_batch_size:
        raise ValueError("`auto_find_batch_size` must be false for a mixture or data beyond memory, got true.")
    readers = arguments.world_size * max(1, arguments.dataloader_num_workers)
    seed = arguments.seed if arguments.data_seed is None else arguments.data_seed
    return MixtureDataset(sources, transform, seed, arguments.train_batch_size, readers, with_future=with_future)


def train_and_save(
    trainer: PublishingTrainer, checkpoint: str | None, data: CardData, backbone: str | None
) -> str | None:
    """
    Trains, then saves model, processor and card into `output_dir`, beside the checkpoints, and with `push_to_hub` publishes
    them. `config.json` comes last: a model that was not written to its end cannot be taken for one.

    Args:
        trainer ([`PublishingTrainer`]): Ready to train.
        checkpoint (`str` or `None`): The checkpoint to go on from.
        data ([`CardData`]): What it learns from, for the card.
        backbone (`str` or `None`): Folder or Hub id of the model that it starts with, for the card.

    Returns:
        `str` or `None`: What to print; nothing from processes other than the first.
    """
    trainer.card = {"data": data, "backbone": None if backbone is None else split_revision(backbone)[0]}
    trainer.train(resume_from_checkpoint=checkpoint)
    output_dir = Path(trainer.args.output_dir)
    partial = output_dir / "model.partial"
    if trainer.is_world_process_zero():
        # Of a run that was killed while it saved.
        shutil.rmtree(partial, ignore_errors=True)
    try:
        trainer.save_without_push(str(partial))
        if not trainer.is_world_process_zero():
            return None
        trainer.save_state()
        # Of the model that a run before has left here, which is none from now on.
        (output_dir / "config.json").unlink(missing_ok=True)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == "config.json"):
            if path.is_dir():
                shutil.rmtree(output_dir / path.name, ignore_errors=True)
            os.replace(path, output_dir / path.name)
    finally:
        if trainer.is_world_process_zero():
            shutil.rmtree(partial, ignore_errors=True)
    if not trainer.args.push_to_hub:
        return f"Saved: {output_dir}"
    commit = cast("CommitInfo", trainer.push_saved(output_dir, commit_message="End of training"))
    return f'Saved: {output_dir}, pushed to {commit.repo_url}, loaded exactly so with revision="{commit.oid}"'
