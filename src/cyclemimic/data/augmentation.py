# SPDX-License-Identifier: Apache-2.0
"""Direction of time, framing and colours of a pair of frames, the same for both: only what moved is left to tell."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class PairAugmentation:
    """Shows pairs backwards, crops them and changes their colours, each pair by its own draw.

    A few hundred scenes are few enough to be learnt by heart: the decoder then knows from the scene what happens next,
    and the codes need not say it. Seen from elsewhere and in another light every time, a scene gives nothing away.

    Args:
        reversed_share (`float`, *optional*, defaults to 0): Share of the pairs whose frames are exchanged. Where experts
            always do the same thing, the current frame gives the future away; played backwards as often as forwards,
            it does not.
        min_crop (`float`, *optional*, defaults to 1): Smallest share of the frame's height and width that is shown, in
            (0, 1]; 1 always shows all of it.
        color_jitter (`float`, *optional*, defaults to 0): How far colours change, as the standard deviation of the
            entries of a matrix that mixes the channels and of an offset, in the units of the normalised pixels.

    Raises:
        ValueError: a value out of its range.

    Example:

    ```python
    >>> import torch
    >>> from cyclemimic.data import PairAugmentation

    >>> frames = torch.rand(2, 3, 32, 32)
    >>> current, future = PairAugmentation(min_crop=0.8)(frames, frames, torch.Generator())
    >>> torch.equal(current, future), current.shape
    (True, torch.Size([2, 3, 32, 32]))
    ```
    """

    reversed_share: float = 0.0
    min_crop: float = 1.0
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.reversed_share <= 1:
            raise ValueError(f"`reversed_share` must be in [0, 1], got {self.reversed_share}.")
        if not 0 < self.min_crop <= 1:
            raise ValueError(f"`min_crop` must be in (0, 1], got {self.min_crop}.")
        if not 0 <= self.color_jitter < float("inf"):
            raise ValueError(f"`color_jitter` must be at least 0, got {self.color_jitter}.")

    def __call__(
        self, current: torch.Tensor, future: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            current, future (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): normalised frames.
            generator (`torch.Generator`): What decides.

        Returns:
            The frames, of the same shape.
        """
        # Side by side in one tensor, so that both frames of a pair meet the same numbers.
        pairs = torch.stack((current, future), dim=1)
        if self.reversed_share > 0:
            is_reversed = torch.rand(len(pairs), generator=generator) < self.reversed_share
            pairs[is_reversed] = pairs[is_reversed].flip(1)
        if self.min_crop < 1:
            pairs = self._cropped(pairs, generator)
        if self.color_jitter > 0:
            pairs = self._recolored(pairs, generator)
        return pairs[:, 0], pairs[:, 1]

    def _cropped(self, pairs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batch_size, _, channels, height, width = pairs.shape
        share = 1 - (1 - self.min_crop) * torch.rand(batch_size, generator=generator)[:, None]
        centre = (1 - share) * (2 * torch.rand(batch_size, 2, generator=generator) - 1)
        # A crop has straight sides: places along each side make its grid, in a tenth of what `F.affine_grid` takes.
        across, down = (share * _pixel_centres(size) + centre[:, [axis]] for axis, size in enumerate((width, height)))
        grid = torch.empty(batch_size, height, width, 2)
        grid[..., 0], grid[..., 1] = across[:, None, :], down[:, :, None]
        cropped = F.grid_sample(pairs.flatten(1, 2), grid, padding_mode="border", align_corners=False)
        return cropped.unflatten(1, (2, channels))

    def _recolored(self, pairs: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        batch_size, channels = pairs.shape[0], pairs.shape[2]
        mixing = self.color_jitter * torch.randn(batch_size, channels, channels, generator=generator)
        offset = self.color_jitter * torch.randn(batch_size, channels, generator=generator)
        # One product for both frames of all pairs, the offset within it.
        mixing, offset = (x.repeat_interleave(2, dim=0) for x in (torch.eye(channels) + mixing, offset))
        mixed = torch.baddbmm(offset[:, :, None], mixing, pairs.flatten(3).flatten(0, 1))
        return mixed.view(pairs.shape)


def _pixel_centres(size: int) -> torch.Tensor:
    """Centres of `size` pixels along a side of the frame, which reaches from -1 to 1."""
    return (2 * torch.arange(size) + 1) / size - 1
