# SPDX-License-Identifier: Apache-2.0
"""One view of an episode, whatever the data set's format: every reader yields it, everything downstream takes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .numeric_inputs import as_array, as_indices, as_vectors, is_rate

# Six days at 30 frames per second: whatever says more is broken.
_MAX_FRAMES = 1 << 24


class DataError(ValueError):
    """A data set that cannot be used. The message is one line: what is wrong, where, and what to do about it."""

    def __init__(self, message: str) -> None:
        # Texts of other libraries are quoted in it, and some of those span lines.
        super().__init__(" ".join(message.splitlines()))


class EpisodeReader(Protocol):
    """What a data format supplies for one episode. Nothing is read before a method is called.

    Implementations are small and picklable: data loader workers receive them. Where a data set may say something else from
    frame to frame, they also have a method `read_instructions`, which returns one instruction a frame, or `None` where the one
    of the episode holds for all.
    """

    def iter_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the RGB frames (`uint8` arrays of shape `(height, width, 3)`) of the ascending `indices`, in order."""
        ...

    def read_instruction(self) -> str | None:
        """Return the language instruction of all frames, or `None` if the data set has none."""
        ...

    def read_actions(self) -> np.ndarray | None:
        """Return the `float32` actions of shape `(num_frames, action_dim)`, or `None` for video without actions."""
        ...

    def read_states(self) -> np.ndarray | None:
        """Return the `float32` states of shape `(num_frames, state_dim)`, or `None`."""
        ...


