# SPDX-License-Identifier: Apache-2.0
"""Actions that do not depend on what else is in the batch, of a stand-in model that does look at all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cyclemimic.evaluation.even_batches import EvenBatchPolicy


class Inputs(dict):
    def to(self, device: str) -> Inputs:
        return self


class Processor:
    """A token a letter, padded as the real one pads."""

    def __call__(
        self, images: list[np.ndarray], text: list[str], pad_to_multiple_of: int = 1, **state: Any
    ) -> dict[str, torch.Tensor]:
        length = max(map(len, text))
        length += -length % pad_to_multiple_of
        values = torch.tensor([float(image.mean()) + len(line) / 8 for image, line in zip(images, text, strict=True)])
        if "robot_state" in state:
            values += torch.tensor(np.stack(state["robot_state"])).sum(1)
        return Inputs(values=values, input_ids=torch.zeros(len(text), length))

    def post_process_actions(self, actions: torch.Tensor, dataset: str) -> np.ndarray:
        return actions.numpy()


class Model(torch.nn.Module):
    """What it says depends on the number of rows and on the padding."""

    device = "cpu"

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []
        self.threads: set[int] = set()

    def predict_action_chunk(self, values: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(input_ids.shape))
        self.threads.add(torch.get_num_threads())
        return (values + 100 * input_ids.shape[0] + 1000 * input_ids.shape[1])[:, None, None].expand(-1, 2, 3)


IMAGES = [np.full((2, 2, 3), value, np.uint8) for value in range(7)]
TEXTS = ["go", "a longer one", "x" * 40, "go", "go", "y" * 33, "stop"]


@pytest.mark.parametrize("with_state", [False, True])
def test_neighbours_do_not_matter(with_state):
    states = [np.array([row / 4, 1.0]) for row in range(7)]

    def predict(rows):
        policy = EvenBatchPolicy(Model(), Processor(), "arm", 3)
        seen = [[IMAGES[row] for row in rows], [TEXTS[row] for row in rows], [states[row] for row in rows]]
        return policy.predict(*seen[: 3 if with_state else 2])

    together = predict(range(7))
    assert together.shape == (7, 2, 3)
    for rows in ([6, 2, 0], [5], [0, 0, 4, 1]):
        np.testing.assert_array_equal(predict(rows), together[rows])


def test_batches_have_one_number_of_rows_and_prompts_of_like_length_share_one():
    policy = EvenBatchPolicy(Model(), Processor(), "arm", 3)
    policy.predict(IMAGES, TEXTS)
    assert policy.model.shapes == [(3, 32), (3, 32), (3, 64)]


def test_one_thread_computes_and_the_others_come_back():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        policy = EvenBatchPolicy(Model(), Processor(), "arm", 3)
        policy.predict(IMAGES, TEXTS)
        assert policy.model.threads == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_no_rows():
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        EvenBatchPolicy(Model(), Processor(), "arm", 0)
