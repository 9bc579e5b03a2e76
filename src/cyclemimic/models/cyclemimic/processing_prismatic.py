# SPDX-License-Identifier: Apache-2.0
"""Processor of Prismatic: LLaVA's, with SigLIP's image processor; the model itself maps images to DINOv2's scale."""

from __future__ import annotations

from typing import Any

from transformers import LlavaProcessor, PreTrainedConfig, PreTrainedTokenizerBase, SiglipImageProcessorPil

IMAGE_TOKEN = "<image>"
PAD_TOKEN = "<PAD>"


def make_prismatic_processor(
    tokenizer: PreTrainedTokenizerBase, vision_config: PreTrainedConfig | dict[str, Any]
) -> LlavaProcessor:
    """
    The processor of a Prismatic model. Images are squeezed to the towers' size, as Prismatic's `resize-naive` does,
    and every `<image>` of a text becomes a placeholder a patch.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): The language model's; `<PAD>` and `<image>` are added, in place and in
            this order, where it has no padding and no image token.
        vision_config ([`PreTrainedConfig`]): Either tower's.

    Example:

    ```python
    >>> processor = make_prismatic_processor(tokenizer, PrismaticConfig().vision_config)  # doctest: +SKIP
    >>> config = PrismaticConfig(image_token_id=processor.image_token_id)  # doctest: +SKIP
    ```"""
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens([IMAGE_TOKEN], special_tokens=True)
    size = {"height": vision_config.image_size, "width": vision_config.image_size}
    return LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size=size),
        tokenizer=tokenizer,
        patch_size=vision_config.patch_size,
        # All patches are features: none of the towers' tokens is left to take away.
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
    )


__all__ = ["make_prismatic_processor"]
