# SPDX-License-Identifier: Apache-2.0
"""Prismatic: DINOv2 and SigLIP features, fused patch by patch, in front of a language model (the paper's backbone)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, Cache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling
from transformers.utils import ModelOutput, can_return_tuple

from .configuration_prismatic import PrismaticConfig
from .safe_weights_cyclemimic import SafeWeightsModel


@dataclass
class PrismaticModelOutputWithPast(BaseModelOutputWithPast):
    """
    Args:
        image_hidden_states (`torch.FloatTensor` of shape `(batch_size, num_image_tokens, hidden_size)`): With
            `pixel_values`: what stands in the place of the image placeholders.
    """

    image_hidden_states: torch.Tensor | None = None


@dataclass
class PrismaticCausalLMOutputWithPast(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): With `labels`: scalar, the mean cross-entropy of the next token, in nats.
        logits (`torch.FloatTensor` of shape `(batch_size, sequence_length, vocab_size)`).
        past_key_values ([`Cache`]): With `use_cache`: keys and values so far.
        hidden_states, attentions (`tuple(torch.FloatTensor)`): The language model's, where they are asked for.
        image_hidden_states (`torch.FloatTensor` of shape `(batch_size, num_image_tokens, hidden_size)`): With
            `pixel_values`: what stands in the place of the image placeholders.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None


class PrismaticProjectorLayer(nn.Linear):
    """A layer of [`PrismaticProjector`]: transformers asks for the initialisation of modules with weights of their own alone."""


class PrismaticProjector(nn.Module):
    """Three layers from the features of a patch, of both towers, to an embedding of the language model."""

    def __init__(self, config: PrismaticConfig) -> None:
        super().__init__()
        vision_width = config.vision_config.hidden_size + config.fused_vision_config.hidden_size
        text_width = config.text_config.hidden_size
        self.fc1 = PrismaticProjectorLayer(vision_width, 4 * vision_width)
        self.fc2 = PrismaticProjectorLayer(4 * vision_width, text_width)
        self.fc3 = PrismaticProjectorLayer(text_width, text_width)
        self.activation = nn.GELU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.fc3(self.activation(self.fc2(self.activation(self.fc1(features)))))


def _make_tower(config: PreTrainedConfig | dict[str, Any]) -> PreTrainedModel:
    """
    A vision model that ends where the features are read, behind its second-to-last layer: the last layer and the norm
    behind it would be weights that nothing depends on. Its `last_hidden_state` holds the features.
    """
    config = copy.deepcopy(config)
    config.num_hidden_layers -= 1
    tower = AutoModel.from_config(config)
    norms = [name for name, child in tower.named_children() if isinstance(child, nn.LayerNorm)]
    setattr(tower, norms[-1], nn.Identity())
    for module in tower.modules():
        if "mask_token" in dict(module.named_parameters(recurse=False)):
            # Stands for patches hidden in a vision model's own pretraining. As a buffer it is nothing to train or save.
            token = module.mask_token.detach()
            del module.mask_token
            module.register_buffer("mask_token", token, persistent=False)
    return tower


class PrismaticPreTrainedModel(SafeWeightsModel):
    """What transformers has to know of every Prismatic model."""

    config_class = PrismaticConfig
    config: PrismaticConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the projector and the vocabulary head; the towers and the language model initialise themselves."""
        super()._init_weights(module)
        if isinstance(module, PrismaticProjectorLayer):
            # Three layers of the usual 0.02 would leave next to nothing of the features.
            init.xavier_uniform_(module.weight)


