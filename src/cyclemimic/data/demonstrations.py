# SPDX-License-Identifier: Apache-2.0
"""Frames with what the policy learns from them: instruction, latent actions, chunks of actions (paper §4)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from .checking import checked_vectors
from .episode import DataError, Episode
from .episode_source import EpisodeSource, list_episodes
from .frame_store import FrameStore
from .instructions import UNSAID, instruction_or_unsaid
from .labels.latent_labels import LatentLabels

logger = logging.getLogger(__name__)


class DemonstrationDataset(Dataset):
    """One item a frame: all frames that have a latent action label, or simply all frames.

    Args:
        sources (`Sequence[EpisodeSource]`): Data sets.
        labels (`LatentLabels`, *optional*): Latent action labels. Episodes and frames without one are left out.
        chunk_size (`int`, *optional*): Number of actions `T` from the frame on that an item holds; without, items hold
            no actions and the data sets need none.
        transform (`Callable`, *optional*): As in [`FrameStore`].
        use_robot_state (`bool`, *optional*, defaults to `False`): Whether items hold the robot state.
        further_cameras (`Sequence[Sequence[EpisodeSource]]`, *optional*): The data sets once more for every further camera,
            opened with it; items then hold an image of each.

    Raises:
        DataError: If no frame has a label, a label is of a frame that does not exist, a further camera lacks an episode or
            frames, or what is asked for of actions and
            states is missing or differs in size between data sets.
        ValueError: If an argument does not fit.

    Attributes:
        frames (`np.ndarray` of shape `(num_items, 2)`): `int32` position of the episode in `episodes`, frame index.
        episodes (`list[Episode]`): Episodes that have items.
        sources (`list[EpisodeSource]`), labels (`LatentLabels` or `None`): What it was made of; nothing in the process of
            a data loader.
        action_dim, state_dim (`int` or `None`): Size of an action and of a robot state, where items hold them.
    """

    def __init__(
        self,
        sources: Sequence[EpisodeSource],
        labels: LatentLabels | None = None,
        chunk_size: int | None = None,
        transform: Callable[[np.ndarray], np.ndarray] | None = None,
        use_robot_state: bool = False,
        further_cameras: Sequence[Sequence[EpisodeSource]] = (),
    ) -> None:
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"`chunk_size` must be at least 1, got {chunk_size}")
        episodes = list_episodes(sources)
        self.sources, self.labels = list(sources), labels
        self.chunk_size = chunk_size
        self.episodes: list[Episode] = []
        self.action_dim: int | None = None
        self.state_dim: int | None = None
        self._actions: list[np.ndarray] = []
        self._states: list[np.ndarray] | None = [] if use_robot_state else None
        frames: list[np.ndarray] = []
        codes: list[Any] = []
        for episode in episodes:
            labelled = _labelled_frames(episode, labels)
            if labelled is None:
                continue
            frames.append(labelled[0])
            codes.append(labelled[1])
            if chunk_size is not None:
                remedy = "learn from it without `chunk_size`, or leave it out"
                self._actions.append(checked_vectors(episode, "actions", self.action_dim, remedy))
                self.action_dim = self._actions[-1].shape[1]
            if self._states is not None:
                remedy = "learn without the robot state, or leave it out"
                self._states.append(checked_vectors(episode, "states", self.state_dim, remedy))
                self.state_dim = self._states[-1].shape[1]
            self.episodes.append(episode)
        if not self.episodes:
            raise DataError(
                f"{[source.name for source in sources]}: no frame has a label; the labels are of "
                f"{sorted({name for name, _ in labels.episodes} if labels else ())}: label these data sets, or give the labels made of them"
            )
        positions = np.repeat(np.arange(len(frames)), [len(indices) for indices in frames])
        self.frames = np.stack([positions, np.concatenate(frames)], axis=1).astype(np.int32)
        self._codes: np.ndarray | None = None if labels is None else np.concatenate(codes)
        self._warn_without_instruction()
        views = [self.episodes, *(_same_episodes(self.episodes, camera) for camera in further_cameras)]
        self._stores = [FrameStore(view, transform, num_stores=len(views)) for view in views]

    def __len__(self) -> int:
        return len(self.frames)

    def __getstate__(self) -> dict[str, Any]:
        # All that is read of them are the episodes and their codes.
        return {**self.__dict__, "sources": [], "labels": None}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a frame and its targets, all of them copies, free to change.

        - **image** (`np.ndarray` of shape `(height, width, 3)`): RGB, `uint8`; with `further_cameras` a list of such, one a
          camera.
        - **instruction** (`str`): What to do; [`~cyclemimic.data.instructions.UNSAID`] if the data set says nothing at this frame.
        - **source** (`str`), **episode_index**, **frame_index** (`int`): Where the frame is from.
        - **latent_actions** (`np.ndarray` of shape `(num_latent_tokens,)`, with `labels`): Codes, `int64`.
        - **actions** (`np.ndarray` of shape `(chunk_size, action_dim)`, with `chunk_size`): `float32`, physical units;
          past the episode's end the last action is repeated.
        - **actions_mask** (`np.ndarray` of shape `(chunk_size,)`, with `chunk_size`): `bool`, `False` past the end.
        - **robot_state** (`np.ndarray` of shape `(state_dim,)`, with `use_robot_state`): `float32`, physical units.
        """
        position, frame_index = self.frames[index].tolist()
        episode = self.episodes[position]
        images = [store.frame(position, frame_index) for store in self._stores]
        item = {
            "image": images[0] if len(images) == 1 else images,
            "instruction": instruction_or_unsaid(episode.instruction_at(frame_index)),
            "source": episode.source,
            "episode_index": episode.index,
            "frame_index": frame_index,
        }
        if self._codes is not None:
            item["latent_actions"] = self._codes[index].copy()
        if self.chunk_size is not None:
            steps = np.arange(frame_index, frame_index + self.chunk_size)
            item["actions"] = self._actions[position][np.minimum(steps, episode.num_frames - 1)]
            item["actions_mask"] = steps < episode.num_frames
        if self._states is not None:
            item["robot_state"] = self._states[position][frame_index].copy()
        return item

    def _warn_without_instruction(self) -> None:
        silent = sorted({episode.source for episode in self.episodes if not episode.instruction})
        if silent:
            logger.warning("%s: episodes without instruction; theirs is %r", ", ".join(silent), UNSAID)


