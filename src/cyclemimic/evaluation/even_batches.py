# SPDX-License-Identifier: Apache-2.0
"""A trained policy whose actions do not depend on what else is in the batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from cyclemimic.evaluation.policy import ChunkPolicy

_PADDING = 32


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class EvenBatchPolicy(ChunkPolicy):
    """
    A trained policy that computes every batch in one shape. Matrix products of another size add up in another order, and a
    robot's way amplifies the last digits: without this, what a rollout comes to would depend on how many others were under
    way. Batches are filled up with copies, prompts padded by their own length. On a processor one thread computes: several
    share the rows out, so that a row's last digits would depend on its place. The other cores are the simulators'.

    Args:
        model, processor, dataset: As in [`ChunkPolicy`].
        batch_size (`int`): Rows of every batch.
    """

    def __init__(self, model: Any, processor: Any, dataset: str | None, batch_size: int) -> None:
        super().__init__(model, processor, dataset, pad_to_multiple_of=_PADDING)
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        self.batch_size = batch_size
        self._lengths: dict[str, int] = {}

    def predict(
        self, images: list[np.ndarray], instructions: list[str], robot_states: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """As [`RolloutPolicy`] says, whatever else is in the batch."""
        by_length: dict[int, list[int]] = {}
        for row, instruction in enumerate(instructions):
            by_length.setdefault(self._length(images[row], instruction), []).append(row)
        actions: dict[int, np.ndarray] = {}
        for rows in by_length.values():
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                filled = batch + batch[:1] * (self.batch_size - len(batch))
                states = None if robot_states is None else [robot_states[row] for row in filled]
                seen = [images[row] for row in filled], [instructions[row] for row in filled], states
                with _one_thread():
                    actions |= zip(batch, super().predict(*seen))
        return np.stack([actions[row] for row in range(len(images))])

    def _length(self, image: np.ndarray, instruction: str) -> int:
        if instruction not in self._lengths:
            inputs = self.processor(images=[image], text=[instruction], **self.padding)
            self._lengths[instruction] = inputs["input_ids"].shape[1]
        return self._lengths[instruction]
