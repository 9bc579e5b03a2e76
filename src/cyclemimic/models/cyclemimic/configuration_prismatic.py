# SPDX-License-Identifier: Apache-2.0
"""Configuration of Prismatic, the policy's backbone in the paper."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, Dinov2WithRegistersConfig, LlamaConfig, PreTrainedConfig, SiglipVisionConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

_AUTO_MAP = {
    "AutoConfig": "configuration_prismatic.PrismaticConfig",
    "AutoModel": "modeling_prismatic.PrismaticModel",
    "AutoModelForImageTextToText": "modeling_prismatic.PrismaticForConditionalGeneration",
}


@strict
class PrismaticConfig(PreTrainedConfig):
    r"""
    Configuration of [`PrismaticForConditionalGeneration`]. The defaults are those of `prism-dinosiglip-224px+7b`,
    where the paper (§4) and OpenVLA start.

    Args:
        vision_config (`dict` or `PreTrainedConfig`, *optional*, defaults to DINOv2 ViT-L/14 with registers):
            Tower that reads images as ImageNet normalises them. All layers count, also the last one, which is not run:
            the features are those of the second-to-last.
        fused_vision_config (`dict` or `PreTrainedConfig`, *optional*, defaults to SigLIP SO400M/14, no pooling head):
            Tower that reads images in [-1, 1], with as many patches an image. The activation is the exact GELU, as in
            timm, with whose SigLIP Prismatic was trained; transformers' own default is its tanh approximation.
        text_config (`dict` or `PreTrainedConfig`, *optional*, defaults to LLaMA-2 7B, its vocabulary padded to 32064):
            Any config that `AutoModelForCausalLM` knows, of a model whose vocabulary head is linear, without bias.
        image_token_id (`int`, *optional*, defaults to 32001): Id of the image placeholder in `input_ids`; one a patch.
        tie_word_embeddings (`bool`, *optional*, defaults to the text config's): Whether the vocabulary head shares the
            weights of the embeddings.

    Raises:
        ValueError: a config without a known `model_type`, a tower of one layer, towers that differ in image size or
            number of patches.

    Example:

    ```python
    >>> from transformers import AutoModelForImageTextToText, LlamaConfig
    >>> from cyclemimic import PrismaticConfig

    >>> config = PrismaticConfig(text_config=LlamaConfig(num_hidden_layers=2, vocab_size=32064))
    >>> config.num_image_tokens
    256
    >>> model = AutoModelForImageTextToText.from_config(config)  # doctest: +SKIP
    ```"""

    model_type = "prismatic"
    sub_configs = {"vision_config": AutoConfig, "fused_vision_config": AutoConfig, "text_config": AutoConfig}

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    fused_vision_config: dict[str, Any] | PreTrainedConfig | None = None
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    image_token_id: int = 32001
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)
        for name in self.sub_configs:
            value = getattr(self, name)
            if value is None:
                value = _default_config(name)
            elif isinstance(value, dict):
                value = config_from_dict(name, value)
            setattr(self, name, value)
        # As in transformers' own models of this kind, the text config decides where this one does not say it.
        self.tie_word_embeddings = self.tie_word_embeddings or bool(self.text_config.tie_word_embeddings)
        self._check_towers()
        super().__post_init__(**kwargs)

    @property
    def auto_map(self) -> dict[str, str]:
        """The code beside a checkpoint's weights, for the Auto classes where the package is not installed."""
        # A copy: transformers writes into it what holds for classes of one Auto class.
        return dict(_AUTO_MAP)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "auto_map": self.auto_map}

    @property
    def num_image_tokens(self) -> int:
        """Placeholders that an image takes in `input_ids`, one a patch."""
        return (self.vision_config.image_size // self.vision_config.patch_size) ** 2

    def _check_towers(self) -> None:
        towers = (self.vision_config, self.fused_vision_config)
        sizes = [(tower.image_size, tower.image_size // tower.patch_size) for tower in towers]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "`vision_config` and `fused_vision_config` must have one image size and one number of patches, "
                f"got {sizes[0][1]} x {sizes[0][1]} of {sizes[0][0]} pixels and {sizes[1][1]} x {sizes[1][1]} of "
                f"{sizes[1][0]}."
            )
        for name, tower in zip(("vision_config", "fused_vision_config"), towers):
            if tower.num_hidden_layers < 2:
                raise ValueError(
                    f"`{name}` must have at least 2 layers, the features are of the second-to-last, "
                    f"got {tower.num_hidden_layers}."
                )


def _default_config(name: str) -> PreTrainedConfig:
    if name == "vision_config":
        return Dinov2WithRegistersConfig(
            image_size=224, patch_size=14, hidden_size=1024, num_hidden_layers=24, num_attention_heads=16
        )
    if name == "fused_vision_config":
        return SiglipVisionConfig(
            image_size=224,
            patch_size=14,
            hidden_size=1152,
            intermediate_size=4304,
            num_hidden_layers=27,
            num_attention_heads=16,
            hidden_act="gelu",
            vision_use_head=False,
        )
    return LlamaConfig(vocab_size=32064, max_position_embeddings=4096, pad_token_id=32000, rms_norm_eps=1e-5)


def config_from_dict(name: str, values: dict[str, Any]) -> PreTrainedConfig:
    """The config that the argument `name` gives as a dictionary; `ValueError` unless it is of a known model."""
    values = dict(values)
    model_type = values.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(f"`{name}` must have a `model_type` that transformers knows, got {model_type!r}.")
    return CONFIG_MAPPING[model_type](**values)


__all__ = ["PrismaticConfig", "config_from_dict"]
