# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic finetune`: pretrained policy and a few demonstrations → a policy that acts (paper §4)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cyclemimic.commands.flags import AS_TRAINED, CAMERA, CAMERAS, FPS, ON_THE_HUB, SKIP_BROKEN
from cyclemimic.trainers.training_fields import CycleMimicTrainingFields

if TYPE_CHECKING:
    from cyclemimic import (
        CycleMimicConfig,
        CycleMimicForActionPrediction,
        CycleMimicProcessor,
        CycleMimicTrainingArguments,
    )
    from cyclemimic.data import DemonstrationDataset, EpisodeSource, LatentLabels
    from cyclemimic.data.checking import BrokenEpisode

NUM_ACTION_BINS = 256  # OpenVLA's
# Of the policy's configuration, by the same names.
_FIELDS = ("action_decoder_context", "action_decoding", "latent_action_loss_weight")


@dataclass
class FinetuneArguments:
    """Data and model of `cyclemimic finetune`; the help of each field says what it is."""

    policy: str = field(
        metadata={"help": f"policy checkpoint {ON_THE_HUB} to start from, as `cyclemimic pretrain` saves it"}
    )
    data: list[str] = field(
        metadata={"help": f"data sets {ON_THE_HUB} with actions of one size, each normalised by its own statistics"}
    )
    camera: str | None = field(default=None, metadata={"help": CAMERA})
    cameras: list[str] | None = field(default=None, metadata={"help": CAMERAS})
    fps: float | None = field(default=None, metadata={"help": FPS})
    num_episodes: int | None = field(
        default=None, metadata={"help": "episodes of each data set to learn from, from the first; by default all"}
    )
    skip_broken: bool = field(default=False, metadata={"help": SKIP_BROKEN})
    labels: str | None = field(
        default=None, metadata={"help": "folder that `cyclemimic label` made of the data, or its id on the Hub"}
    )
    labels_revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of labels on the Hub"})
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": f"or: tokenizer checkpoint {ON_THE_HUB} to label the data with, into the folder labels of output_dir"
        },
    )
    interval_s: float | None = field(
        default=None,
        metadata={
            "help": f"with `tokenizer`: seconds between the frames of a pair (default: {AS_TRAINED.format(1.0)})"
        },
    )
    min_interval_s: float | None = field(
        default=None,
        metadata={"help": f"with `tokenizer`: shortest pair, in seconds (default: {AS_TRAINED.format(0.5)})"},
    )
    chunk_size: int | None = field(
        default=None,
        metadata={
            "help": "actions predicted at once; by default as many as fit between a pair's frames, for one frame rate"
        },
    )
    action_decoder_context: str | None = field(
        default=None,
        metadata={
            "help": "what the action decoder reads: image-act, image and ACT states, or act, the ACT states alone, which does better with "
            "few episodes (default: as the policy has it, image-act in a new one)"
        },
    )
    use_robot_state: bool = field(
        default=False,
        metadata={"help": "also read the robot's state (observation.state), which the action decoder then looks at"},
    )
    action_decoding: str | None = field(
        default=None,
        metadata={
            "help": "what actions are read from: act, or a baseline, latent or discrete (256 words for bins) (default: as the "
            "policy has it, act in a new one)"
        },
    )
    latent_action_loss_weight: float | None = field(
        default=None,
        metadata={
            "help": "weight of the loss of latent tokens, beside that of actions (default: as the policy has it, 1 in a new one)"
        },
    )
    dataset_name: str | None = field(
        default=None,
        metadata={"help": "name to keep the action statistics of one data set under; several keep their own names"},
    )


def parse(argv: Sequence[str], prog: str) -> tuple[Any, ...]:
    """Parses the flags of the verb, or its YAML file."""
    from cyclemimic.training_arguments import parse_training_arguments, show_own_help

    description = "Fine-tunes a pretrained policy on demonstrations: it learns to act."
    show_own_help([FinetuneArguments, CycleMimicTrainingFields], argv, prog, description)
    from cyclemimic import CycleMimicTrainingArguments

    return parse_training_arguments([FinetuneArguments, CycleMimicTrainingArguments], argv, prog)