@dataclass(frozen=True)
class Episode:
    """An episode: its description is in memory, its columns and frames are read when first asked for.

    Args:
        source (`str`): Name of the data set.
        embodiment (`str`): Robot body (or `"human"`) that moves in it.
        index (`int`): Index of the episode in its data set.
        num_frames (`int`): Number of frames, at least 1.
        fps (`float`): Frames per second.
        camera (`str`): Camera the frames come from.
        reader (`EpisodeReader`): Supplies frames, instruction, actions and states.
        attributes (`Mapping[str, object]`): Further values the data set holds per episode, such as
            `{"success": True}`.
        place (`str`, *optional*): File or folder of its own, within the data set, with the seconds of a clip:
            `"films/a.mp4#t=1.5,4"`. Of files that come and go it says which one an index was.

    Raises:
        DataError: If `num_frames` is no whole number of at least 1, or `fps` no frame rate.

    Example:

    ```python
    >>> import numpy as np
    >>> from cyclemimic.data import Episode

    >>> episode = Episode.from_arrays(np.zeros((5, 8, 8, 3), np.uint8), fps=10.0, instruction="open the drawer")
    >>> episode.read_frames([0, 4]).shape
    (2, 8, 8, 3)
    ```
    """

    source: str
    embodiment: str
    index: int
    num_frames: int
    fps: float
    camera: str
    reader: EpisodeReader = field(repr=False, compare=False)
    attributes: Mapping[str, object] = field(default_factory=dict)
    place: str | None = None

    def __post_init__(self) -> None:
        # Data sets make many thousands: a look at two numbers, and no more.
        num_frames, fps = self.num_frames, self.fps
        if not isinstance(num_frames, int | np.integer) or isinstance(num_frames, bool) or num_frames < 1:
            wrong = f"`num_frames` must be a whole number of at least 1, got {num_frames!r}"
        elif not is_rate(fps):
            wrong = f"`fps` must be positive and finite, got {fps!r}"
        else:
            return
        raise DataError(f"{self.source}: episode {self.index}: {wrong}")

    @cached_property
    def instruction(self) -> str | None:
        """Language instruction, where it changes from frame to frame that of most, or `None`."""
        if self._said is None:
            return self.reader.read_instruction()
        texts = Counter(text for text in self._said if text is not None)
        return texts.most_common(1)[0][0] if texts else None

    @property
    def instructions(self) -> list[str]:
        """All that is said in the episode, sorted."""
        said = [self.instruction] if self._said is None else self._said
        return sorted({text for text in said if text is not None})

    def instruction_at(self, frame_index: int) -> str | None:
        """What is said at the frame `frame_index`, or `None`."""
        return self.instruction if self._said is None else self._said[frame_index]

    @cached_property
    def _said(self) -> Sequence[str | None] | None:
        """What is said at each frame, where that is not the same."""
        read: Callable[[], Sequence[str | None] | None] | None = getattr(self.reader, "read_instructions", None)
        return None if read is None else self._checked("instructions", read())

    @cached_property
    def actions(self) -> np.ndarray | None:
        """Actions in physical units, `float32` of shape `(num_frames, action_dim)`, read-only, or `None`."""
        return _read_only(self._checked("actions", self.reader.read_actions()))

    @cached_property
    def states(self) -> np.ndarray | None:
        """Proprioceptive states, `float32` of shape `(num_frames, state_dim)`, read-only, or `None`."""
        return _read_only(self._checked("states", self.reader.read_states()))

    def iter_frames(self, indices: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """Decode frames one at a time, so that a long episode never has to be in memory whole.

        Args:
            indices (`Sequence[int]`, *optional*): Ascending frame indices; all frames by default.

        Yields:
            `np.ndarray` of shape `(height, width, 3)`: RGB, `uint8`, in the order of `indices`.

        Raises:
            DataError: If the frames cannot be decoded, or the reader yields more or fewer of them.
            ValueError: If an index is out of range or no whole number, or the indices do not ascend.
        """
        if indices is None:
            return self._checked_frames(range(self.num_frames))
        chosen = as_indices(indices).tolist()
        if any(later <= earlier for earlier, later in zip(chosen, chosen[1:])):
            raise ValueError(f"`indices` must ascend without repetition, got {list(chosen)}")
        if len(chosen) and not (0 <= chosen[0] and chosen[-1] < self.num_frames):
            raise ValueError(f"`indices` must be in [0, {self.num_frames}), got {chosen[0]} to {chosen[-1]}")
        return self._checked_frames(chosen)

    def read_frames(self, indices: Sequence[int] | None = None) -> np.ndarray:
        """Decode frames into one array.

        Args:
            indices (`Sequence[int]`, *optional*): Frame indices in any order, repetitions allowed; all by default.

        Returns:
            `np.ndarray` of shape `(len(indices), height, width, 3)`: RGB, `uint8`.

        Raises:
            DataError: If the frames cannot be decoded, or the reader yields more or fewer of them.
            ValueError: If `indices` is empty, or an index is out of range or no whole number.
        """
        if indices is None:
            return stack_frames(self.iter_frames(), self.num_frames)
        if len(indices) == 0:
            raise ValueError("`indices` must name at least one frame, got none")
        unique, inverse = np.unique(as_indices(indices), return_inverse=True)
        frames = stack_frames(self.iter_frames(unique.tolist()), len(unique))
        # Most calls ask in order already: no second copy of the frames for them.
        return frames if len(unique) == len(indices) and (np.diff(inverse) > 0).all() else frames[inverse]

    def _checked_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames; `DataError` where they are not as many, or of several sizes: they could not be one array."""
        shape, num_yielded = None, 0
        for count, frame in enumerate(self.reader.iter_frames(indices)):
            num_yielded = count + 1
            if num_yielded > len(indices):
                break
            if shape not in (None, frame.shape):
                raise DataError(
                    f"{self.source}: frame {indices[count]} of episode {self.index} is {frame.shape[1]} x {frame.shape[0]} "
                    f"pixels, frames before it {shape[1]} x {shape[0]}; scale them to one size or leave the episode out "
                    "with `--skip_broken`"
                )
            shape = frame.shape
            yield frame
        if num_yielded != len(indices):
            got = "more" if num_yielded > len(indices) else num_yielded
            raise DataError(
                f"{self.source}: of episode {self.index} the reader must yield {len(indices)} frames, as many as were "
                f"asked for, got {got}"
            )

    def _checked(self, what: str, values: Any) -> Any:
        if values is not None and len(values) != self.num_frames:
            raise DataError(
                f"{self.source}: episode {self.index} has {self.num_frames} frames but {len(values)} rows of {what}; "
                "repair the data set's metadata or leave the episode out with `--skip_broken`"
            )
        return values

    @classmethod
    def from_arrays(
        cls,
        frames: ArrayLike,
        fps: float,
        instruction: str | None = None,
        actions: ArrayLike | None = None,
        states: ArrayLike | None = None,
        source: str = "memory",
        embodiment: str = "unknown",
        index: int = 0,
        camera: str = "image",
        attributes: Mapping[str, object] | None = None,
    ) -> Episode:
        """Wrap arrays that are in memory already, or lists or torch tensors of what they hold.

        Args:
            frames (`np.ndarray` of shape `(num_frames, height, width, 3)`): RGB, `uint8`. What reads its items from a file,
                such as a `np.memmap`, goes on doing so.
            fps (`float`): Frames per second, above 0.
            instruction (`str`, *optional*): What is done in it.
            actions (`np.ndarray` of shape `(num_frames, action_dim)`, *optional*): An action for each frame.
            states (`np.ndarray` of shape `(num_frames, state_dim)`, *optional*): The robot's state at each frame.
            source, embodiment, index, camera, attributes (*optional*): As in [`Episode`].

        Raises:
            ValueError: If something is not of that type and shape, or `fps` no frame rate.
        """
        if not is_rate(fps):
            raise ValueError(f"`fps` must be positive and finite, got {fps!r}.")
        is_array = isinstance(getattr(frames, "dtype", None), np.dtype)
        array: Any = frames if is_array else as_array("frames", frames)
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or len(array) == 0:
            raise ValueError(
                f"`frames` must be uint8 of shape (num_frames, height, width, 3), got {array.dtype} {array.shape}"
            )
        vectors = [as_vectors(*column, len(array)) for column in (("actions", actions), ("states", states))]
        reader = _ArrayReader(array, instruction, *vectors)
        return cls(source, embodiment, index, len(array), float(fps), camera, reader, dict(attributes or {}))


def _read_only(values: np.ndarray | None) -> np.ndarray | None:
    """A view that cannot be written to; the array itself, which may be a caller's, stays as it is."""
    if values is None:
        return None
    view = values.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class _ArrayReader:
    """Episode reader over arrays in memory."""

    frames: np.ndarray
    instruction: str | None
    actions: np.ndarray | None
    states: np.ndarray | None

    def iter_frames(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        return (self.frames[index] for index in indices)

    def read_instruction(self) -> str | None:
        return self.instruction

    def read_actions(self) -> np.ndarray | None:
        return self.actions

    def read_states(self) -> np.ndarray | None:
        return self.states


def stack_frames(frames: Iterable[np.ndarray], num_frames: int) -> np.ndarray:
    """Gather `num_frames` frames of one size into one array, without having each of them in memory twice.

    Raises:
        DataError: They are more or fewer.
    """
    stacked, num_stacked = None, 0
    for frame in frames:
        if stacked is None:
            stacked = _allocate((num_frames, *frame.shape), frame.dtype)
        if num_stacked < num_frames:
            stacked[num_stacked] = frame
        num_stacked += 1
    if stacked is None or num_stacked != num_frames:
        raise DataError(f"frames must be {num_frames}, as many as were asked for, got {num_stacked}")
    return stacked


def _allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    try:
        return np.empty(shape, dtype=dtype)
    except MemoryError as error:
        raise DataError(
            f"{shape[0]} frames of {shape[2]} x {shape[1]} pixels do not fit in memory; read fewer at once, or correct the "
            "episode's length where the data set says it"
        ) from error


def check_num_frames(num_frames: float, where: str) -> None:
    """Raises `DataError` unless it may be the length of an episode; lists as long as that follow from it."""
    if not num_frames <= _MAX_FRAMES:
        raise DataError(
            f"{where}: an episode of {num_frames:.4g} frames, at most {_MAX_FRAMES} are read; correct its length or frame "
            "rate"
        )
