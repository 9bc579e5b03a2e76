# SPDX-License-Identifier: Apache-2.0
"""How a benchmark names what a robot sees, and which way it wants the actions, as files in `examples/serving` say."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..strict_yaml import load_yaml

logger = logging.getLogger(__name__)

# A prompt of megabytes would take all of the memory.
_MAX_INSTRUCTION = 2000
_IMAGES = "uint8 of shape (height, width, 3)"


@dataclass(frozen=True)
class GripperValues:
    """The numbers that stand for an open and for a closed gripper, as the last dimension of an action."""

    open: float
    closed: float


@dataclass(frozen=True)
class Gripper:
    """Maps the gripper of the demonstrations to that of a benchmark; what lies between the values, between those."""

    demonstrations: GripperValues
    benchmark: GripperValues

    def __call__(self, values: np.ndarray) -> np.ndarray:
        source, target = self.demonstrations, self.benchmark
        return target.closed + (values - source.closed) * (target.open - target.closed) / (source.open - source.closed)

    def check_range(self, lowest: float, highest: float, file: str) -> None:
        """
        Refuses values of another gripper than described, which would come out far from the benchmark's, or the wrong way.

        Args:
            lowest, highest (`float`): Of the gripper in the demonstrations.
            file (`str`): Where it is described, for messages.

        Raises:
            ValueError: they go beyond open and closed by more than a tenth.
        """
        ends = sorted(dataclasses.astuple(self.demonstrations))
        slack = 0.1 * (ends[1] - ends[0])
        if lowest < ends[0] - slack or highest > ends[1] + slack:
            raise ValueError(
                f"`gripper` of {file} must have the demonstrations' values, which go from {lowest:g} to {highest:g}, got "
                f"{dataclasses.asdict(self.demonstrations)}."
            )
        if 0 < highest - lowest <= 0.5 * (ends[1] - ends[0]):
            logger.warning(
                "`gripper` of %s: the demonstrations' go from %g to %g, half of the way that is described, or less; is open %g?",
                *(file, lowest, highest, self.demonstrations.open),
            )


@dataclass(frozen=True)
class BenchmarkFormat:
    """
    A benchmark's observations and actions.

    Args:
        images (`list[str]`, *optional*): The benchmark's names of the cameras, in the order of the policy's; a policy with
            fewer takes the first ones. Without, an observation must have one image.
        robot_state (`str`, *optional*): The name of the robot's state, for policies that read it.
        rotate_images (`bool`): Turn images by 180 degrees.
        action_scale (`list[float]`, *optional*): Factors from the demonstrations' actions to the benchmark's.
        gripper ([`Gripper`], *optional*): What open and closed are, whatever the last factor is; without, the same in both.
        ask_for (`dict[str, dict]`): Name of a camera, or of the robot's state → settings that make the benchmark send it.
        settings (`dict`): Further settings of the benchmark; it takes those that its own configuration leaves open.
    """

    images: list[str] | None = None
    robot_state: str | None = None
    rotate_images: bool = False
    action_scale: list[float] | None = None
    gripper: Gripper | None = None
    ask_for: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def read_benchmark_format(path: str | Path) -> BenchmarkFormat:
    """
    A benchmark's file.

    Raises:
        ValueError: it cannot be read, or has a key or a value that [`BenchmarkFormat`] does not.
    """
    try:
        values = load_yaml(Path(path).read_text(encoding="utf-8")) or {}
        gripper = values.pop("gripper", None)
        if gripper is not None:
            gripper = Gripper(**{name: GripperValues(**numbers) for name, numbers in gripper.items()})
        described = BenchmarkFormat(**values, gripper=gripper)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"`benchmark` must be a file such as examples/serving/libero.yaml, got {path}: {error}"
        ) from error
    _check(described, path)
    return described


def _check(described: BenchmarkFormat, path: str | Path) -> None:
    names, scale, gripper = described.images, described.action_scale, described.gripper
    is_named = names is None or (isinstance(names, list) and names and all(isinstance(name, str) for name in names))
    is_scaled = scale is None or (isinstance(scale, list) and all(map(_is_finite, scale)))
    numbers = (
        []
        if gripper is None
        else [*dataclasses.astuple(gripper.demonstrations), *dataclasses.astuple(gripper.benchmark)]
    )
    grips = all(map(_is_finite, numbers)) and (gripper is None or numbers[0] != numbers[1])
    is_asked = isinstance(described.ask_for, dict) and all(
        isinstance(each, dict) for each in described.ask_for.values()
    )
    for name, is_right, allowed in (
        ("images", is_named, "a list of names"),
        ("action_scale", is_scaled, "a list of numbers"),
        ("gripper", grips, "two numbers each, of which those of the demonstrations differ"),
        ("rotate_images", isinstance(described.rotate_images, bool), "true or false"),
        ("robot_state", isinstance(described.robot_state, str | None), "a name"),
        ("ask_for", is_asked, "a map of maps"),
        ("settings", isinstance(described.settings, dict), "a map"),
    ):
        if not is_right:
            raise ValueError(f"`{name}` of {path} must be {allowed}, got {getattr(described, name)!r}.")


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@dataclass(frozen=True)
class Observation:
    """What a policy looks at: a uint8 image `(height, width, 3)` a camera, the instruction, and the robot's state
    `(state_dim,)` where it reads one."""

    images: list[np.ndarray]
    instruction: str
    robot_state: np.ndarray | None = None


class Translator:
    """
    Between a benchmark and a policy.

    Args:
        described ([`BenchmarkFormat`]): The benchmark.
        num_cameras, action_dim (`int`): Of the policy.
        state_dim (`int`, *optional*): Of the policy; `None` where it does not read the robot's state.

    Raises:
        ValueError: the benchmark does not have what the policy reads, or another number of dimensions.
    """

    def __init__(
        self, described: BenchmarkFormat, num_cameras: int, action_dim: int, state_dim: int | None = None
    ) -> None:
        num_images = 1 if described.images is None else len(described.images)
        if num_cameras > num_images:
            raise ValueError(f"`images` must name the policy's {num_cameras} cameras, got {described.images}.")
        if state_dim is not None and described.robot_state is None:
            raise ValueError(f"`robot_state` must be named for a policy that reads one of size {state_dim}, got none.")
        if described.action_scale is not None and len(described.action_scale) != action_dim:
            raise ValueError(
                f"`action_scale` must have the policy's {action_dim} dimensions, got {len(described.action_scale)}."
            )
        self.described, self.state_dim = described, state_dim
        self.cameras = None if described.images is None else described.images[:num_cameras]

    @property
    def settings(self) -> dict[str, Any]:
        """What the benchmark is asked to be set to, so that it sends what the policy reads."""
        names = [*(self.cameras or []), self.described.robot_state if self.state_dim is not None else None]
        asked = [self.described.ask_for.get(name, {}) for name in names if name is not None]
        return {key: value for settings in (self.described.settings, *asked) for key, value in settings.items()}

    def read(self, payload: dict[str, Any]) -> Observation:
        """
        An observation, checked.

        Args:
            payload (`dict`): As the benchmark sends it: `images`, `task_description`, and perhaps the robot's state.

        Raises:
            ValueError: an image is missing or not uint8 RGB, there is no instruction or a very long one, or no finite state of the right size.
        """
        instruction = payload.get("task_description")
        if not isinstance(instruction, str) or not 0 < len(instruction.strip()) <= _MAX_INSTRUCTION:
            raise ValueError(
                f"`task_description` must be an instruction of 1 to {_MAX_INSTRUCTION} characters, got {instruction!r:.80}."
            )
        return Observation(self._read_images(payload.get("images")), instruction, self._read_state(payload))

    def _read_images(self, images: Any) -> list[np.ndarray]:
        if not isinstance(images, dict):
            raise ValueError(f"`images` must be a map of images, got {type(images).__name__}.")
        if self.cameras is None and len(images) != 1:
            raise ValueError(f"`images` must hold one image, got {sorted(map(str, images))[:5]}.")
        chosen = []
        for name in self.cameras or images:
            if name not in images:
                raise ValueError(f"`images` must hold {name!r}, got {sorted(map(str, images))[:5]}.")
            image = images[name]
            if not isinstance(image, np.ndarray):
                raise ValueError(f"`images` must be {_IMAGES}, got {type(image).__name__} as {name!r}.")
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
                raise ValueError(f"`images` must be {_IMAGES}, got {image.dtype} of {image.shape} as {name!r}.")
            chosen.append(np.ascontiguousarray(image[::-1, ::-1]) if self.described.rotate_images else image)
        return chosen

    def _read_state(self, payload: dict[str, Any]) -> np.ndarray | None:
        name = self.described.robot_state
        if self.state_dim is None or name is None:
            return None
        state = payload.get(name)
        allowed = f"`{name}` must be {self.state_dim} finite numbers"
        if not isinstance(state, np.ndarray) or state.dtype.kind not in "iuf":
            raise ValueError(f"{allowed}, got {type(state).__name__}.")
        if state.shape != (self.state_dim,) or not np.isfinite(state).all():
            raise ValueError(
                f"{allowed}, got an array of {state.shape} with {int((~np.isfinite(state)).sum())} others."
            )
        return state

    def write(self, actions: np.ndarray) -> np.ndarray:
        """Actions `(T, action_dim)` of the policy, in the demonstrations' units, as the benchmark takes them."""
        scale, gripper = self.described.action_scale, self.described.gripper
        actions = np.array(actions, dtype=np.float32)
        written = actions if scale is None else actions * np.asarray(scale, dtype=np.float32)
        if gripper is not None:
            written[:, -1] = gripper(actions[:, -1])
        return written
