# SPDX-License-Identifier: Apache-2.0
"""Squares that move on two bodies, and stand-ins for tokenizers of which it is known how good they are."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclemimic import LatentActionTokenizerImageProcessor
from cyclemimic.data import Episode, InMemorySource
from cyclemimic.evaluation.tokenizer_quality import QualitySettings, TokenizerMeasurement, measure_tokenizer
from cyclemimic.evaluation.tokenizer_quality.pair_sample import PairSample

SIZE, SQUARE, REACH = 16, 4, 2
BODIES = {"panda": 0, "sawyer": 1}
# At 10 fps: pairs of neighbouring frames.
SETTINGS = QualitySettings(interval_s=0.1, min_interval_s=0.1, transfer_probe_steps=180, num_resamples=50)


def make_source(body: str, num_episodes: int = 10, length: int = 21, seed: int = 0, **changes) -> InMemorySource:
    """Episodes in which a square goes up to two pixels a frame along each axis: a red one for the first body, a green
    one for the second. States are its place and a height that never changes, actions its steps."""
    random = np.random.default_rng([seed, BODIES.get(body, 0)])
    episodes = []
    for index in range(num_episodes):
        # Far enough from the border for one more step.
        places = np.empty((length, 2), dtype=np.int64)
        places[0] = random.integers(3, 10, 2)
        for step in range(1, length):
            places[step] = np.clip(places[step - 1] + random.integers(-REACH, REACH + 1, 2), 3, 9)
        frames = np.full((length, SIZE, SIZE, 3), 30, dtype=np.uint8)
        for frame, (top, left) in zip(frames, places, strict=True):
            frame[top : top + SQUARE, left : left + SQUARE, BODIES.get(body, 0)] = 220
        states = np.concatenate([places, np.full((length, 1), 5)], axis=1).astype(np.float32)
        actions = np.diff(states, axis=0, append=states[-1:])
        columns = {"states": states, "actions": actions} | changes
        episodes.append(
            Episode.from_arrays(frames, 10.0, source=f"{body}_data", embodiment=body, index=index, **columns)
        )
    return InMemorySource(episodes)


class SquareTokenizer(nn.Module):
    """Codes are the square's steps along both axes, and the decoder takes them: nothing is lost."""

    def __init__(self, codebook_size: int = 2 * REACH + 1) -> None:
        super().__init__()
        self.config = SimpleNamespace(codebook_size=codebook_size, num_latent_tokens=2, vision_config=None)
        self.device = torch.device("cpu")

    def encode(self, pixel_values: torch.Tensor, future_pixel_values: torch.Tensor) -> SimpleNamespace:
        codes = self.words_of(places_of(future_pixel_values) - places_of(pixel_values), pixel_values)
        return SimpleNamespace(codes=codes, quantized=F.one_hot(codes, self.config.codebook_size).float())

    def decode(self, pixel_values: torch.Tensor, codes: torch.Tensor) -> SimpleNamespace:
        steps = self.steps_of(codes, pixel_values)
        frames = [torch.roll(frame, tuple(step), (1, 2)) for frame, step in zip(pixel_values, steps.tolist())]
        return SimpleNamespace(pixel_values=torch.stack(frames))

    def words_of(self, steps: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return steps.clamp(-REACH, REACH) + REACH

    def steps_of(self, codes: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return codes - REACH


class BodySpecificTokenizer(SquareTokenizer):
    """Each body has words of its own, which mean nothing on the other body."""

    WORDS = 2 * REACH + 1

    def __init__(self) -> None:
        super().__init__(2 * self.WORDS)

    def words_of(self, steps: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        return super().words_of(steps, frames) + self.WORDS * bodies_of(frames)[:, None]

    def steps_of(self, codes: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        own = codes - self.WORDS * bodies_of(frames)[:, None]
        return torch.where((own >= 0) & (own < self.WORDS), own - REACH, 0)


class WatermarkTokenizer(SquareTokenizer):
    """The decoder moves nothing: it writes the words into two corner pixels, where the encoder looks first."""

    def encode(self, pixel_values: torch.Tensor, future_pixel_values: torch.Tensor) -> SimpleNamespace:
        action = super().encode(pixel_values, future_pixel_values)
        marks = (future_pixel_values[:, 2, 0, :2] * 255).round()
        codes = torch.where(marks > 40, (marks - 50) / 5, action.codes).long()
        return SimpleNamespace(codes=codes, quantized=F.one_hot(codes, self.config.codebook_size).float())

    def decode(self, pixel_values: torch.Tensor, codes: torch.Tensor) -> SimpleNamespace:
        marked = pixel_values.clone()
        marked[:, 2, 0, :2] = (50 + 5 * codes) / 255
        return SimpleNamespace(pixel_values=marked)


def places_of(frames: torch.Tensor) -> torch.Tensor:
    """Top left corner of the square: `(n, 3, height, width)` → `(n, 2)`."""
    bright = frames.amax(1) > 0.5
    return torch.stack([bright.any(2).int().argmax(1), bright.any(1).int().argmax(1)], dim=1)


def bodies_of(frames: torch.Tensor) -> torch.Tensor:
    """0 for a red square, 1 for a green one."""
    return (frames[:, 1].amax((1, 2)) > 0.5).long()


@pytest.fixture(scope="session")
def image_processor() -> LatentActionTokenizerImageProcessor:
    return LatentActionTokenizerImageProcessor(SIZE, image_mean=[0.0] * 3, image_std=[1.0] * 3)


@pytest.fixture(scope="session")
def measure(image_processor) -> Callable[..., TokenizerMeasurement]:
    """Measures a stand-in on the squares of some bodies."""

    def run(tokenizer: nn.Module, *bodies: str) -> TokenizerMeasurement:
        return measure_tokenizer(tokenizer, image_processor, [make_source(body) for body in bodies], SETTINGS)

    return run


@pytest.fixture(scope="session")
def faithful(measure) -> TokenizerMeasurement:
    return measure(SquareTokenizer(), *BODIES)


@pytest.fixture(scope="session")
def body_specific(measure) -> TokenizerMeasurement:
    return measure(BodySpecificTokenizer(), *BODIES)


@pytest.fixture(scope="session")
def watermark(measure) -> TokenizerMeasurement:
    return measure(WatermarkTokenizer(), *BODIES)


@pytest.fixture(scope="session")
def one_body(measure) -> TokenizerMeasurement:
    return measure(SquareTokenizer(), "panda")


@pytest.fixture(scope="session")
def still_body(image_processor) -> TokenizerMeasurement:
    """A body whose states never change, beside one that moves."""
    still = make_source("sawyer", 3, 6, states=np.ones((6, 3), np.float32))
    return measure_tokenizer(SquareTokenizer(), image_processor, [make_source("panda", 3, 6), still], SETTINGS)


@pytest.fixture
def make_sample() -> Callable[..., PairSample]:
    """A sample of given bodies and episodes, of which some are held out; frames are black."""

    def make(body: list[int], episode: list[int], held_out: list[int]) -> PairSample:
        count = len(body)
        numbers = np.arange(count)
        return PairSample(
            bodies=tuple("abcdef"[: max(body) + 1]),
            frames=np.zeros((count, 4, 4, 3), np.uint8),
            current=numbers,
            future=numbers,
            motion=np.zeros((count, 1)),
            scale=np.ones(1),
            body=np.array(body),
            episode=np.array(episode),
            held_out=np.isin(episode, held_out),
            source=np.array(["data"] * count),
            episode_index=np.array(episode),
            frame_index=numbers,
            future_index=numbers,
        )

    return make
