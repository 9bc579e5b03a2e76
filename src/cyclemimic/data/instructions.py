# SPDX-License-Identifier: Apache-2.0
"""What is said of the episodes of some data sets."""

from __future__ import annotations

from collections.abc import Sequence

from .episode import DataError
from .episode_source import EpisodeSource, list_episodes

UNSAID = "go on"
"""What a policy is told where a data set says nothing, of an episode or of a frame: it still teaches what follows from the picture."""


def instruction_or_unsaid(instruction: str | None) -> str:
    """An episode's instruction, or [`UNSAID`]."""
    return instruction if instruction and instruction.strip() else UNSAID


def instructions_of(sources: Sequence[EpisodeSource], may_be_silent: bool = False) -> list[str]:
    """The distinct instructions of some data sets.

    Raises:
        DataError: an episode has none, or with `may_be_silent` all of them.
    """
    episodes = list_episodes(sources)
    silent = [episode for episode in episodes if not (episode.instruction or "").strip()]
    if silent and not (may_be_silent and len(silent) < len(episodes)):
        first, place = silent[0], silent[0].place or ""
        named = f"episode {first.index}" + (f" ({place})" if place else "")
        hint = "; write a table `clips.csv` beside the films, with the columns file and text" if "#t=" in place else ""
        raise DataError(
            f"{first.source}: {len(silent)} episodes have no instruction, {named} first; the policy needs one an episode"
            f"{hint}"
        )
    said = {text for episode in episodes for text in episode.instructions}
    return sorted(said - {episode.instruction for episode in silent if episode.instruction is not None})
