# SPDX-License-Identifier: Apache-2.0
"""The vision model of the small backbone: convolutions, on machines without a GPU."""

from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import PreTrainedConfig
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .safe_weights_cyclemimic import SafeWeightsModel


@strict
class TinyVisionConfig(PreTrainedConfig):
    r"""
    Configuration of [`TinyVisionModel`].

    Args:
        image_size (`int`, *optional*, defaults to 128): Height and width of an image, in pixels.
        patch_size (`int`, *optional*, defaults to 16): Pixels a feature stands for, a power of two: each convolution
            halves the image.
        hidden_size (`int`, *optional*, defaults to 96): Width of a feature, a multiple of 32.
        num_channels (`int`, *optional*, defaults to 3): Channels of an image.
        initializer_range (`float`, *optional*, defaults to 0.02): Standard deviation of the positions' weights.

    Raises:
        ValueError: a size that does not fit.
    """

    model_type = "cyclemimic_tiny_vision"

    image_size: int = 128
    patch_size: int = 16
    hidden_size: int = 96
    num_channels: int = 3
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        if self.patch_size < 2 or self.patch_size & (self.patch_size - 1) or self.image_size % self.patch_size:
            raise ValueError(
                f"`patch_size` must be a power of two that divides `image_size` ({self.image_size}), "
                f"got {self.patch_size}."
            )
        if self.hidden_size < 32 or self.hidden_size % 32:
            raise ValueError(f"`hidden_size` must be a multiple of 32, got {self.hidden_size}.")
        super().__post_init__(**kwargs)


class TinyVisionModel(SafeWeightsModel):
    """
    Strided convolutions in place of a ViT's patch embedding and layers. From a few thousand frames a ViT trained from
    scratch does not learn where things are; convolutions, which look for the same thing everywhere, do.
    """

    config_class = TinyVisionConfig
    config: TinyVisionConfig
    base_model_prefix = "vision"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    # It has no attention: any implementation will do.
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: TinyVisionConfig) -> None:
        super().__init__(config)
        num_convolutions = config.patch_size.bit_length() - 1
        # A quarter of the width at the first convolutions, where there are the most pixels.
        widths = [max(8, config.hidden_size >> max(0, num_convolutions - 1 - n)) for n in range(num_convolutions)]
        channels = [config.num_channels, *(width // 8 * 8 for width in widths)]
        self.convolutions = nn.Sequential()
        for before, after in zip(channels, channels[1:], strict=False):
            self.convolutions.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            # Over groups of one image's channels: unlike over a batch, training and inference do the same.
            self.convolutions.append(nn.GroupNorm(after // 8, after))
            self.convolutions.append(nn.GELU())
        self.projection = nn.Linear(channels[-1], config.hidden_size)
        num_patches = (config.image_size // config.patch_size) ** 2
        self.position_embeddings = nn.Parameter(torch.zeros(num_patches, config.hidden_size))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, num_channels, image_size, image_size)`).

        Returns:
            `BaseModelOutputWithPooling`: `last_hidden_state` of shape `(batch_size, num_patches, hidden_size)`, rows
            first, which is also the only one of `hidden_states`.
        """
        # In the model's own precision, as transformers' vision models take them; of linear layers, weights may be quantised.
        pixel_values = pixel_values.to(self.position_embeddings.dtype)
        features = self.convolutions(pixel_values).flatten(2).transpose(1, 2)
        features = self.norm(self.projection(features) + self.position_embeddings)
        return BaseModelOutputWithPooling(last_hidden_state=features, hidden_states=(features,))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, nonlinearity="relu")
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, TinyVisionModel):
            init.normal_(module.position_embeddings, std=self.config.initializer_range)


__all__ = ["TinyVisionConfig", "TinyVisionModel"]