@dataclass(frozen=True, eq=False)
class _Data:
    """The demonstrations, and what the policy has to know of them: cameras, where they are several, and statistics by the
    name to save them under."""

    sources: list[EpisodeSource]
    broken: dict[str, list[BrokenEpisode]]
    camera_names: list[str] | None
    further_cameras: list[list[EpisodeSource]]
    action_statistics: dict[str, dict[str, Any]]
    action_dim: int
    state_statistics: dict[str, dict[str, Any]]
    state_dim: int | None


def run(arguments: tuple[FinetuneArguments, CycleMimicTrainingArguments]) -> str | None:
    """Fine-tunes a policy and saves it with its processor."""
    from transformers import set_seed

    from cyclemimic import CycleMimicTrainer
    from cyclemimic.cards.card import CardData
    from cyclemimic.checkpoints import read_config
    from cyclemimic.commands.settings import settings_of
    from cyclemimic.commands.training import (
        check_same_data,
        checkpoint_to_resume,
        keep_workers,
        train_and_save,
        whole_weights,
    )
    from cyclemimic.data import CycleMimicCollator

    wanted, training = arguments
    _check(wanted)
    settings = settings_of(training, wanted)
    if wanted.labels is not None:
        # Labels have theirs, and earlier versions wrote down values that nothing was learnt from.
        settings = {name: value for name, value in settings.items() if name not in ("interval_s", "min_interval_s")}
    checkpoint = checkpoint_to_resume(training, settings)
    config = cast("CycleMimicConfig", read_config("policy", wanted.policy, "cyclemimic"))
    data = _open_data(wanted, config)
    labels = _open_labels(wanted, config, data.sources)
    set_seed(training.seed)
    model, processor = _load_policy(wanted, config, data, labels)
    # Not before all that could be refused has been seen.
    with whole_weights(training):
        labels = labels or _make_labels(wanted, config, data.sources, Path(str(training.output_dir)) / "labels")
    keep_workers(training)
    frames = _frames(wanted, data, labels, processor)
    check_same_data(checkpoint, settings, frames, data.sources)
    trainer = CycleMimicTrainer(
        model=model,
        args=training,
        train_dataset=frames,
        data_collator=CycleMimicCollator(
            processor, wanted.dataset_name, training.image_shift, training.corrupted_share
        ),
        processing_class=processor,
    )
    trainer.settings = settings
    card = CardData.of_sources(data.sources, broken=data.broken, labels=labels)
    return train_and_save(trainer, checkpoint, card, wanted.policy)


def _check(wanted: FinetuneArguments) -> None:
    """Raises `ValueError` unless the arguments go together; intervals that were not given are the tokenizer's."""
    from cyclemimic.commands.inputs import check_left_out, fill_intervals

    if (wanted.labels is None) == (wanted.tokenizer is None):
        got = "neither" if wanted.labels is None else "both"
        raise ValueError(f"One of `labels` and `tokenizer` must be given, got {got}.")
    if wanted.labels is None:
        check_left_out(wanted, ("labels_revision",), "without `labels`")
        fill_intervals(wanted)
    else:
        check_left_out(wanted, ("interval_s", "min_interval_s"), "with `labels`, which have theirs")


def _open_data(wanted: FinetuneArguments, config: CycleMimicConfig) -> _Data:
    """The demonstrations, read for their statistics.

    Raises:
        DataError: some of them cannot be used, or have no words.
        ValueError: the arguments do not go together, or the data sets do not.
    """
    from cyclemimic.commands.cameras import choose_cameras, open_further_cameras
    from cyclemimic.commands.inputs import open_sources
    from cyclemimic.data.instructions import instructions_of

    camera, camera_names = choose_cameras(wanted.camera, wanted.cameras, config.camera_names, wanted.skip_broken)
    sources, broken = open_sources(wanted.data, camera, wanted.num_episodes, wanted.fps, wanted.skip_broken)
    further_cameras = open_further_cameras(wanted.data, camera_names, sources, wanted.fps)
    _check_several(wanted, sources)
    instructions_of(sources)
    of_actions, of_states = _action_statistics(wanted, sources), _state_statistics(wanted, sources)
    return _Data(sources, broken, camera_names, further_cameras, *of_actions, *of_states)


