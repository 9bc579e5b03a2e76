# SPDX-License-Identifier: Apache-2.0
"""Frame pairs whose latent actions are known: where to look for the pairs nearest to an action."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cyclemimic.data import DataError, FramePairDataset, LatentLabels


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Some pairs of a data set and their codes.

    Args:
        pairs ([`FramePairDataset`]): The frames.
        indices (`np.ndarray` of shape `(n,)`): Which pairs have codes.
        codes (`np.ndarray` of shape `(n, num_latent_tokens)`): Their latent actions.
    """

    pairs: FramePairDataset
    indices: np.ndarray
    codes: np.ndarray

    @classmethod
    def from_labels(cls, pairs: FramePairDataset, labels: LatentLabels, interval_s: float) -> LabelledPairs:
        """
        The pairs that a label set names; `interval_s` is what `pairs` were made with.

        Raises:
            DataError: It was made with another interval, for all data sets or for one, or names none of them.
        """
        kept = labels.metadata.get("interval_s", interval_s)
        if kept != interval_s:
            raise DataError(f"`interval_s` must be {kept:g}, as when `labels` were made, got {interval_s:g}")
        indices, codes = [], []
        # Pairs lie episode after episode.
        bounds = np.searchsorted(pairs.pairs[:, 0], np.arange(len(pairs.episodes) + 1))
        for episode, start, end in zip(pairs.episodes, bounds, bounds[1:]):
            if (episode.source, episode.index) in labels:
                frames, of_episode = labels.episode(episode.source, episode.index)
                own = np.arange(start, end)
                _, left, right = np.intersect1d(pairs.pairs[own, 1], frames, return_indices=True)
                futures = labels.future_frames(episode.source, episode.index)[right]
                if not np.array_equal(pairs.pairs[own[left], 2], futures):
                    raise DataError(
                        f"`labels` must be of pairs {interval_s:g} s apart, got others for {episode.source}, episode "
                        f"{episode.index}; label it again with this interval"
                    )
                indices.append(own[left])
                codes.append(of_episode[right])
        if not sum(map(len, indices)):
            wanted, named = ({episode.source for episode in pairs.episodes}, {source for source, _ in labels.episodes})
            raise DataError(f"`labels` must name pairs of {sorted(wanted)}, got labels of {sorted(named)}")
        return cls(pairs, np.concatenate(indices), np.concatenate(codes))

    def nearest(
        self, codes: np.ndarray, words: np.ndarray, count: int, leave_out: int | None = None, seed: int = 0
    ) -> list[int]:
        """
        The pairs whose actions are nearest: by the number of words that differ, then by how far apart those words are in
        the codebook, then at random. At most one an episode, for its neighbours in time look the same.

        Args:
            codes (`np.ndarray` of shape `(num_latent_tokens,)`): The action.
            words (`np.ndarray` of shape `(codebook_size, codebook_dim)`): The codebook.
            count (`int`): How many.
            leave_out (`int`, *optional*): Position in `pairs.episodes` of an episode not to look in.
            seed (`int`, *optional*, defaults to 0): Of the draw among equals.

        Returns:
            `list[int]`: Positions in `indices`, the nearest first; fewer than `count` where there are fewer episodes.
        """
        squared = np.square(words[:, None] - words[None]).sum(-1)
        apart = squared[codes[None], self.codes].sum(1)
        differing = (self.codes != codes).sum(1)
        order = np.lexsort((np.random.default_rng(seed).random(len(apart)), apart, differing))
        episodes = self.pairs.pairs[self.indices[order], 0]
        _, first = np.unique(episodes, return_index=True)
        first = np.sort(first[episodes[first] != (-1 if leave_out is None else leave_out)])
        return order[first[:count]].tolist()
