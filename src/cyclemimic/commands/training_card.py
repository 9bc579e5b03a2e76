# SPDX-License-Identifier: Apache-2.0
"""The model card that a training leaves: what the model is, and which data it has seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from huggingface_hub import ModelCardData

from cyclemimic.data import EpisodeSource
from cyclemimic.data.checking import BrokenEpisode
from cyclemimic.data.mixture import OpenedMixture

_MAX_NAMED = 20


def write_card(
    title: str,
    kind: str,
    sources: Sequence[EpisodeSource],
    weights: Sequence[float],
    left_out: Sequence[str] = (),
    broken: Mapping[str, Sequence[BrokenEpisode]] | None = None,
) -> str:
    """Returns the text of a card, `README.md` of a model's folder.

    Args:
        title (`str`): Its headline.
        kind (`str`): What the model is, a sentence.
        sources (`Sequence[EpisodeSource]`), weights (`Sequence[float]`): The data sets, and how often each is drawn from.
        left_out (`Sequence[str]`): Names of the mixture's data sets that could not be opened. Reasons are in the log, with the
            paths of this machine.
        broken (`Mapping[str, Sequence[BrokenEpisode]]`, *optional*): Episodes left out of each data set, by its name.
    """
    header = ModelCardData(library_name="transformers", tags=["cyclemimic", "robotics"]).to_yaml()
    rows = _rows(sources, weights, broken or {})
    parts = [f"---\n{header}\n---\n", f"# {title}\n", f"{kind}\n", "## Training data\n", "\n".join(rows)]
    if left_out:
        parts.append(f"\nData sets of the mixture that could not be opened and were left out: {', '.join(left_out)}.")
    return "\n".join(parts) + "\n"


def write_card_of_mixture(title: str, kind: str, opened: OpenedMixture) -> str:
    """The same of a mixture as it was opened."""
    sources, weights = zip(*((entry.source, entry.weight) for entry in opened.sources), strict=True)
    return write_card(title, kind, sources, weights, list(opened.left_out), opened.broken)


def _rows(
    sources: Sequence[EpisodeSource], weights: Sequence[float], broken: Mapping[str, Sequence[BrokenEpisode]]
) -> Iterator[str]:
    yield "| data set | share | episodes | frames | frames a second | body | camera | broken episodes left out |"
    yield "|---|---|---|---|---|---|---|---|"
    for source, weight in zip(sources, weights, strict=True):
        frames = sum(episode.num_frames for episode in source)
        indices = [str(episode.index) for episode in broken.get(source.name, ())]
        named = ", ".join([*indices[:_MAX_NAMED], *(["…"] if len(indices) > _MAX_NAMED else [])])
        cells = [
            *(source.name, f"{weight / sum(weights):.2%}", len(source), frames, f"{source.fps:g}"),
            *(source.embodiment, source.camera, f"{len(indices)} ({named})" if indices else "0"),
        ]
        yield f"| {' | '.join(map(_plain, cells))} |"


def _plain(cell: object) -> str:
    """Names come from the data: none may break the table, or put anything but itself on a page."""
    text = "".join(sign if sign.isprintable() else " " for sign in str(cell))
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in text)