def _load_policy(
    wanted: FinetuneArguments, config: CycleMimicConfig, data: _Data, labels: LatentLabels | None
) -> tuple[CycleMimicForActionPrediction, CycleMimicProcessor]:
    """The policy to start from, made for the demonstrations, and its processor with their statistics."""
    from cyclemimic.policies import load_for_actions

    sizes: dict[str, Any] = {
        "chunk_size": choose_chunk_size(wanted, data.sources, labels),
        "action_dim": data.action_dim,
    }
    # Of a policy without them, neither is a field to change.
    inputs = {"state_dim": data.state_dim, "camera_names": data.camera_names}
    sizes |= {name: value for name, value in inputs.items() if (value, getattr(config, name)) != (None, None)}
    if wanted.action_decoding == "discrete":
        sizes["num_action_bins"] = NUM_ACTION_BINS
    given = {name: getattr(wanted, name) for name in _FIELDS}
    fields = {name: value for name, value in given.items() if value is not None}
    model, processor = load_for_actions(wanted.policy, sizes, fields)
    _keep_statistics(processor, model.config, data.action_statistics, data.state_statistics)
    return model, processor


def _frames(
    wanted: FinetuneArguments, data: _Data, labels: LatentLabels, processor: CycleMimicProcessor
) -> DemonstrationDataset:
    """What the policy learns from."""
    from cyclemimic.data import DemonstrationDataset

    return DemonstrationDataset(
        data.sources,
        labels,
        chunk_size=processor.chunk_size,
        transform=processor.resize_images,
        use_robot_state=wanted.use_robot_state,
        further_cameras=data.further_cameras,
    )


def _check_several(arguments: FinetuneArguments, sources: Sequence[EpisodeSource]) -> None:
    """Raises `ValueError` where an argument, or its default, is for one data set and there are several."""
    names = [source.name for source in sources]
    if arguments.dataset_name is not None and len(names) > 1:
        raise ValueError(
            f"`dataset_name` must be left out with several data sets, which keep their names {names}, got "
            f"{arguments.dataset_name!r}."
        )
    rates = {source.name: source.fps for source in sources}
    if arguments.chunk_size is None and len(set(rates.values())) > 1:
        raise ValueError(f"`chunk_size` must be given for data of several frame rates, {rates}, got None.")


def _action_statistics(
    arguments: FinetuneArguments, sources: Sequence[EpisodeSource]
) -> tuple[dict[str, dict[str, Any]], int]:
    """
    Statistics of each data set's actions under the name to save them by, and the size of all actions. `fps`, `camera` and
    `last_episode` among them tell whoever deploys the policy how long an action lasts, and what it has seen.

    Raises:
        ValueError: the sizes of the actions differ.
    """
    from cyclemimic.data import compute_action_statistics

    statistics = {
        arguments.dataset_name or source.name: {
            **compute_action_statistics([source]),
            "fps": source.fps,
            "camera": source[0].camera,
            "last_episode": source[len(source) - 1].index,
        }
        for source in sources
    }
    return statistics, _one_size("actions", statistics)


def _state_statistics(
    arguments: FinetuneArguments, sources: Sequence[EpisodeSource]
) -> tuple[dict[str, dict[str, Any]], int | None]:
    """As [`_action_statistics`], of the robot's states; none where they are not asked for."""
    from cyclemimic.data import compute_state_statistics

    if not arguments.use_robot_state:
        return {}, None
    statistics = {arguments.dataset_name or source.name: compute_state_statistics([source]) for source in sources}
    return statistics, _one_size("robot states", statistics)


def _keep_statistics(
    processor: CycleMimicProcessor,
    config: CycleMimicConfig,
    of_actions: dict[str, dict[str, Any]],
    of_states: dict[str, dict[str, Any]],
) -> None:
    """Puts the statistics of each data set where the policy's checkpoint has them."""
    for name, values in of_actions.items():
        is_discrete = config.action_decoding == "discrete"
        processor.add_action_statistics(name, _all_normalised(values) if is_discrete else values)
    for name, values in of_states.items():
        processor.add_state_statistics(name, values)


