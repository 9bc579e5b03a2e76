# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic pretrain`: video, instructions and labels → a policy that predicts latent actions (paper §4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cyclemimic.commands.flags import CAMERAS, ON_THE_HUB
from cyclemimic.commands.mixture_arguments import MixtureArguments
from cyclemimic.trainers.training_fields import CycleMimicTrainingFields

if TYPE_CHECKING:
    from cyclemimic import CycleMimicProcessor, CycleMimicTrainingArguments
    from cyclemimic.data import DemonstrationDataset, EpisodeSource, LabelledMixture, LatentLabels, WeightedSource
    from cyclemimic.data.mixture import OpenedMixture
    from cyclemimic.policies import Policy


@dataclass
class PretrainArguments:
    """What `cyclemimic pretrain` trains; the help of each field says what it is."""

    labels: str = field(
        metadata={"help": "folder that `cyclemimic label` made of these data sets, or its id on the Hub"}
    )
    labels_revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of labels on the Hub"})
    policy: str | None = field(default=None, metadata={"help": f"policy checkpoint {ON_THE_HUB} to go on from"})
    backbone: str | None = field(
        default=None,
        metadata={"help": f"or: any checkpoint {ON_THE_HUB} for AutoModelForImageTextToText, to make a policy of"},
    )
    pad_vocabulary_to: int | None = field(
        default=None, metadata={"help": "with `backbone`: pad its vocabulary to a multiple of this, such as 64"}
    )
    tiny: bool = field(default=False, metadata={"help": "or: a small backbone from scratch, for machines without GPU"})
    num_act_tokens: int = field(
        default=1, metadata={"help": "with `backbone` or `tiny`: query tokens that actions are to be read from"}
    )
    cameras: list[str] | None = field(default=None, metadata={"help": CAMERAS})
    tiny_image_size: int = field(default=128, metadata={"help": "pixels of the small backbone's images"})
    tiny_hidden_size: int = field(default=96, metadata={"help": "its width, a multiple of 32"})
    tiny_num_layers: int = field(default=2, metadata={"help": "layers of its language model"})


def parse(argv: Sequence[str], prog: str) -> tuple[Any, ...]:
    """Parses the flags of the verb, or its YAML file."""
    from cyclemimic.training_arguments import parse_training_arguments, show_own_help

    description = "Pretrains a policy to predict the latent actions of video from image and instruction."
    show_own_help([MixtureArguments, PretrainArguments, CycleMimicTrainingFields], argv, prog, description)
    from cyclemimic import CycleMimicTrainingArguments

    return parse_training_arguments([MixtureArguments, PretrainArguments, CycleMimicTrainingArguments], argv, prog)


@dataclass(frozen=True, eq=False)
class _Data:
    """The video and its words, and the cameras that the policy sees it with, where they are several."""

    opened: OpenedMixture
    is_mixture: bool
    instructions: list[str]
    camera_names: list[str] | None
    further_cameras: list[list[EpisodeSource]]

    @property
    def sources(self) -> list[EpisodeSource]:
        return [entry.source for entry in self.opened.sources]


def run(arguments: tuple[MixtureArguments, PretrainArguments, CycleMimicTrainingArguments]) -> str | None:
    """Pretrains a policy and saves it with its processor."""
    from transformers import set_seed

    from cyclemimic import CycleMimicTrainer
    from cyclemimic.cards.card import CardData
    from cyclemimic.commands.inputs import check_all_labelled, check_labels, check_labels_are_of
    from cyclemimic.commands.settings import settings_of
    from cyclemimic.commands.training import check_same_data, checkpoint_to_resume, train_and_save
    from cyclemimic.data import open_labels

    mixture, wanted, training = arguments
    _check(wanted)
    settings = settings_of(training, mixture, wanted)
    checkpoint = checkpoint_to_resume(training, settings)
    labels = open_labels(wanted.labels, wanted.labels_revision)
    data = _open_data(mixture, wanted, labels)
    set_seed(training.seed)
    model, processor = _load_or_make_policy(wanted, labels, data)
    check_labels(labels, processor.codebook_size, processor.num_latent_tokens)
    check_labels_are_of(labels, data.sources)
    check_all_labelled(labels, data.sources)
    frames = _frames(data, labels, processor, training)
    check_same_data(checkpoint, settings, frames, data.opened.sources)
    trainer = CycleMimicTrainer(
        model=model,
        args=training,
        train_dataset=frames,
        processing_class=processor,
    )
    trainer.settings = settings
    card = CardData.of_mixture(data.opened, labels)
    return train_and_save(trainer, checkpoint, card, wanted.backbone or wanted.policy)


