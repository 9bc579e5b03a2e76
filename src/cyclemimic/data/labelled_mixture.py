# SPDX-License-Identifier: Apache-2.0
"""Frames of a mixture with their latent actions: what the policy is pretrained on (paper §4)."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from .episode import DataError
from .instructions import instruction_or_unsaid
from .labels.latent_labels import LatentLabels
from .mixture_dataset import MixtureDataset


class LabelledMixture(Dataset):
    """The current frames of a mixture's pairs, with the instruction and the label of each.

    As [`MixtureDataset`], it is to be read from first to last.

    Args:
        pairs ([`MixtureDataset`]): The mixture, with the intervals that the labels were made with; `with_future=False` spares
            it frames that are not looked at here.
        labels ([`LatentLabels`]): Labels of all its pairs.

    Raises:
        DataError: If pairs have no label.
    """

    def __init__(self, pairs: MixtureDataset, labels: LatentLabels) -> None:
        self.pairs, self.labels = pairs, labels
        for episode, num_pairs in pairs.episodes:
            labels.check_is_of(episode)
            frames = labels.episode(episode.source, episode.index)[0] if self._knows(episode) else ()
            if len(frames) < num_pairs or frames[num_pairs - 1] != num_pairs - 1:
                raise DataError(
                    f"{episode.source}: episode {episode.index} has {num_pairs} pairs, but {len(frames)} labels; label "
                    "the data again"
                )

    def _knows(self, episode: Any) -> bool:
        return (episode.source, episode.index) in self.labels

    def __len__(self) -> int:
        return len(self.pairs)

    def set_epoch(self, epoch: int) -> None:
        """Go on with the draws of another epoch; Trainer calls it."""
        self.pairs.set_epoch(epoch)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a frame and its targets, as [`DemonstrationDataset`] without actions."""
        pair = self.pairs[index]
        where = {name: pair[name] for name in ("source", "episode_index", "frame_index")}
        codes = self.labels.lookup(*where.values())
        instruction = instruction_or_unsaid(pair["instruction"])
        return {"image": pair["current"], "instruction": instruction, **where, "latent_actions": codes}
