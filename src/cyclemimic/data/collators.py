# SPDX-License-Identifier: Apache-2.0
"""Items of a data set to a batch of a model: one call of its image processor or processor."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from .augmentation import PairAugmentation

IGNORED_LABEL = -100
"""What torch's cross-entropy, and so every model of transformers, passes over."""


class BatchDraws:
    """Generators of what is drawn for a batch: another one for every batch and epoch, and the same whenever that batch
    comes in that epoch."""

    # A data loader fetches ahead of the training step, so the state of torch's own generator in a checkpoint has been
    # drawn from for batches that the resumed run draws for again.

    def __init__(self) -> None:
        # Shared, so that data loader's workers that outlive an epoch learn of the next.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """What comes from here on is of another epoch."""
        self._epoch.fill_(epoch)

    def generator(self, frames: Sequence[np.ndarray]) -> torch.Generator:
        """That of the batch of these frames."""
        seed = int(self._epoch)
        for frame in frames:
            seed = zlib.crc32(np.ascontiguousarray(frame).data, seed)
        return torch.Generator().manual_seed(seed)


@dataclass
class _DrawingCollator:
    """What collators that draw have in common."""

    _draws: BatchDraws = field(default_factory=BatchDraws, init=False, repr=False, compare=False)

    def set_epoch(self, epoch: int) -> None:
        """Draw anew, for batches that have been seen before; our Trainers call it.

        Args:
            epoch (`int`): That begins, or goes on.
        """
        self._draws.set_epoch(epoch)


@dataclass
class LatentActionTokenizerCollator(_DrawingCollator):
    """Makes batches of the latent action tokenizer from items of [`FramePairDataset`].

    Images stay `uint8` until the image processor, which runs here, in the data loader's workers.

    Args:
        image_processor (`Callable`): A `LatentActionTokenizerImageProcessor`.
        augmentation ([`PairAugmentation`], *optional*): What is done to the pairs, by default nothing.

    What is drawn depends on the batch and the epoch ([`set_epoch`](LatentActionTokenizerCollator.set_epoch)) alone, so that a
    resumed run sees what an uninterrupted one does.

    Items of the two frames alone make a batch without `embodiment_ids`, which the model takes as of one body.

    Raises:
        ValueError: In a call, if only some of the items have an `embodiment_id`.

    Example, two items to a batch:

    ```python
    [
        {"current": uint8 (h, w, 3), "future": uint8 (h, w, 3), "embodiment_id": 0, …},
        {"current": uint8 (h, w, 3), "future": uint8 (h, w, 3), "embodiment_id": 2, …},
    ]
    →
    {
        "pixel_values": float32 (2, 3, H, W),         # current frames, normalised
        "future_pixel_values": float32 (2, 3, H, W),
        "embodiment_ids": tensor([0, 2]),
    }
    ```
    """

    image_processor: Callable[..., Mapping[str, Any]]
    augmentation: PairAugmentation = PairAugmentation()

    def for_evaluation(self) -> LatentActionTokenizerCollator:
        """One that leaves the pairs as they are."""
        return replace(self, augmentation=PairAugmentation())

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        frames = {name: [item[name] for item in items] for name in ("current", "future")}
        batch = self.image_processor(**frames, return_tensors="pt")
        current, future = batch["pixel_values"], batch["future_pixel_values"]
        if self.augmentation != PairAugmentation():
            current, future = self.augmentation(current, future, self._draws.generator(frames["current"]))
        tensors = {"pixel_values": current, "future_pixel_values": future}
        embodiment_ids = _values(items, "embodiment_id")
        if embodiment_ids is not None:
            tensors["embodiment_ids"] = torch.tensor(embodiment_ids, dtype=torch.int64)
        return tensors


class PolicyProcessor(Protocol):
    """What is used here of a `CycleMimicProcessor`; `data` imports no model."""

    @property
    def latent_token_ids(self) -> list[int]:
        """Vocabulary ids of the words of a latent action."""
        ...

    def __call__(self, *args: Any, **kwargs: Any) -> Mapping[str, Any]:
        """Images and texts to the inputs of the policy."""
        ...


