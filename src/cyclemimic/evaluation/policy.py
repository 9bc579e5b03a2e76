# SPDX-License-Identifier: Apache-2.0
"""What acts: the interface of a policy, a trained one, and the floor of every table."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch


class RolloutPolicy(Protocol):
    """Anything that maps camera images and instructions, and what the robots feel, to action chunks."""

    def predict(
        self, images: list[np.ndarray], instructions: list[str], robot_states: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """
        What to do next.

        Args:
            images (`list[np.ndarray]`): uint8 of shape `(height, width, 3)`, RGB; of a policy with several cameras a list
                of them each.
            instructions (`list[str]`): As many.
            robot_states (`list[np.ndarray]`, *optional*): As many, of shape `(state_dim,)`, for a policy that reads them.

        Returns:
            `np.ndarray` of shape `(len(images), chunk_size, action_dim)`: Actions in physical units.
        """


class ChunkPolicy:
    """
    A trained policy, behind its processor.

    Args:
        model: A `CycleMimicForActionPrediction`; it is put into evaluation mode.
        processor: Its `CycleMimicProcessor`.
        dataset (`str`, *optional*): Whose action statistics to use.
        padding (`int`, *optional*): What else the processor is told of every batch, such as `pad_to_multiple_of`.
    """

    def __init__(self, model: Any, processor: Any, dataset: str | None = None, **padding: int) -> None:
        self.model, self.processor, self.dataset, self.padding = model.eval(), processor, dataset, padding

    def predict(
        self, images: list[np.ndarray], instructions: list[str], robot_states: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """As [`RolloutPolicy`] says."""
        state = {} if robot_states is None else {"robot_state": robot_states, "dataset": self.dataset}
        inputs = self.processor(images=images, text=instructions, **state, **self.padding).to(self.model.device)
        with torch.inference_mode():
            actions = self.model.predict_action_chunk(**inputs)
        return self.processor.post_process_actions(actions, self.dataset)


class RandomPolicy:
    """Uniformly random actions in [-1, 1], the floor of every table."""

    def __init__(self, action_dim: int, chunk_size: int, seed: int = 0) -> None:
        self.shape = (chunk_size, action_dim)
        self.random = np.random.default_rng(seed)

    def predict(
        self, images: list[np.ndarray], instructions: list[str], robot_states: list[np.ndarray] | None = None
    ) -> np.ndarray:
        """As [`RolloutPolicy`] says; it looks at nothing."""
        return self.random.uniform(-1, 1, (len(images), *self.shape)).astype(np.float32)
