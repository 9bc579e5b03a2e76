# SPDX-License-Identifier: Apache-2.0
"""A backbone for the policy on machines without a GPU: a convolutional vision model, LLaVA's projector, a small Llama."""

from transformers import LlamaConfig, LlavaConfig

from .processing_cyclemimic import CycleMimicProcessor
from .tiny_vision_cyclemimic import TinyVisionConfig


def make_tiny_backbone_config(
    processor: CycleMimicProcessor,
    image_size: int = 128,
    patch_size: int = 16,
    hidden_size: int = 96,
    num_text_layers: int = 3,
) -> LlavaConfig:
    """
    A LLaVA small enough to train from scratch without a GPU: convolutions, projector, Llama.

    Args:
        processor ([`CycleMimicProcessor`]): Gives the vocabulary and the ids of the image and padding tokens.
        image_size, patch_size (`int`): In pixels; `(image_size / patch_size) ** 2` must be the processor's
            `num_image_tokens`.
        hidden_size (`int`): Width of vision and language model, a multiple of 32.
        num_text_layers (`int`): Layers of the language model.

    Raises:
        ValueError: the patches do not add up to the processor's `num_image_tokens`, or `hidden_size` is no multiple
            of 32.
    """
    if image_size % patch_size or (image_size // patch_size) ** 2 != processor.num_image_tokens:
        raise ValueError(
            f"`image_size` and `patch_size` must give the processor's {processor.num_image_tokens} image tokens, "
            f"got {image_size} and {patch_size}."
        )
    vision_config = TinyVisionConfig(image_size=image_size, patch_size=patch_size, hidden_size=hidden_size)
    text_config = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=hidden_size,
        num_hidden_layers=num_text_layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        # The gate makes three matrices of the feed-forward layer: 8/3 keeps its cost at that of a plain factor 4.
        intermediate_size=8 * hidden_size // 3 // 32 * 32,
        max_position_embeddings=2048,
        pad_token_id=processor.tokenizer.pad_token_id,
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
    )
    return LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_index=processor.image_token_id,
        image_seq_length=processor.num_image_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        # The projector's: image embeddings keep the scale of the vision features.
        initializer_range=hidden_size**-0.5,  # type: ignore[call-arg]  # as any configuration has
    )


__all__ = ["make_tiny_backbone_config"]
