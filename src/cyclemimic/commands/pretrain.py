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
    from cyclemimic import CycleMimicTrainingArguments


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
    cameras: list[str] | None = field(default=None, metadata={"help": CAMERAS})
    tiny_image_size: int = field(default=128, metadata={"help": "pixels of the small backbone's images"})
    tiny_hidden_size: int = field(default=96, metadata={"help": "its width, a multiple of 32"})
    tiny_num_layers: int = field(default=2, metadata={"help": "layers of its language model"})


def parse(argv: Sequence[str], prog: str) -> tuple[Any, ...]:
    """Parses the flags of the verb, or its YAML file."""
    from cyclemimic.training_arguments import parse_training_arguments, show_own_help

    show_own_help([MixtureArguments, PretrainArguments, CycleMimicTrainingFields], argv, prog)
    from cyclemimic import CycleMimicTrainingArguments

    return parse_training_arguments([MixtureArguments, PretrainArguments, CycleMimicTrainingArguments], argv, prog)


def run(arguments: tuple[MixtureArguments, PretrainArguments, CycleMimicTrainingArguments]) -> str | None:
    """Pretrains a policy and saves it with its processor."""
    from transformers import set_seed

    from cyclemimic import CycleMimicTrainer
    from cyclemimic.cards.card import CardData
    from cyclemimic.checkpoints import read_config
    from cyclemimic.commands.cameras import choose_cameras, open_further_cameras
    from cyclemimic.commands.inputs import check_labels, instructions_of, open_mixture_or_sources
    from cyclemimic.commands.policies import load_policy, make_policy_of_backbone, make_tiny_policy
    from cyclemimic.commands.training import checkpoint_to_resume, stream_pairs, train_and_save
    from cyclemimic.data import CycleMimicCollator, DemonstrationDataset, LabelledMixture, open_labels
    from cyclemimic.data.mixture import is_mixture

    mixture, wanted, training = arguments
    given = [name for name in ("policy", "backbone", "tiny") if getattr(wanted, name)]
    if len(given) != 1:
        raise ValueError(f"Exactly one of `policy`, `backbone` and `tiny` must be given, got {given or 'none'}.")
    if wanted.pad_vocabulary_to is not None and (wanted.backbone is None or wanted.pad_vocabulary_to < 1):
        raise ValueError(
            f"`pad_vocabulary_to` must be at least 1 and come with `backbone`, got {wanted.pad_vocabulary_to}."
        )
    checkpoint = checkpoint_to_resume(training)
    labels = open_labels(wanted.labels, wanted.labels_revision)
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
    set_seed(training.seed)
    if wanted.policy is not None:
        model, processor = load_policy(wanted.policy, camera_names)
    elif wanted.backbone is not None:
        model, processor = make_policy_of_backbone(wanted.backbone, labels, wanted.pad_vocabulary_to, camera_names)
    else:
        sizes = (wanted.tiny_image_size, wanted.tiny_hidden_size, wanted.tiny_num_layers)
        model, processor = make_tiny_policy(instructions, labels, *sizes, camera_names)
    check_labels(labels, processor.codebook_size, processor.num_latent_tokens)
    frames: LabelledMixture | DemonstrationDataset
    if is_mixed:
        frames = LabelledMixture(stream_pairs(opened.sources, processor.resize_images, training), labels)
    else:
        frames = DemonstrationDataset(
            sources, labels, transform=processor.resize_images, further_cameras=further_cameras
        )
    trainer = CycleMimicTrainer(
        model=model,
        args=training,
        train_dataset=frames,
        data_collator=CycleMimicCollator(processor, image_shift=training.image_shift),
        processing_class=processor,
    )
    return train_and_save(trainer, checkpoint, CardData.of_mixture(opened, labels), wanted.backbone or wanted.policy)
