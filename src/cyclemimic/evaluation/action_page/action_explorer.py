# SPDX-License-Identifier: Apache-2.0
"""Two frames → their latent action, and what shows whether it means anything: pure computation, without a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from cyclemimic.models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
    LatentActionTokenizerImageProcessor,
)
from cyclemimic.models.latent_action_tokenizer.modeling_latent_action_tokenizer import LatentActionTokenizerModel

from ..gallery import GalleryPair
from ..pair_gallery import caption_of, evenly_spread, names_to_cross
from ..shared_actions import motion_magnitude
from .labelled_pairs import LabelledPairs

NUM_NEIGHBOURS = 6
MAX_BODIES = 6
_DRAWS_AN_EXAMPLE = 4


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A labelled pair near to an action.

    Args:
        codes (`tuple[int, ...]`): Its own action.
        num_shared (`int`): How many words it shares.
        pair ([`GalleryPair`]): Its frames.
    """

    codes: tuple[int, ...]
    num_shared: int
    pair: GalleryPair


@dataclass(frozen=True, eq=False)
class ActionView:
    """What there is to see of the action between two frames.

    Args:
        codes (`tuple[int, ...]`): The action, of `num_latent_tokens` words.
        current, future, reconstruction (`np.ndarray` of shape `(height, width, 3)`): uint8, RGB; the last is what the
            decoder makes of the first and the action.
        transfers (`tuple[GalleryPair, ...]`): Frames of other bodies, and what the decoder makes of them.
        neighbours (`tuple[Neighbour, ...]`): The nearest labelled pairs, the nearest first.
    """

    codes: tuple[int, ...]
    current: np.ndarray
    future: np.ndarray
    reconstruction: np.ndarray
    transfers: tuple[GalleryPair, ...]
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, eq=False)
class _Body:
    """A frame to apply actions to: of the first episode of its kind."""

    name: str
    frame: np.ndarray
    caption: str


class ActionExplorer:
    """
    Looks at latent actions of frame pairs, a user's or the data's.

    Args:
        tokenizer ([`LatentActionTokenizerModel`]): On the device to use, in evaluation mode.
        image_processor ([`LatentActionTokenizerImageProcessor`]): The tokenizer's.
        labelled ([`LabelledPairs`]): Where neighbours, examples and other bodies are from.
        seed (`int`, *optional*, defaults to 0): Of what is drawn at random.
    """

    def __init__(
        self,
        tokenizer: LatentActionTokenizerModel,
        image_processor: LatentActionTokenizerImageProcessor,
        labelled: LabelledPairs,
        seed: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.labelled = labelled
        self.seed = seed
        self._words = tokenizer.quantizer.words.detach().float().cpu().numpy()
        episodes = labelled.pairs.episodes
        self._names = names_to_cross(episodes, [episode.instruction for episode in episodes])
        self._several_bodies = len({episode.embodiment for episode in episodes}) > 1
        firsts = {name: self._names.index(name) for name in sorted(set(self._names))}
        self._bodies = [
            _Body(name, episodes[position].read_frames([0])[0], self._caption(position, 0))
            for name, position in list(firsts.items())[: MAX_BODIES + 1]
        ]

    @torch.inference_mode()
    def encode(self, current: Sequence[np.ndarray], future: Sequence[np.ndarray]) -> np.ndarray:
        """The actions of some pairs of frames, `int64` of shape `(num_pairs, num_latent_tokens)`."""
        inputs = self.image_processor(list(current), list(future)).to(self.tokenizer.device)
        return self.tokenizer.encode(**inputs).codes.cpu().numpy()

    @torch.inference_mode()
    def apply(self, codes: Sequence[int], frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What an action makes of some frames, each in its frame's size."""
        pixel_values = self.image_processor(list(frames))["pixel_values"].to(self.tokenizer.device)
        repeated = torch.tensor([list(codes)] * len(frames), device=self.tokenizer.device)
        decoded = self.image_processor.post_process(self.tokenizer.decode(pixel_values, codes=repeated).pixel_values)
        return [
            np.asarray(Image.fromarray(image).resize(frame.shape[1::-1], Image.Resampling.BICUBIC))
            for image, frame in zip(decoded, frames, strict=True)
        ]

    def examples(self, count: int = 12) -> list[int]:
        """Pairs of the data to begin with, as many of each data set: of four times as many drawn, what moves most."""
        pairs = self.labelled.pairs
        sources = len({episode.source for episode in pairs.episodes})
        per_source = max(1, count // sources)
        drawn = evenly_spread(pairs, per_source * _DRAWS_AN_EXAMPLE, self.seed)
        by_source: dict[str, list[tuple[float, int]]] = {}
        for index in drawn:
            item = pairs[int(index)]
            motion = motion_magnitude(item["current"], item["future"])
            by_source.setdefault(item["source"], []).append((-motion, int(index)))
        return [index for found in by_source.values() for _, index in sorted(found)[:per_source]][:count]

    def example(self, index: int) -> GalleryPair:
        """The frames of a pair of the data, and what it is of."""
        pairs = self.labelled.pairs
        item = pairs[index]
        return GalleryPair(item["current"], item["future"], self._caption(*pairs.pairs[index, :2].tolist()))

    def view_example(self, index: int) -> ActionView:
        """What there is to see of a pair of the data; its own body is not shown as another, nor its episode as near."""
        position = int(self.labelled.pairs.pairs[index, 0])
        pair = self.example(index)
        return self._view(pair.current, pair.future, [], self._names[position], position)

    def view(self, current: np.ndarray, future: np.ndarray, other: np.ndarray | None = None) -> ActionView:
        """
        What there is to see of two frames of one video.

        Args:
            current, future (`np.ndarray` of shape `(height, width, 3)`): uint8, RGB.
            other (`np.ndarray`, *optional*): A further frame to apply the action to.

        Raises:
            ValueError: They are not of one size.
        """
        extra = [] if other is None else [_Body("", other, "your frame")]
        GalleryPair(current, future, "")
        return self._view(current, future, extra)

    def _view(
        self,
        current: np.ndarray,
        future: np.ndarray,
        extra: list[_Body],
        own: str | None = None,
        leave_out: int | None = None,
    ) -> ActionView:
        codes = tuple(self.encode([current], [future])[0].tolist())
        bodies = extra + [body for body in self._bodies if body.name != own][:MAX_BODIES]
        reconstruction, *moved = self.apply(codes, [current, *(body.frame for body in bodies)])
        near = self.labelled.nearest(np.array(codes), self._words, NUM_NEIGHBOURS, leave_out, self.seed)
        return ActionView(
            codes,
            current,
            future,
            reconstruction,
            tuple(GalleryPair(body.frame, image, body.caption) for body, image in zip(bodies, moved, strict=True)),
            tuple(self._neighbour(codes, place) for place in near),
        )

    def _neighbour(self, codes: tuple[int, ...], place: int) -> Neighbour:
        own = tuple(self.labelled.codes[place].tolist())
        num_shared = sum(left == right for left, right in zip(codes, own, strict=True))
        return Neighbour(own, num_shared, self.example(int(self.labelled.indices[place])))

    def _caption(self, position: int, frame_index: int) -> str:
        episode = self.labelled.pairs.episodes[position]
        return caption_of(episode, episode.instruction_at(frame_index), self._several_bodies)
