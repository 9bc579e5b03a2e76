# SPDX-License-Identifier: Apache-2.0
"""A tiny random member of each family of vision-language models, and an image processor of its kind, for images of 32."""

from __future__ import annotations

from typing import Any

from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ImageProcessorPil,
    Gemma3TextConfig,
    Idefics3Config,
    Idefics3ImageProcessorPil,
    LlamaConfig,
    LlavaConfig,
    PaliGemmaConfig,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2VLImageProcessorPil,
    Qwen3_5Config,
    Qwen3VLConfig,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMImageProcessorPil,
)

TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
VISION = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SIZE = {"height": 32, "width": 32}
# Of attention; shorter than every prompt, so that padding within it would show.
SHORT_WINDOW = 8


def llava(vocabulary: dict[str, int], image: int) -> tuple[PreTrainedConfig, Any, int]:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, patch_size=8, projection_dim=32, **VISION),
        text_config=LlamaConfig(**TEXT, **vocabulary),
        image_token_index=image,
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    return config, CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=SIZE), 16


def paligemma(vocabulary: dict[str, int], image: int, **kwargs: Any) -> tuple[PreTrainedConfig, Any, int]:
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(image_size=32, patch_size=8, projection_dim=32, **VISION).to_dict(),
        text_config={"model_type": "gemma", **TEXT, **vocabulary, **kwargs},
        image_token_index=image,
        projection_dim=32,
    )
    image_processor = SiglipImageProcessorPil(size=SIZE)
    image_processor.image_seq_length = 16
    return config, image_processor, 16


def paligemma2(vocabulary: dict[str, int], image: int) -> tuple[PreTrainedConfig, Any, int]:
    return paligemma(
        vocabulary,
        image,
        model_type="gemma2",
        sliding_window=SHORT_WINDOW,
        query_pre_attn_scalar=16,
        final_logit_softcapping=12.0,
    )


def gemma3(vocabulary: dict[str, int], image: int) -> tuple[PreTrainedConfig, Any, int]:
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(image_size=32, patch_size=4, **VISION).to_dict(),
        text_config=Gemma3TextConfig(
            **TEXT,
            **vocabulary,
            sliding_window=SHORT_WINDOW,
            query_pre_attn_scalar=16,
            layer_types=["sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=16,
        image_token_index=image,
    )
    return config, Gemma3ImageProcessorPil(size=SIZE), 16


def smolvlm(vocabulary: dict[str, int], image: int, kinds: tuple = ()) -> tuple[PreTrainedConfig, Any, int]:
    config_class, processor_class = kinds or (SmolVLMConfig, SmolVLMImageProcessorPil)
    config = config_class(
        vision_config={"image_size": 32, "patch_size": 4, **VISION},
        text_config=LlamaConfig(**TEXT, **vocabulary),
        image_token_id=image,
        scale_factor=2,
        pad_token_id=vocabulary["pad_token_id"],
    )
    size = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    return config, processor_class(do_image_splitting=False, **size), 16


def idefics3(vocabulary: dict[str, int], image: int) -> tuple[PreTrainedConfig, Any, int]:
    return smolvlm(vocabulary, image, (Idefics3Config, Idefics3ImageProcessorPil))


def qwen2_5_vl(vocabulary: dict[str, int], image: int) -> tuple[PreTrainedConfig, Any, int]:
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "patch_size": 4}
    config = Qwen2_5_VLConfig(
        vision_config={**vision, "out_hidden_size": 32, "fullatt_block_indexes": [0], "window_size": 16},
        text_config={
            **TEXT,
            **vocabulary,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        },
        image_token_id=image,
        video_token_id=0,
        vision_start_token_id=0,
        vision_end_token_id=0,
    )
    return config, _qwen_image_processor(), 16


def qwen3_vl(vocabulary: dict[str, int], image: int) -> tuple[PreTrainedConfig, Any, int]:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "patch_size": 4}
    config = Qwen3VLConfig(
        vision_config={
            **vision,
            "out_hidden_size": 32,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        text_config={
            **TEXT,
            **vocabulary,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 3, 3],
                "mrope_interleaved": True,
            },
        },
        image_token_id=image,
        video_token_id=0,
        vision_start_token_id=0,
        vision_end_token_id=0,
    )
    return config, _qwen_image_processor(), 16


def qwen3_5(vocabulary: dict[str, int], image: int) -> tuple[PreTrainedConfig, Any, int]:
    """Its first layer is recurrent."""
    vision = {"depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "patch_size": 4}
    recurrent = {"key_head_dim": 16, "value_head_dim": 16, "num_key_heads": 2, "num_value_heads": 2}
    config = Qwen3_5Config(
        vision_config={**vision, "out_hidden_size": 32, "num_position_embeddings": 16, "spatial_merge_size": 2},
        text_config={
            **TEXT,
            **vocabulary,
            "layer_types": ["linear_attention", "full_attention"],
            **{f"linear_{name}": value for name, value in recurrent.items()},
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
                "partial_rotary_factor": 0.5,
                "mrope_interleaved": True,
            },
        },
        image_token_id=image,
        video_token_id=0,
        vision_start_token_id=0,
        vision_end_token_id=0,
    )
    return config, _qwen_image_processor(), 16


def _qwen_image_processor() -> Qwen2VLImageProcessorPil:
    return Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 8 * 8, "longest_edge": 128 * 128}
    )


FAMILIES = {
    make.__name__: make
    for make in (llava, paligemma, paligemma2, gemma3, smolvlm, idefics3, qwen2_5_vl, qwen3_vl, qwen3_5)
}
