# SPDX-License-Identifier: Apache-2.0
"""Which action of the predicted chunks is executed next."""

from collections import deque

import torch


class ActionChunkQueue:
    """
    The actions of a batch of robots that step together, between two looks of the policy.

    Without ensembling, the first `n_action_steps` actions of a chunk are executed, and then the policy looks again. With
    it, the policy looks before every action, and the action is the mean of what all chunks so far say of this step, chunk
    `i` with the weight `exp(-temporal_ensemble_coeff * i)`, 0 being the oldest one (as in ACT, Zhao et al. 2023).

    Args:
        n_action_steps (`int`): Actions of a chunk that are executed.
        temporal_ensemble_coeff (`float`, *optional*): The weights' decay; 0 weighs all chunks alike.
    """

    def __init__(self, n_action_steps: int, temporal_ensemble_coeff: float | None = None) -> None:
        self.n_action_steps = n_action_steps
        self.temporal_ensemble_coeff = temporal_ensemble_coeff
        # The actions of each chunk that are still to come, `(batch_size, n, action_dim)`, the oldest chunk first.
        self._chunks: deque[torch.Tensor] = deque()
        self._needs_chunk = True

    @property
    def needs_chunk(self) -> bool:
        """Whether the policy must look before the next action."""
        return self._needs_chunk

    def push(self, chunk: torch.Tensor) -> None:
        """
        Put in what the policy has predicted.

        Args:
            chunk (`torch.Tensor` of shape `(batch_size, chunk_size, action_dim)`): Actions, the first for now.

        Raises:
            ValueError: chunks of another batch are under way.
        """
        self._check(len(chunk))
        self._chunks.append(chunk if self.temporal_ensemble_coeff is not None else chunk[:, : self.n_action_steps])
        self._needs_chunk = False

    def pop(self, batch_size: int) -> torch.Tensor:
        """
        Take out the next action, of shape `(batch_size, action_dim)`.

        Raises:
            ValueError: chunks of another batch are under way.
        """
        self._check(batch_size)
        actions = torch.stack([chunk[:, 0] for chunk in self._chunks])
        if self.temporal_ensemble_coeff is not None:
            age = torch.arange(len(actions), device=actions.device, dtype=actions.dtype)
            weights = torch.softmax(-self.temporal_ensemble_coeff * age, dim=0)
            actions = (weights[:, None, None] * actions).sum(0, keepdim=True)
        self._chunks = deque(chunk[:, 1:] for chunk in self._chunks if chunk.shape[1] > 1)
        self._needs_chunk = self.temporal_ensemble_coeff is not None or not self._chunks
        return actions[0]

    def _check(self, batch_size: int) -> None:
        if self._chunks and batch_size != len(self._chunks[0]):
            raise ValueError(
                f"`reset` must come before another batch size: chunks of {len(self._chunks[0])} robots are under way, "
                f"got one of {batch_size}."
            )
