# SPDX-License-Identifier: Apache-2.0
"""A backbone for the policy on machines without a GPU."""

from __future__ import annotations

from transformers import IJepaConfig, LlamaConfig, LlavaConfig

from .processing_cyclemimic import CycleMimicProcessor


def make_tiny_backbone_config(
    processor: CycleMimicProcessor,
    image_size: int = 128,
    patch_size: int = 16,
    hidden_size: int = 128,
    num_vision_layers: int = 4,
    num_text_layers: int = 4,
) -> LlavaConfig:
    """
    A LLaVA small enough to train from scratch without a GPU: ViT, projector, Llama. The ViT is I-JEPA's. Like SigLIP's
    it has patch tokens only; unlike SigLIP's its weights start small, so that the last layer still tells a patch from
    its neighbours and training soon finds out where things are.

    Args:
        processor ([`CycleMimicProcessor`]): Gives the vocabulary and the ids of the image and padding tokens.
        image_size, patch_size (`int`): In pixels; `(image_size / patch_size) ** 2` must be the processor's
            `num_image_tokens`.
        hidden_size (`int`): Width of both transformers, a multiple of 32.
        num_vision_layers, num_text_layers (`int`): Depths.

    Raises:
        ValueError: the patches do not add up to the processor's `num_image_tokens`, or `hidden_size` is no multiple
            of 32.
    """
    if image_size % patch_size or (image_size // patch_size) ** 2 != processor.num_image_tokens:
        raise ValueError(
            f"`image_size` and `patch_size` must give the processor's {processor.num_image_tokens} image tokens, "
            f"got {image_size} and {patch_size}."
        )
    if hidden_size % 32:
        raise ValueError(f"`hidden_size` must be a multiple of 32, got {hidden_size}.")
    sizes = {"hidden_size": hidden_size, "num_attention_heads": hidden_size // 32}
    vision_config = IJepaConfig(
        image_size=image_size,
        patch_size=patch_size,
        num_hidden_layers=num_vision_layers,
        intermediate_size=4 * hidden_size,
        **sizes,
    )
    text_config = LlamaConfig(
        vocab_size=len(processor.tokenizer),
        num_hidden_layers=num_text_layers,
        num_key_value_heads=hidden_size // 32,
        # The gate makes three matrices of the feed-forward layer: 8/3 keeps its cost at that of a plain factor 4.
        intermediate_size=8 * hidden_size // 3 // 32 * 32,
        max_position_embeddings=2048,
        pad_token_id=processor.tokenizer.pad_token_id,
        bos_token_id=processor.tokenizer.bos_token_id,
        eos_token_id=processor.tokenizer.eos_token_id,
        **sizes,
    )
    return LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_token_index=processor.image_token_id,
        image_seq_length=processor.num_image_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        # The projector's: image embeddings keep the scale of the vision features.
        initializer_range=hidden_size**-0.5,
    )


__all__ = ["make_tiny_backbone_config"]