class PrismaticModel(PrismaticPreTrainedModel):
    """Prismatic without its vocabulary head, of the sizes that `config` ([`PrismaticConfig`]) gives."""

    def __init__(self, config: PrismaticConfig) -> None:
        super().__init__(config)
        self.vision_tower = _make_tower(config.vision_config)
        self.fused_vision_tower = _make_tower(config.fused_vision_config)
        self.projector = PrismaticProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`): In [-1, 1].
            kwargs: What other models of transformers take here, without effect.

        Returns:
            `BaseModelOutputWithPooling`: `last_hidden_state` of shape `(batch_size, num_image_tokens, vision_width)`,
            DINOv2's channels before SigLIP's, rows of patches first; `pooler_output`, these projected to
            `(batch_size, num_image_tokens, hidden_size)`.
        """
        count = self.config.num_image_tokens
        # Class and register tokens come before the patches.
        features = [
            tower(images).last_hidden_state[:, -count:]
            for tower, images in (
                (self.vision_tower, _imagenet_normalised(pixel_values)),
                (self.fused_vision_tower, pixel_values),
            )
        ]
        fused = torch.cat(features, dim=-1)
        return BaseModelOutputWithPooling(last_hidden_state=fused, pooler_output=self.projector(fused))

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> PrismaticModelOutputWithPast:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): With
                `config.num_image_tokens` placeholders `config.image_token_id` an image.
            pixel_values (`torch.FloatTensor` of shape `(num_images, 3, height, width)`, *optional*): In [-1, 1]; the
                images in the order of their placeholders.
            attention_mask (`torch.Tensor`), position_ids (`torch.LongTensor` of shape
                `(batch_size, sequence_length)`), past_key_values ([`Cache`]), kwargs: The language model's.
            inputs_embeds (`torch.FloatTensor` of shape `(batch_size, sequence_length, hidden_size)`, *optional*): In
                place of `input_ids`. Images then go where the placeholder's own embedding is.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds`, or placeholders that are not as many as the
                images' patches.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Exactly one of `input_ids` and `inputs_embeds` must be given.")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        image_states = None
        if pixel_values is not None:
            image_states = self.get_image_features(pixel_values).pooler_output.to(inputs_embeds.dtype)
            inputs_embeds = self._put_in_place(image_states, input_ids, inputs_embeds)
        outputs = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return PrismaticModelOutputWithPast(
            last_hidden_state=outputs.last_hidden_state,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=image_states,
        )

    def _put_in_place(
        self, image_states: torch.Tensor, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor
    ) -> torch.Tensor:
        if input_ids is None:
            image_token_id = torch.tensor(self.config.image_token_id, device=inputs_embeds.device)
            is_image = (inputs_embeds == self.get_input_embeddings()(image_token_id)).all(dim=-1)
        else:
            is_image = input_ids == self.config.image_token_id
        num_features = image_states.shape[0] * image_states.shape[1]
        message = (
            f"`input_ids` must hold {num_features} image placeholders (id {self.config.image_token_id}), one a patch"
        )
        if is_image.device.type != "cpu":
            # The host would wait for the device in every step.
            torch._assert_async(is_image.sum() == num_features, message)
        # A compiled graph would break here.
        elif not torch.compiler.is_compiling() and int(is_image.sum()) != num_features:
            raise ValueError(f"{message}, got {int(is_image.sum())}.")
        return inputs_embeds.masked_scatter(is_image[..., None], image_states.to(inputs_embeds.device))


class PrismaticForConditionalGeneration(PrismaticPreTrainedModel, GenerationMixin):
    r"""
    Prismatic: an image and a text in, the text's continuation out. Its sizes are in `config` ([`PrismaticConfig`]).

    Example:

    ```python
    >>> from transformers import AutoModelForImageTextToText, AutoProcessor

    >>> processor = AutoProcessor.from_pretrained("prismatic-7b")  # doctest: +SKIP
    >>> model = AutoModelForImageTextToText.from_pretrained("prismatic-7b")  # doctest: +SKIP
    >>> inputs = processor(images=image, text="<image>In: What is on the table?\nOut:", return_tensors="pt")
    >>> processor.decode(model.generate(**inputs, max_new_tokens=20)[0])  # doctest: +SKIP
    ```"""

    # A head that is tied is sharded as the embeddings are, and must say so itself.
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: PrismaticConfig) -> None:
        super().__init__(config)
        self.model = PrismaticModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        embeddings = self.get_input_embeddings()
        # Language models name their embeddings differently.
        name = next(name for name, module in self.named_modules() if module is embeddings)
        self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.lm_head = new_embeddings

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """As [`PrismaticModel.get_image_features`], to which `pixel_values` and `kwargs` go."""
        return self.model.get_image_features(pixel_values, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> PrismaticCausalLMOutputWithPast:
        """
        Args:
            input_ids, pixel_values, attention_mask, position_ids, past_key_values, inputs_embeds, kwargs: As in
                [`PrismaticModel`].
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): Token ids, -100 where
                nothing is to be learned. Not shifted.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0): Logits of so many last positions, or
                of these positions; 0 for all.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.lm_head.out_features, **kwargs)
        return PrismaticCausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=outputs.image_hidden_states,
        )


def _imagenet_normalised(pixel_values: torch.Tensor) -> torch.Tensor:
    """
    From [-1, 1], as SigLIP takes images, to ImageNet's mean and spread, as DINOv2 does. In the network, so that one
    image processor of transformers serves both towers and half as many values travel to the device.
    """
    channels = zip(pixel_values.unbind(dim=1), IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, strict=True)
    # Numbers rather than buffers: no precision is lost where a model is cast, and there is nothing to initialise.
    return torch.stack([channel * (0.5 / std) + (0.5 - mean) / std for channel, mean, std in channels], dim=1)


# With this, `save_pretrained` puts this module and its siblings beside the weights.
PrismaticModel.register_for_auto_class("AutoModel")
PrismaticForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["PrismaticForConditionalGeneration", "PrismaticModel", "PrismaticPreTrainedModel"]
