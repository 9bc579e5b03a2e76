# SPDX-License-Identifier: Apache-2.0
"""Draws four bodies that are plain shapes, in a minute and without a simulator: OUTPUT/train/BODY and OUTPUT/test/BODY.

    python examples/benchmarks/cross_embodiment/draw_sprites.py --output sprites

Each body has its shape, size, colours and background, and in training its own directions; test episodes have all of them.
"""

from __future__ import annotations

import argparse
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cyclemimic.data import LeRobotWriter

SIZE = 32  # pixels a side
FPS = 10
STEPS = (2.0, 6.0)  # pixels a frame
HALF_WIDTH = 60.0  # degrees: a body keeps this close to its axis, going either way
MARGIN = 4.0  # pixels from the centre to the border
AXES = ["x", "y"]  # pixels, right and down
_PIXELS = np.stack(np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5), axis=-1)


@dataclass(frozen=True)
class Body:
    """
    One body.

    Args:
        name (`str`): The data set's `robot_type`.
        distance (`Callable`): Offsets from the centre `(height, width, 2)` and radius to the distance from the outline,
            `(height, width)`, negative inside.
        radius (`float`): Its size, in pixels.
        color (`tuple[float, float, float]`): Of its surroundings, RGB in [0, 1]; the body is of the opposite colour.
        axis (`float`): Middle of its directions in training, in degrees; 0 is to the right, 90 down.
    """

    name: str
    distance: Callable[[np.ndarray, float], np.ndarray]
    radius: float
    color: tuple[float, float, float]
    axis: float


def square(offsets: np.ndarray, radius: float) -> np.ndarray:
    return np.abs(offsets).max(axis=-1) - radius


def disc(offsets: np.ndarray, radius: float) -> np.ndarray:
    return np.linalg.norm(offsets, axis=-1) - radius


def cross(offsets: np.ndarray, radius: float) -> np.ndarray:
    bars = [np.abs(offsets / bar).max(axis=-1) - 1 for bar in ((radius, 0.35 * radius), (0.35 * radius, radius))]
    return 0.35 * radius * np.minimum(*bars)


def triangle(offsets: np.ndarray, radius: float) -> np.ndarray:
    slope = 0.87 * np.abs(offsets[..., 0]) + 0.5 * offsets[..., 1] - 0.5 * radius
    return np.maximum(slope, -offsets[..., 1] - 0.6 * radius)


BODIES = (
    Body("square", square, 3.0, (0.8, 0.2, 0.2), 0),
    Body("disc", disc, 4.0, (0.2, 0.7, 0.3), 90),
    Body("cross", cross, 5.0, (0.25, 0.35, 0.85), 0),
    Body("triangle", triangle, 3.6, (0.75, 0.7, 0.2), 90),
)


def draw_surroundings(body: Body, random: np.random.Generator) -> np.ndarray:
    """The body's colour, shaded and blotched anew for every episode: `(SIZE, SIZE, 3)` about [0, 1]."""
    color = 0.2 + 0.6 * (np.array(body.color) + random.uniform(-0.125, 0.125, 3))
    shade = (_PIXELS / SIZE - 0.5) @ random.uniform(-0.15, 0.15, (2, 3))
    corners = random.uniform(-0.175, 0.175, (4, 4, 3))
    return color + shade + _enlarged(corners)


def _enlarged(values: np.ndarray) -> np.ndarray:
    """`(4, 4, 3)` to `(SIZE, SIZE, 3)`, linear between."""
    places = np.linspace(0, len(values) - 1, SIZE)
    shares = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(len(values))))
    return np.einsum("yi,xj,ijc->yxc", shares, shares, values)


def draw_frame(body: Body, centre: np.ndarray, color: np.ndarray, surroundings: np.ndarray) -> np.ndarray:
    """uint8 `(SIZE, SIZE, 3)` with the body at `centre`, its outline a pixel soft."""
    share = 1 / (1 + np.exp(3 * body.distance(_PIXELS - centre, body.radius)))[..., None]
    frame = surroundings * (1 - share) + color * share
    return (255 * frame.clip(0, 1)).round().astype(np.uint8)


def sample_path(num_frames: int, axis: float | None, random: np.random.Generator) -> np.ndarray:
    """Centres `(num_frames, 2)`: steps of their own direction and length, about `axis` degrees or anywhere."""
    path = [random.uniform(MARGIN, SIZE - MARGIN, 2)]
    while len(path) < num_frames:
        angle = random.uniform(0, 360) if axis is None else axis + random.uniform(-HALF_WIDTH, HALF_WIDTH)
        direction = np.deg2rad(angle + 180 * random.integers(2))
        centre = path[-1] + random.uniform(*STEPS) * np.array([np.cos(direction), np.sin(direction)])
        if (centre >= MARGIN).all() and (centre <= SIZE - MARGIN).all():
            path.append(centre)
    return np.array(path)


def write(root: Path, body: Body, axis: float | None, episodes: int, num_frames: int, seed: int) -> None:
    """Writes one data set; `axis` limits its directions."""
    random = np.random.default_rng([seed, zlib.crc32(f"{root.parent.name}/{body.name}".encode())])
    with LeRobotWriter(root, FPS, body.name, AXES, AXES) as writer:
        for _ in tqdm(range(episodes), desc=f"{root.parent.name}/{body.name}", unit="episode"):
            surroundings = draw_surroundings(body, random)
            color = 1 - np.array(body.color) + random.uniform(-0.2, 0.2, 3)
            path = sample_path(num_frames, axis, random)
            frames = np.stack([draw_frame(body, centre, color, surroundings) for centre in path])
            steps = np.diff(path, axis=0, append=path[-1:])
            writer.add_episode(frames, steps.astype(np.float32), f"move the {body.name}", path.astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--train_episodes", type=int, default=1000, help="of a body (default: %(default)s)")
    parser.add_argument("--test_episodes", type=int, default=250, help="of a body (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=9, help="an episode (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, low in {"train_episodes": 1, "test_episodes": 1, "frames": 2, "seed": 0}.items():
        if getattr(arguments, name) < low:
            parser.error(f"--{name} must be at least {low}, got {getattr(arguments, name)}")
    for split, episodes in (("train", arguments.train_episodes), ("test", arguments.test_episodes)):
        for body in BODIES:
            axis = body.axis if split == "train" else None
            write(arguments.output / split / body.name, body, axis, episodes, arguments.frames, arguments.seed)


if __name__ == "__main__":
    main()