def _check(wanted: PretrainArguments) -> None:
    """Raises `ValueError` unless it says what to start from, and nothing of another start."""
    from cyclemimic.commands.inputs import check_at_least_one, check_left_out

    given = [name for name in ("policy", "backbone", "tiny") if getattr(wanted, name)]
    if len(given) != 1:
        raise ValueError(f"Exactly one of `policy`, `backbone` and `tiny` must be given, got {given or 'none'}.")
    if not wanted.tiny:
        check_left_out(wanted, ("tiny_image_size", "tiny_hidden_size", "tiny_num_layers"), "without `tiny`")
    if wanted.policy is not None:
        check_left_out(wanted, ("num_act_tokens",), "with `policy`, which has its own")
    check_at_least_one(num_act_tokens=wanted.num_act_tokens)
    if wanted.pad_vocabulary_to is not None and (wanted.backbone is None or wanted.pad_vocabulary_to < 1):
        raise ValueError(
            f"`pad_vocabulary_to` must be at least 1 and come with `backbone`, got {wanted.pad_vocabulary_to}."
        )


def _open_data(mixture: MixtureArguments, wanted: PretrainArguments, labels: LatentLabels) -> _Data:
    """The labelled video.

    Raises:
        DataError: some of it cannot be used, or has no words.
        ValueError: the arguments do not go together.
    """
    from cyclemimic.checkpoints import read_config
    from cyclemimic.commands.cameras import choose_cameras, open_further_cameras
    from cyclemimic.commands.inputs import open_mixture_or_sources
    from cyclemimic.data.instructions import instructions_of
    from cyclemimic.data.mixture import is_mixture

    times = labels.metadata.get("interval_s", 1.0), labels.metadata.get("min_interval_s", 0.5)
    of_policy = read_config("policy", wanted.policy, "cyclemimic").camera_names if wanted.policy else None
    camera, camera_names = choose_cameras(mixture.camera, wanted.cameras, of_policy, mixture.skip_broken)
    is_mixed = any(map(is_mixture, mixture.data))
    if is_mixed and camera_names is not None:
        raise ValueError(f"`data` must be no mixture where the policy sees with several cameras, got {camera_names}.")
    opened = open_mixture_or_sources(replace(mixture, camera=camera), *times)
    sources = [entry.source for entry in opened.sources]
    further_cameras = open_further_cameras(mixture.data, camera_names, sources, mixture.fps)
    # Of many data sets, some have no words: their frames still teach what follows from the picture.
    instructions = instructions_of(sources, may_be_silent=is_mixed)
    return _Data(opened, is_mixed, instructions, camera_names, further_cameras)


def _load_or_make_policy(wanted: PretrainArguments, labels: LatentLabels, data: _Data) -> Policy:
    """The policy to start from, and its processor."""
    from cyclemimic.policies import load_policy, make_policy_of_backbone, make_tiny_policy

    if wanted.policy is not None:
        return load_policy(wanted.policy, data.camera_names)
    if wanted.backbone is not None:
        return make_policy_of_backbone(
            wanted.backbone, labels, wanted.pad_vocabulary_to, data.camera_names, wanted.num_act_tokens
        )
    sizes = (wanted.tiny_image_size, wanted.tiny_hidden_size, wanted.tiny_num_layers)
    return make_tiny_policy(data.instructions, labels, *sizes, data.camera_names, wanted.num_act_tokens)


def _frames(
    data: _Data, labels: LatentLabels, processor: CycleMimicProcessor, training: CycleMimicTrainingArguments
) -> LabelledMixture | DemonstrationDataset:
    """What the policy learns from: pairs of a mixture, or more than memory holds, as they are decoded; else all labelled frames."""
    from cyclemimic.commands.training import fits_in_memory, keep_workers, stream_pairs
    from cyclemimic.data import DemonstrationDataset, LabelledMixture

    entries, transform = data.opened.sources, processor.resize_images
    if data.is_mixture:
        labelled = [_labelled_part(entry, labels, entry.weight) for entry in entries]
        return LabelledMixture(stream_pairs(labelled, transform, training, with_future=False), labels)
    is_streamable = not data.further_cameras and all(_has_all_labels(entry, labels) for entry in entries)
    if is_streamable and not fits_in_memory(entries, transform):
        labelled = [_labelled_part(entry, labels) for entry in entries]
        return LabelledMixture(stream_pairs(labelled, transform, training, with_future=False), labels)
    keep_workers(training)
    return DemonstrationDataset(data.sources, labels, transform=transform, further_cameras=data.further_cameras)


def _has_all_labels(entry: WeightedSource, labels: LatentLabels) -> bool:
    """Whether all pairs of each episode that is labelled are: else its frames are to be picked one by one."""
    from cyclemimic.data.pairs import num_pairs_of

    labelled = (episode for episode in entry.source if (episode.source, episode.index) in labels)
    return all(
        len(labels.episode(episode.source, episode.index)[0]) == num_pairs_of(episode, entry.min_interval_s)
        for episode in labelled
    )


def _labelled_part(entry: WeightedSource, labels: LatentLabels, weight: float | None = None) -> WeightedSource:
    """
    The data set without episodes that have no label, which are not learnt from; of a weight of its own in a mixture, by its
    frames else.
    """
    from cyclemimic.data import InMemorySource

    labelled = [episode for episode in entry.source if (episode.source, episode.index) in labels]
    weight = sum(episode.num_frames for episode in labelled) if weight is None else weight
    return replace(entry, source=InMemorySource(labelled), weight=weight)
