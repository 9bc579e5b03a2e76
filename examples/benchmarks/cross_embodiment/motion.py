# SPDX-License-Identifier: Apache-2.0
"""Random smooth motion of an end effector. NumPy only: both the recorder and the simulator's own environment import it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FPS = 10  # frames, and commands, a second
# x forward, y left, z up, in metres of robosuite's world; the table's top is at 0.8. Every body reaches all of it.
WORKSPACE = np.array([[-0.16, 0.06], [-0.26, 0.26], [0.90, 1.30]])
SPEEDS = (0.11, 0.19)  # m/s, so 5 to 10 cm in half a second
_TURN_RATE, _TURN_MEMORY_S = 0.6, 0.7  # radians a second (standard deviation), and how long a turn lasts
_WANDER_RATE = 0.5  # of speed and depth through their ranges, a second
_MAX_DRAWS = 1000


@dataclass(frozen=True)
class Sector:
    """
    Directions in the image plane, y-z, in degrees: 0 is +y, 90 is +z. The default is all of them.

    Args:
        center (`float`): Middle of the sector.
        half_width (`float`): Directions stay this close to the middle; 180 is no limit.
        depth_share (`float`): The largest share of the speed along x, where the camera sees little; 0 stays in the plane.
    """

    center: float = 0.0
    half_width: float = 180.0
    depth_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.depth_share < 1:
            raise ValueError(f"`depth_share` must be at least 0 and below 1, got {self.depth_share}")
        if not 0 < self.half_width <= 180:
            raise ValueError(f"`half_width` must be above 0 and at most 180 degrees, got {self.half_width}")


def own_sector(index: int, num_bodies: int, half_width: float = 60.0, depth_share: float = 0.0) -> Sector:
    """The directions of body `index` of `num_bodies`: around `360 * index / num_bodies` degrees."""
    if not 0 <= index < num_bodies:
        raise ValueError(f"`index` must be from 0 to {num_bodies - 1}, got {index}")
    return Sector(360.0 * index / num_bodies, half_width, depth_share)


def sample_path(random: np.random.Generator, num_steps: int, sector: Sector) -> np.ndarray:
    """
    A path within [`WORKSPACE`], `(num_steps + 1, 3)`, of [`sample_velocities`].

    The shape is drawn first and then put anywhere it fits, so that nothing has to turn back at a border: the direction
    tells nothing of the position, and a sector is never left. A shape that fits nowhere is drawn again, from the same
    initial direction, or the workspace's longer sides would be preferred.

    Raises:
        ValueError: The path is too long for the workspace.
    """
    lengths = np.ptp(WORKSPACE, axis=1)
    position_in_sector = random.uniform(-1, 1)
    for _ in range(_MAX_DRAWS):
        velocities = sample_velocities(random, num_steps, sector, position_in_sector)
        path = np.concatenate([np.zeros((1, 3)), np.cumsum(velocities / FPS, axis=0)])
        room = lengths - np.ptp(path, axis=0)
        if (room >= 0).all():
            return path - path.min(axis=0) + WORKSPACE[:, 0] + random.uniform(0, 1, 3) * room
    raise ValueError(f"no path of {num_steps / FPS:.1f} s fits the workspace; ask for fewer frames an episode")


def sample_velocities(
    random: np.random.Generator, num_steps: int, sector: Sector, position_in_sector: float
) -> np.ndarray:
    """
    Velocities in m/s, `(num_steps, 3)`, whose direction, depth and speed wander slowly. The motion never stops.

    Args:
        random (`np.random.Generator`): Source of chance.
        num_steps (`int`): Length.
        sector (`Sector`): Directions in the image plane.
        position_in_sector (`float`): Initial direction, from -1 to 1 across the sector.
    """
    turned = np.rad2deg(np.cumsum(_turn_rates(random, num_steps)) / FPS)
    across = position_in_sector + turned / sector.half_width
    # All directions go round and round; a sector is mirrored at its borders.
    across = across if sector.half_width == 180 else _fold(across)
    angle = np.deg2rad(sector.center + sector.half_width * across)
    depth = sector.depth_share * _wander(random, num_steps)
    speed = np.mean(SPEEDS) + np.ptp(SPEEDS) / 2 * _wander(random, num_steps)
    in_plane = np.sqrt(1 - depth**2)
    return speed[:, None] * np.stack([depth, in_plane * np.cos(angle), in_plane * np.sin(angle)], axis=1)


def _turn_rates(random: np.random.Generator, num_steps: int) -> np.ndarray:
    """An Ornstein-Uhlenbeck process, in its stationary state from the start."""
    keep = np.exp(-1 / (FPS * _TURN_MEMORY_S))
    rates = _TURN_RATE * random.normal(size=num_steps)
    for step in range(1, num_steps):
        rates[step] = keep * rates[step - 1] + np.sqrt(1 - keep**2) * rates[step]
    return rates


def _wander(random: np.random.Generator, num_steps: int) -> np.ndarray:
    """A number from -1 to 1 that moves at a constant pace from a random start, and is uniform in the long run."""
    pace = random.choice([-1, 1]) * random.uniform(0, 2) * _WANDER_RATE
    return _fold(random.uniform(-1, 1) + pace * np.arange(num_steps) / FPS)


def _fold(values: np.ndarray) -> np.ndarray:
    """Mirrors at -1 and 1, again and again, what lies outside."""
    return 1 - np.abs((values + 1) % 4 - 2)
