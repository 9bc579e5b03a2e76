# SPDX-License-Identifier: Apache-2.0
"""The text of a card, from the templates beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import jinja2
from huggingface_hub import DatasetCardData, ModelCardData

from cyclemimic.data import EpisodeSource, LatentLabels
from cyclemimic.data.checking import BrokenEpisode
from cyclemimic.data.mixture import OpenedMixture

from .origins import describe_checkpoint, describe_labels

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
    """

    rows: list[list[str]]
    left_out: list[str]
    labels: str | None = None

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
        return cls(rows, [plain(name) for name in left_out], described)

    @classmethod
    def of_mixture(cls, opened: OpenedMixture, labels: LatentLabels | None = None) -> CardData:
        """Of a mixture as it was opened, and its labels."""
        sources, weights = zip(*((entry.source, entry.weight) for entry in opened.sources), strict=True)
        return cls.of_sources(sources, weights, list(opened.left_out), opened.broken, labels)


def render_model_card(template: str, title: str, backbone: str | None = None, **context: object) -> str:
    """
    Returns the text of a model's `README.md`.

    Args:
        template (`str`): `"tokenizer"`, `"policy"` or `"adapter"`.
        title (`str`): Its headline.
        backbone (`str`, *optional*): Folder or id on the Hub of the model that it was made of.
        context (`object`): What the template asks for: `data` ([`CardData`]), `facts` (`dict`), `config` ...
    """
    header = ModelCardData(library_name="transformers", tags=_TAGS, pipeline_tag=_PIPELINES.get(template)).to_yaml()
    named = None if backbone is None else plain(describe_checkpoint(backbone))
    return _render(template, header=header, title=plain(title), backbone=named, **context)


def render_label_card(title: str, **context: object) -> str:
    """Returns the text of a folder of labels' `README.md`; its template asks for `data`, `metadata` and `num_pairs`."""
    files = [{"config_name": "default", "data_files": "*.parquet"}]
    header = DatasetCardData(tags=_TAGS, task_categories=["robotics"], configs=files).to_yaml()
    return _render("labels", header=header, title=plain(title), backbone=None, **context)


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
