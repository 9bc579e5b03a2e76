# SPDX-License-Identifier: Apache-2.0
"""The text of a card, from the templates beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jinja2
from huggingface_hub import DatasetCardData, ModelCardData

from cyclemimic.data import (
    DemonstrationDataset,
    EpisodeSource,
    FramePairDataset,
    LabelledMixture,
    LatentLabels,
    MixtureDataset,
)
from cyclemimic.data.checking import BrokenEpisode
from cyclemimic.data.mixture import OpenedMixture
from cyclemimic.data.readers.lerobot import LeRobotSource
from cyclemimic.hub.names import public_name

from .origins import describe_checkpoint, describe_labels, id_on_the_hub

_MAX_NAMED = 20
_TAGS = ["cyclemimic", "robotics", "latent-actions"]


@dataclass(frozen=True)
class CardData:
    """
    What a card says of its data.

    Args:
        rows (`list[list[str]]`): The cells of a data set each.
        left_out (`list[str]`): Data sets of the mixture that could not be opened. Reasons are in the log, with the paths of
            this machine.
        labels (`str`, *optional*): The latent actions, where it learned from some.
        instruction (`str`, *optional*, defaults to `""`): The first that there is.
        hub_ids (`tuple[str, ...]`, *optional*): Of the data sets and the labels, those that are on the Hub.
    """

    rows: list[list[str]]
    left_out: list[str]
    labels: str | None = None
    instruction: str = ""
    hub_ids: tuple[str, ...] = ()

    @classmethod
    def of_dataset(cls, dataset: object) -> CardData:
        """Of what a Trainer trains on, where it is one of `cyclemimic.data`: of others nothing is known."""
        labels = dataset.labels if isinstance(dataset, DemonstrationDataset | LabelledMixture) else None
        if isinstance(dataset, LabelledMixture):
            dataset = dataset.pairs
        if isinstance(dataset, MixtureDataset):
            sources, weights = zip(*((entry.source, entry.weight) for entry in dataset.sources), strict=True)
            return cls.of_sources(sources, weights, labels=labels)
        if isinstance(dataset, FramePairDataset | DemonstrationDataset):
            return cls.of_sources(dataset.sources, labels=labels)
        return cls([], [])

    @classmethod
    def of_sources(
        cls,
        sources: Sequence[EpisodeSource],
        weights: Sequence[float] | None = None,
        left_out: Sequence[str] = (),
        broken: Mapping[str, Sequence[BrokenEpisode]] | None = None,
        labels: LatentLabels | None = None,
    ) -> CardData:
        """
        Of data sets, how often each is drawn from (by default by its frames), the episodes left out of them, and their
        labels.
        """
        weights = weights or [sum(episode.num_frames for episode in source) for source in sources]
        rows = list(_rows(sources, weights, broken or {}))
        described = None if labels is None else plain(describe_labels(labels))
        spoken = (text for source in sources for episode in source for text in episode.instructions)
        instruction = next(filter(None, spoken), "")
        ids = [source.repository for source in sources if isinstance(source, LeRobotSource)]
        ids.append(None if labels is None or labels.name is None else id_on_the_hub(labels.name))
        return cls(
            rows, [plain(name) for name in left_out], described, instruction, tuple(dict.fromkeys(filter(None, ids)))
        )

    @classmethod
    def of_mixture(cls, opened: OpenedMixture, labels: LatentLabels | None = None) -> CardData:
        """Of a mixture as it was opened, and its labels."""
        sources, weights = zip(*((entry.source, entry.weight) for entry in opened.sources), strict=True)
        return cls.of_sources(sources, weights, list(opened.left_out), opened.broken, labels)


def render_model_card(
    template: str, title: str, data: CardData, backbone: str | None = None, **context: object
) -> str:
    """
    Returns the text of a model's `README.md`.

    Args:
        template (`str`): `"tokenizer"`, `"policy"` or `"adapter"`.
        title (`str`): Its headline, and the folder that the code loads it from; `cyclemimic push` puts the repository's id
            in place of that.
        data ([`CardData`]): What it learned from.
        backbone (`str`, *optional*): Folder or id on the Hub of the model that it was made of.
        context (`object`): What the template asks for: `facts` (`dict`), `config` ...
    """
    header = ModelCardData(
        library_name="peft" if template == "adapter" else "transformers",
        tags=_TAGS,
        pipeline_tag=_PIPELINES.get(template),
        base_model=None if backbone is None else id_on_the_hub(backbone),
        datasets=list(data.hub_ids) or None,
    ).to_yaml()
    named = None if backbone is None else plain(describe_checkpoint(backbone))
    base_model = "the policy it started from" if backbone is None else public_name(backbone)
    folder = f"{title}/adapter" if template == "adapter" else title
    names = {"title": plain(title), "folder": folder, "backbone": named, "base_model": base_model}
    return _render(template, header=header, data=data, **names, **context)


def render_label_card(title: str, data: CardData, **context: object) -> str:
    """Returns the text of a folder of labels' `README.md`; its template asks for `metadata` and `num_pairs`, too."""
    sources = list(data.hub_ids) or None
    # No `configs`: with them, `datasets` knows a local folder by its name alone, and gives what another of that name held.
    header = DatasetCardData(tags=_TAGS, task_categories=["robotics"], source_datasets=sources).to_yaml()
    return _render("labels", header=header, title=plain(title), folder=title, data=data, backbone=None, **context)


_PIPELINES = {"policy": "robotics"}


def _render(template: str, **context: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cyclemimic.cards"),
        autoescape=False,  # Markdown; what comes from data goes through `plain`
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template(f"{template}.md").render(context)
    return text.strip() + "\n"


def _rows(
    sources: Sequence[EpisodeSource], weights: Sequence[float], broken: Mapping[str, Sequence[BrokenEpisode]]
) -> Iterator[list[str]]:
    for source, weight in zip(sources, weights, strict=True):
        frames = sum(episode.num_frames for episode in source)
        indices = [str(episode.index) for episode in broken.get(source.name, ())]
        named = ", ".join([*indices[:_MAX_NAMED], *(["…"] if len(indices) > _MAX_NAMED else [])])
        cells = [
            *(source.name, f"{weight / sum(weights):.2%}", len(source), frames, f"{source.fps:g}"),
            *(source.embodiment, source.camera, f"{len(indices)} ({named})" if indices else "0"),
            source.licence or "unknown",
        ]
        yield [plain(cell) for cell in cells]


def plain(cell: object) -> str:
    """Names come from the data: none may break a table, or put anything but itself on a page."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(cell))
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in text)
