# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch

from cyclemimic.data import CycleMimicCollator, LatentActionTokenizerCollator

from .conftest import make_frames

FRAMES = make_frames(4, size=8)


def fake_image_processor(current, future, return_tensors):
    assert return_tensors == "pt" and all(frame.dtype == np.uint8 for frame in (*current, *future))
    return {"pixel_values": torch.tensor(np.stack(current)), "future_pixel_values": torch.tensor(np.stack(future))}


class FakeProcessor:
    def __call__(self, **arguments):
        self.arguments = arguments
        return {"input_ids": torch.zeros(len(arguments["text"]), 3, dtype=torch.int64)}


def test_tokenizer_batch():
    items = [
        {"current": FRAMES[0], "future": FRAMES[1], "embodiment_id": 0, "instruction": None},
        {"current": FRAMES[2], "future": FRAMES[3], "embodiment_id": 2, "instruction": "push"},
    ]
    batch = LatentActionTokenizerCollator(fake_image_processor)(items)
    assert set(batch) == {"pixel_values", "future_pixel_values", "embodiment_ids"}
    np.testing.assert_array_equal(batch["pixel_values"], FRAMES[[0, 2]])
    np.testing.assert_array_equal(batch["future_pixel_values"], FRAMES[[1, 3]])
    assert batch["embodiment_ids"].dtype == torch.int64 and batch["embodiment_ids"].tolist() == [0, 2]


def test_policy_batch_with_all_targets():
    items = [
        {
            "image": FRAMES[index],
            "instruction": f"task {index}",
            "latent_actions": np.full(4, index),
            "actions": np.full((3, 2), index, dtype=np.float32),
            "actions_mask": np.array([True, True, index == 0]),
        }
        for index in range(2)
    ]
    processor = FakeProcessor()
    batch = CycleMimicCollator(processor, dataset_name="drawer")(items)
    assert set(batch) == {"input_ids"}
    given = processor.arguments
    assert given["text"] == ["task 0", "task 1"] and given["dataset"] == "drawer" and given["return_tensors"] == "pt"
    assert all(image.dtype == np.uint8 for image in given["images"])
    assert given["latent_actions"].tolist() == [[0] * 4, [1] * 4]
    assert given["actions"].shape == (2, 3, 2) and given["actions"].dtype == np.float32
    assert given["actions_mask"].tolist() == [[True, True, True], [True, True, False]]


def test_policy_batch_without_targets():
    processor = FakeProcessor()
    CycleMimicCollator(processor)([{"image": FRAMES[0], "instruction": "push"}])
    given = processor.arguments
    assert given["latent_actions"] is given["actions"] is given["actions_mask"] is given["dataset"] is None