@dataclass
class CycleMimicCollator(_DrawingCollator):
    """Makes batches of the policy from items of [`DemonstrationDataset`].

    Args:
        processor (`Callable`): A `CycleMimicProcessor`.
        dataset_name (`str`, *optional*): Data set whose action statistics normalise the actions of all items; by
            default those of the data set that an item is of (`source`).
        image_shift (`int`, *optional*, defaults to 0): Images are shifted by up to so many pixels in each direction,
            their border repeated. How far depends on the batch and the epoch alone, as above.
        corrupted_share (`float`, *optional*, defaults to 0.0): Share of the latent action tokens of `input_ids` that are
            random words, while `labels` stay what they are, so that the action decoder does not rely on them more than
            predictions deserve. Which depends on the batch and the epoch alone, too.

    Raises:
        ValueError: In a call, if only some of the items have latent actions, actions, their mask, a robot state or a source.

    Example, two items to a batch:

    ```python
    [
        {"image": uint8 (h, w, 3), "instruction": "open the drawer", "latent_actions": int64 (4,),
         "actions": float32 (12, 7), "actions_mask": bool (12,), "source": "kitchen", …},
        {"image": uint8 (h, w, 3), "instruction": "press the button", …},  # of several cameras: a list of an image each
    ]
    →
    {
        "input_ids": int64 (2, length), "attention_mask": int64 (2, length), "pixel_values": float32 (2, …),
        "labels": int64 (2, length),          # with latent_actions: their tokens, -100 elsewhere
        "actions": float32 (2, 12, 7),        # with actions: normalised, by the statistics of their source
        "actions_mask": bool (2, 12),
        "robot_state": float32 (2, 8),        # with robot_state in the items: normalised alike
    }
    ```
    """

    processor: PolicyProcessor
    dataset_name: str | None = None
    image_shift: int = 0
    corrupted_share: float = 0.0

    def for_evaluation(self) -> CycleMimicCollator:
        """One that leaves images and tokens as they are."""
        return replace(self, image_shift=0, corrupted_share=0.0)

    def __call__(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        images = [item["image"] for item in items]
        generator = self._draws.generator(_views(images)) if self.image_shift or self.corrupted_share else None
        inputs = self.processor(
            images=self._shifted(images, generator),
            text=[item["instruction"] for item in items],
            latent_actions=_stacked(items, "latent_actions"),
            actions=_stacked(items, "actions"),
            actions_mask=_stacked(items, "actions_mask"),
            robot_state=_stacked(items, "robot_state"),
            dataset=self.dataset_name or _values(items, "source"),
            return_tensors="pt",
        )
        batch = dict(inputs)
        if self.corrupted_share > 0 and "labels" in batch:
            batch["input_ids"] = self._corrupted(batch["input_ids"], batch["labels"], generator)
        return batch

    def _corrupted(
        self, input_ids: torch.Tensor, labels: torch.Tensor, generator: torch.Generator | None
    ) -> torch.Tensor:
        words = torch.tensor(self.processor.latent_token_ids)
        random_words = words[torch.randint(len(words), input_ids.shape, generator=generator)]
        chosen = torch.rand(input_ids.shape, generator=generator) < self.corrupted_share
        return torch.where(chosen & (labels != IGNORED_LABEL), random_words, input_ids)

    def _shifted(self, images: list[Any], generator: torch.Generator | None) -> list[Any]:
        if self.image_shift == 0:
            return images
        # Of several cameras, each image by itself, as if they were of several samples.
        views = _views(images)
        draws = torch.randint(-self.image_shift, self.image_shift + 1, (len(views), 2), generator=generator)
        shifted = [_shift(view, *offset) for view, offset in zip(views, draws.tolist(), strict=True)]
        if not isinstance(images[0], list):
            return shifted
        num_cameras = len(images[0])
        return [shifted[start : start + num_cameras] for start in range(0, len(shifted), num_cameras)]


def _views(images: list[Any]) -> list[np.ndarray]:
    """All images, of one camera each or of several."""
    return [view for views in images for view in views] if isinstance(images[0], list) else images


def _shift(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The image moved by so many pixels, the border repeated where it has left."""
    height, width = image.shape[:2]
    down, right = np.clip(down, 1 - height, height - 1), np.clip(right, 1 - width, width - 1)
    rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
    shifted = np.empty_like(image)
    # One copy, and the border's: by indices it takes as long as all else that a collator does.
    shifted[rows, columns] = image[rows.start - down : rows.stop - down, columns.start - right : columns.stop - right]
    shifted[rows, : columns.start] = shifted[rows, columns.start, None]
    shifted[rows, columns.stop :] = shifted[rows, columns.stop - 1, None]
    shifted[: rows.start] = shifted[rows.start]
    shifted[rows.stop :] = shifted[rows.stop - 1]
    return shifted


def _values(items: Sequence[Mapping[str, Any]], key: str) -> list[Any] | None:
    """What the items have as `key`, or `None` where none of them has it."""
    values = [item[key] for item in items if item.get(key) is not None]
    if values and len(values) != len(items):
        raise ValueError(f"`items` must all have {key!r} or none of them, got it in {len(values)} of {len(items)}.")
    return values or None


def _stacked(items: Sequence[Mapping[str, Any]], key: str) -> np.ndarray | None:
    values = _values(items, key)
    return None if values is None else np.stack(values)