def _all_normalised(statistics: dict[str, Any]) -> dict[str, Any]:
    """
    Statistics that leave no dimension alone, for actions that become words, which only [-1, 1] has: what has two values,
    such as a gripper of 0 and 100, becomes -1 and 1; what has one keeps it exactly.
    """
    mask = statistics["mask"]
    bounds = {
        quantile: [a if kept else b for kept, a, b in zip(mask, statistics[quantile], statistics[end], strict=True)]
        for quantile, end in (("q01", "min"), ("q99", "max"))
    }
    return {**statistics, **bounds, "mask": [True] * len(mask)}


def _one_size(what: str, statistics: dict[str, dict[str, Any]]) -> int:
    sizes = {name: len(values["q01"]) for name, values in statistics.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`data` must have {what} of one size, got {sizes}.")
    return next(iter(sizes.values()))


def _open_labels(
    wanted: FinetuneArguments, config: CycleMimicConfig, sources: Sequence[EpisodeSource]
) -> LatentLabels | None:
    """The labels of the demonstrations; `None` where a tokenizer is to make them."""
    from cyclemimic.commands.inputs import check_all_labelled, check_labels, check_labels_are_of
    from cyclemimic.data import open_labels

    if wanted.labels is None:
        return None
    labels = open_labels(wanted.labels, wanted.labels_revision)
    check_labels(labels, config.codebook_size, config.num_latent_tokens)
    check_labels_are_of(labels, sources)
    check_all_labelled(labels, sources)
    return labels


def _make_labels(
    wanted: FinetuneArguments, config: CycleMimicConfig, sources: Sequence[EpisodeSource], folder: Path
) -> LatentLabels:
    """Labels of the demonstrations in a folder, where a training that goes on finds them. The processes of a machine share the
    work: another machine may have no share of this disk."""
    from accelerate import PartialState

    from cyclemimic.checkpoints import choose_device, load_tokenizer
    from cyclemimic.commands.inputs import check_all_labelled, check_labels
    from cyclemimic.data import LatentLabels
    from cyclemimic.labeling import label_videos

    # One of the two is given.
    name = cast(str, wanted.tokenizer)
    tokenizer, image_processor = load_tokenizer(name, choose_device(None))
    check_labels(tokenizer.config, config.codebook_size, config.num_latent_tokens, argument="tokenizer")
    label_videos(
        tokenizer,
        image_processor,
        sources,
        folder,
        *cast(tuple[float, float], (wanted.interval_s, wanted.min_interval_s)),
        tokenizer_name=name,
        rank=int(os.environ.get("LOCAL_RANK", 0)),
        world_size=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
    )
    PartialState().wait_for_everyone()
    labels = LatentLabels.from_folder(folder)
    check_all_labelled(labels, sources)
    # Made in passing: the card names the tokenizer.
    labels.folder = labels.name = None
    return labels


def choose_chunk_size(wanted: FinetuneArguments, sources: Sequence[EpisodeSource], labels: LatentLabels | None) -> int:
    """Actions in a chunk: as asked for, or those between the frames of a labelled pair."""
    if wanted.chunk_size is not None:
        return wanted.chunk_size
    metadata: Mapping[str, Any] = {"interval_s": wanted.interval_s} if labels is None else labels.metadata
    of_all, own = metadata.get("interval_s"), metadata.get("own_intervals", {})
    intervals: dict[str, Any] = {
        source.name: own[source.name][0] if source.name in own else of_all for source in sources
    }
    if None in intervals.values():
        raise ValueError("`chunk_size` must be given where labels do not say their `interval_s`, got None.")
    if len(set(intervals.values())) > 1:
        raise ValueError(f"`chunk_size` must be given for labels of several intervals, {intervals} seconds, got None.")
    return max(1, round(intervals[sources[0].name] * sources[0].fps))
