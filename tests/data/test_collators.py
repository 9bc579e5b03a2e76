# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from cyclemimic.data import CycleMimicCollator, LatentActionTokenizerCollator, PairAugmentation
from cyclemimic.data.collators import _shift

from .conftest import make_frames

FRAMES = make_frames(4, size=8)


def fake_image_processor(current, future, return_tensors):
    assert return_tensors == "pt" and all(frame.dtype == np.uint8 for frame in (*current, *future))
    return {"pixel_values": torch.tensor(np.stack(current)), "future_pixel_values": torch.tensor(np.stack(future))}


class FakeProcessor:
    def __call__(self, **arguments):
        self.arguments = arguments
        return {"input_ids": torch.zeros(len(arguments["text"]), 3, dtype=torch.int64)}


class FakeProcessorOfWords(FakeProcessor):
    latent_token_ids = list(range(10, 26))

    def __call__(self, **arguments):
        inputs = super().__call__(**arguments)
        return inputs | {"labels": torch.tensor([-100, 0, 0]).expand_as(inputs["input_ids"])}


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


def test_tokenizer_batch_of_the_two_frames_alone():
    items = [{"current": FRAMES[0], "future": FRAMES[1]}, {"current": FRAMES[2], "future": FRAMES[3]}]
    collator = LatentActionTokenizerCollator(fake_image_processor)
    assert set(collator(items)) == {"pixel_values", "future_pixel_values"}
    assert set(collator([item | {"embodiment_id": None} for item in items])) == {"pixel_values", "future_pixel_values"}
    with pytest.raises(ValueError, match="`items` must all have 'embodiment_id' or none of them, got it in 1 of 2"):
        collator([items[0], items[1] | {"embodiment_id": 0}])


def test_policy_batch_with_all_targets():
    items = [
        {
            "image": FRAMES[index],
            "instruction": f"task {index}",
            "source": "ab"[index],
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


def test_policy_items_of_several_data_sets_keep_their_names():
    items = [{"image": FRAMES[0], "instruction": "push", "source": source} for source in ("a", "b", "a")]
    processor = FakeProcessor()
    CycleMimicCollator(processor)(items)
    assert processor.arguments["dataset"] == ["a", "b", "a"]


def test_policy_batch_without_targets():
    processor = FakeProcessor()
    CycleMimicCollator(processor)([{"image": FRAMES[0], "instruction": "push"}])
    given = processor.arguments
    assert given["latent_actions"] is given["actions"] is given["actions_mask"] is given["dataset"] is None


@pytest.mark.parametrize("key", ["latent_actions", "actions", "actions_mask", "robot_state", "source"])
@pytest.mark.parametrize("order", [1, -1])
def test_what_only_some_items_have_is_refused(key, order):
    items = [{"image": FRAMES[0], "instruction": "push"}, {"image": FRAMES[1], "instruction": "push", key: np.ones(2)}]
    with pytest.raises(ValueError, match=f"`items` must all have '{key}' or none of them, got it in 1 of 2"):
        CycleMimicCollator(FakeProcessor())(items[::order])


def test_augmentation_depends_on_batch_and_epoch_alone():
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 4, 4, 3), dtype=np.uint8)
    items = [{"current": current, "future": future, "embodiment_id": 0} for current, future in zip(*frames)]
    collator = LatentActionTokenizerCollator(fake_image_processor, PairAugmentation(reversed_share=0.5))
    torch.manual_seed(0)
    state, first = torch.get_rng_state(), collator(items)["pixel_values"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(collator(items)["pixel_values"], first)
    assert not torch.equal(collator(items[::-1])["pixel_values"].flip(0), first)
    collator.set_epoch(1)
    assert not torch.equal(collator(items)["pixel_values"], first)
    collator.set_epoch(0)
    assert torch.equal(collator(items)["pixel_values"], first)
    np.testing.assert_array_equal(collator.for_evaluation()(items)["pixel_values"], frames[0])


def test_a_batch_of_one_is_shown_otherwise_in_every_epoch():
    current, future = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    collator = LatentActionTokenizerCollator(fake_image_processor, PairAugmentation(reversed_share=0.5))
    seen = []
    for epoch in range(20):
        collator.set_epoch(epoch)
        seen.append(collator([{"current": current, "future": future, "embodiment_id": 0}])["pixel_values"])
    assert 3 < sum(torch.equal(each[0], torch.tensor(current)) for each in seen) < 17


def test_workers_that_outlive_an_epoch_learn_of_the_next():
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 4, 4, 3), dtype=np.uint8)
    items = [{"current": current, "future": future, "embodiment_id": 0} for current, future in zip(*frames)]
    collator = LatentActionTokenizerCollator(fake_image_processor, PairAugmentation(reversed_share=0.5))
    loader = torch.utils.data.DataLoader(
        items, batch_size=40, collate_fn=collator, num_workers=1, persistent_workers=True
    )
    for epoch in range(2):
        collator.set_epoch(epoch)
        (batch,) = loader
        assert torch.equal(batch["pixel_values"], collator(items)["pixel_values"])