def _same_episodes(episodes: Sequence[Episode], camera: Sequence[EpisodeSource]) -> list[Episode]:
    """The episodes as another camera filmed them, which must have filmed them whole."""
    filmed = {(episode.source, episode.index): episode for episode in list_episodes(camera)}
    views = []
    for episode in episodes:
        view = filmed.get((episode.source, episode.index))
        if view is None or view.num_frames != episode.num_frames:
            raise DataError(
                f"{episode.source}: episode {episode.index} has {episode.num_frames} frames of {episode.camera}, but "
                f"{view.num_frames if view else 'none'} of a further camera; leave it out with `--skip_broken`"
            )
        views.append(view)
    return views


def _labelled_frames(episode: Episode, labels: LatentLabels | None) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Frames of an episode that are items, and their codes; `None` if it has none."""
    if labels is None:
        return np.arange(episode.num_frames), None
    if (episode.source, episode.index) not in labels:
        return None
    labels.check_is_of(episode)
    frames, codes = labels.episode(episode.source, episode.index)
    if frames[0] < 0 or frames[-1] >= episode.num_frames:
        raise DataError(
            f"{episode.source}: episode {episode.index} has {episode.num_frames} frames, but labels of frames "
            f"{frames[0]} to {frames[-1]}; label the data set again"
        )
    return frames, codes