def test_tokens_are_corrupted_by_batch_and_epoch_alone():
    images = np.random.default_rng(0).integers(0, 256, (800, 4, 4, 3), dtype=np.uint8)
    items = [{"image": image, "instruction": "push", "latent_actions": np.zeros(2)} for image in images]
    collator = CycleMimicCollator(FakeProcessorOfWords(), corrupted_share=0.25)
    first = collator(items)["input_ids"]
    assert torch.equal(collator(items)["input_ids"], first) and not first[:, 0].any()
    changed = first[:, 1:] != 0
    assert 0.2 < changed.float().mean() < 0.3
    assert set(first[:, 1:][changed].tolist()) == set(FakeProcessorOfWords.latent_token_ids)
    collator.set_epoch(1)
    assert not torch.equal(collator(items)["input_ids"], first)
    assert not collator.for_evaluation()(items)["input_ids"].any()


def shifted_images(images, shift):
    processor = FakeProcessor()
    CycleMimicCollator(processor, image_shift=shift)([{"image": image, "instruction": "push"} for image in images])
    return processor.arguments["images"]


def test_images_are_shifted_with_their_border_repeated():
    images = np.random.default_rng(0).integers(0, 256, (200, 5, 6, 3), dtype=np.uint8)
    seen = set()
    for image, shifted in zip(images, shifted_images(images, 2), strict=True):
        assert shifted.shape == image.shape and shifted.dtype == np.uint8
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
        offsets = {
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if np.array_equal(padded[2 - down : 7 - down, 2 - right : 8 - right], shifted)
        }
        assert len(offsets) == 1
        seen |= offsets
    assert len(seen) == 25
    np.testing.assert_array_equal(shifted_images(images, 2), shifted_images(images, 2))


def test_shift_by_hand():
    image = np.arange(9, dtype=np.uint8).reshape(3, 3, 1).repeat(3, axis=2)
    by_offset = {shifted[..., 0].tobytes() for shifted in shifted_images([image] * 100, 1)}
    # One down and one to the right: the first row and column stand twice.
    assert bytes([0, 0, 1, 0, 0, 1, 3, 3, 4]) in by_offset
    assert len(by_offset) == 9


def test_shift_is_that_of_clamped_indices():
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    for down, right in itertools.product(range(-6, 7), repeat=2):
        rows, columns = np.clip(np.arange(5) - down, 0, 4), np.clip(np.arange(4) - right, 0, 3)
        np.testing.assert_array_equal(_shift(image, down, right), image[rows[:, None], columns])


def test_without_a_shift_images_pass_as_they_are():
    images = list(FRAMES)
    assert all(given is image for given, image in zip(shifted_images(images, 0), images, strict=True))


def test_robot_states_are_stacked():
    processor = FakeProcessor()
    items = [{"image": FRAMES[0], "instruction": "push", "robot_state": np.float32([n, 2])} for n in range(2)]
    CycleMimicCollator(processor)(items)
    assert processor.arguments["robot_state"].tolist() == [[0, 2], [1, 2]]
    CycleMimicCollator(processor)([{"image": FRAMES[0], "instruction": "push"}])
    assert processor.arguments["robot_state"] is None


def test_images_of_several_cameras_are_shifted_each_by_itself():
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    items = [{"image": list(pair), "instruction": "push"} for pair in images.reshape(2, 2, 5, 6, 3)]
    processor = FakeProcessor()
    CycleMimicCollator(processor, image_shift=2)(items)
    shifted = processor.arguments["images"]
    assert [len(views) for views in shifted] == [2, 2]
    np.testing.assert_array_equal(np.concatenate(shifted), shifted_images(images, 2))
