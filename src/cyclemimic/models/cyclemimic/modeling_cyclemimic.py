# SPDX-License-Identifier: Apache-2.0
"""Policy: a vision-language backbone that predicts latent actions, and an action decoder (paper §4)."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, AutoModelForImageTextToText, Cache, DynamicCache, PreTrainedModel, StaticCache
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import ModelOutput, can_return_tuple, logging

from .action_bins_cyclemimic import bin_centres, to_bins
from .action_decoder_cyclemimic import CycleMimicActionDecoder
from .backbone_inputs_cyclemimic import finish_logits, merge_cameras, next_position, position_ids, token_types_of
from .checks_cyclemimic import (
    check_actions,
    check_backbone,
    check_labels,
    check_latent_tokens,
    check_names,
    check_pixel_values,
    check_robot_state,
)
from .configuration_cyclemimic import CycleMimicConfig
from .execution_cyclemimic import ActionChunkQueue
from .image_batches_cyclemimic import IMAGE_INPUTS
from .loss_cyclemimic import masked_mean_absolute_error, mean_of_unmasked
from .modeling_prismatic import PrismaticForConditionalGeneration, PrismaticModel
from .new_rows_cyclemimic import start_rows, widen_vocabulary
from .padding_cyclemimic import padding_first
from .processing_cyclemimic import CycleMimicProcessor
from .prompts_cyclemimic import IGNORED_LABEL
from .read_states_cyclemimic import gather_marked, last_attended
from .safe_weights_cyclemimic import SafeWeightsModel, load_safetensors
from .tiny_vision_cyclemimic import TinyVisionModel

logger = logging.get_logger(__name__)

# For the configs that the config's module has registered, or its first copy.
for auto_class, model_class in (
    (AutoModel, PrismaticModel),
    (AutoModelForImageTextToText, PrismaticForConditionalGeneration),
    (AutoModel, TinyVisionModel),
):
    auto_class.register(CONFIG_MAPPING[model_class.config_class.model_type], model_class, exist_ok=True)


@dataclass
class CycleMimicLatentActionOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): With `labels`: scalar, `L_π`, the mean cross-entropy a latent action token, in nats.
        logits (`torch.FloatTensor` of shape `(batch_size, num_latent_tokens, vocab_size)`): Over the whole vocabulary,
            at the positions that predict the latent action tokens, in order. Without `labels`, of shape
            `(batch_size, 1, vocab_size)`: for the token that would come next.
        latent_token_accuracy (`torch.FloatTensor` of shape `(num_latent_tokens,)`): With `labels`: share of samples in
            which the best of the K words is the label's, a position each, the words before it being the labels'.
        latent_action_accuracy (`torch.FloatTensor`): With `labels`: scalar, share of samples right at all positions.
        hidden_states (`tuple(torch.FloatTensor)`): With `output_hidden_states=True`: the backbone's, a layer each, padding first.
        attentions (`tuple(torch.FloatTensor)`): With `output_attentions=True` and `attn_implementation="eager"`: the
            backbone's, a layer each, of shape `(batch_size, num_heads, sequence_length, sequence_length)`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    latent_token_accuracy: torch.Tensor | None = None
    latent_action_accuracy: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class CycleMimicActionOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): With `labels` or `actions`: scalar, the weighted sum of the terms there are.
        latent_action_loss (`torch.FloatTensor`): With `labels`: scalar, `L_π`, in nats a token.
        action_loss (`torch.FloatTensor`): With `actions`: scalar, mean absolute error of the unmasked, normalised
            actions; where they are discrete, cross-entropy of their words in nats a word.
        actions (`torch.FloatTensor` of shape `(batch_size, chunk_size, action_dim)`): Normalised. Discrete ones come only
            with `actions`, each predicted from the true ones before it.
        logits, latent_token_accuracy, latent_action_accuracy: With `labels`, as in [`CycleMimicLatentActionOutput`].
        hidden_states, attentions: As there, over the sequence with the tokens that the model has appended.
    """

    loss: torch.Tensor | None = None
    latent_action_loss: torch.Tensor | None = None
    action_loss: torch.Tensor | None = None
    actions: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    latent_token_accuracy: torch.Tensor | None = None
    latent_action_accuracy: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class _DecodingState:
    """
    A prompt that has been read, and where to go on.

    Args:
        input_ids (`torch.LongTensor` of shape `(batch_size, prompt_length)`): The prompt, padding first.
        hidden_states (`torch.FloatTensor` of shape `(batch_size, prompt_length, hidden_size)`): Of the prompt.
        cache ([`Cache`]): Keys and values so far.
        attention_mask (`torch.LongTensor` of shape `(batch_size, length)`): Over the cache.
        next_position (`torch.LongTensor` of shape `(batch_size, 1)`): Of the next token, padding not counted.
        read_states (`list[torch.FloatTensor]`): Of what has been read since, `(batch_size, n, hidden_size)` each.
    """

    input_ids: torch.Tensor
    hidden_states: torch.Tensor
    cache: Cache
    attention_mask: torch.Tensor
    next_position: torch.Tensor
    read_states: list[torch.Tensor] = field(default_factory=list)


class CycleMimicPreTrainedModel(SafeWeightsModel):
    """The backbone, its token ids, and what both stages share: reading a prompt and decoding latent actions."""

    config_class = CycleMimicConfig
    config: CycleMimicConfig
    backbone: PreTrainedModel
    latent_token_ids: torch.Tensor
    act_token_ids: torch.Tensor
    new_token_ids: torch.Tensor
    action_bin_token_ids: torch.Tensor  # where actions are read as words
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    # The backbone's own; a dict, so that PEFT looks for them there.
    _tied_weights_keys: dict[str, str] = {}
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Every sample has N latent targets, so their means over micro-batches add up: Trainer need not pass the number. Of the
    # action loss, which counts the steps within an episode, gradient accumulation takes the mean of micro-batches.
    accepts_loss_kwargs = False

    def __init__(self, config: CycleMimicConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.latent_token_ids is None or config.act_token_ids is None:
            raise ValueError(
                "`config` must hold the tokenizer's `latent_token_ids` and `act_token_ids` "
                "(CycleMimicProcessor.make_config fills them in), got "
                f"{config.latent_token_ids} and {config.act_token_ids}."
            )
        if backbone is None:
            backbone = AutoModelForImageTextToText.from_config(config.backbone_config)
        if backbone.base_model is backbone:
            raise ValueError(
                "`config.backbone_config` must be of a model whose body and vocabulary head are apart, "
                f"got {type(backbone).__name__}."
            )
        self.backbone = backbone
        self._has_seen_labels = False
        self.token_types = token_types_of(backbone)
        # Not saved: the config holds them.
        self.register_buffer("latent_token_ids", torch.tensor(config.latent_token_ids), persistent=False)
        self.register_buffer("act_token_ids", torch.tensor(config.act_token_ids), persistent=False)
        self.register_buffer("new_token_ids", torch.tensor(config.new_token_ids), persistent=False)
        self.register_load_state_dict_post_hook(_fill_token_ids_of)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As [`SafeWeightsModel`]'s."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._fill_token_ids()
        # transformers keeps so what it loads alone, not what the checkpoint lacks.
        kept = (cls._keep_in_fp32_modules or ()) if model.dtype == torch.float16 else ()
        for part in filter(None, (getattr(model, name) for name in kept)):
            part.float()
        return loaded

    @torch.no_grad()
    def _fill_token_ids(self) -> None:
        # Wherever a model gets its weights: `_init_weights` is not called for one whose weights are to come from the first
        # process of FSDP, nor for one that was made on the meta device and takes the state of another.
        for name in ("latent_token_ids", "act_token_ids", "new_token_ids", "action_bin_token_ids"):
            if hasattr(self, name):
                getattr(self, name).copy_(torch.tensor(getattr(self.config, name)))

    @classmethod
    def from_backbone(
        cls,
        backbone: str | os.PathLike | PreTrainedModel,
        processor: CycleMimicProcessor,
        pad_to_multiple_of: int | None = None,
        new_token_ids: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> Self:
        """
        Make a policy of a pretrained backbone. Embedding and output rows of the tokens that it does not know, and of
        padding, start as the mean of the other rows, plus a tenth of their spread as noise: no logit stands out, and no two words
        are alike.

        Args:
            backbone (`str` or `PreTrainedModel`): A name for `AutoModelForImageTextToText`, or the model (kept, and
                changed in place).
            processor ([`CycleMimicProcessor`]): With the backbone's tokenizer.
            pad_to_multiple_of (`int`, *optional*): The vocabulary is padded to a multiple of this, such as 64, by which
                GPUs multiply faster.
            new_token_ids (`Sequence[int]`, *optional*): The tokens that it does not know, by default all that the processor
                has added.
            kwargs: Further arguments of [`CycleMimicConfig`].

        Raises:
            ValueError: weights that are no safetensors; a backbone that sees no images, or a processor of another kind; an image
                token that is not the processor's; a multiple below one.
        """
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ValueError(f"`pad_to_multiple_of` must be at least 1, got {pad_to_multiple_of}.")
        if not isinstance(processor, CycleMimicProcessor):
            raise ValueError(f"`processor` must be a CycleMimicProcessor, got {type(processor).__name__}.")
        if isinstance(backbone, str | os.PathLike):
            backbone = load_safetensors(AutoModelForImageTextToText.from_pretrained, backbone)
        check_backbone(backbone, processor.image_token, processor.image_token_id)
        padding_ids = widen_vocabulary(backbone, len(processor.tokenizer), pad_to_multiple_of or 1)
        config = processor.make_config(backbone.config, **kwargs)
        unknown_ids = config.new_token_ids if new_token_ids is None else new_token_ids
        start_rows(backbone, [*unknown_ids, *padding_ids])
        model = cls(config, backbone=backbone)
        for name, part in model.named_children():
            if name == "backbone":  # which may be quantised, and then must not be cast
                continue
            stays = backbone.dtype == torch.float16 and name in (cls._keep_in_fp32_modules or ())
            part.to(dtype=torch.float32 if stays else backbone.dtype)
        return model.to(backbone.device)  # type: ignore[arg-type]  # transformers wraps `to`, and loses its type

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.backbone.set_output_embeddings(new_embeddings)

    def vision_towers(self) -> list[nn.Module]:
        """The backbone's vision models, by the names that transformers gives them; projections of their features are not."""
        children = self.backbone.base_model.named_children()
        is_tower = re.compile(r"(?!embed_).*vision|visual$|image_tower$").match
        return [part for name, part in children if is_tower(name)]

    @torch.no_grad()
    def predict_latent_actions(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """
        Decode the latent action greedily, among the K latent action tokens only. The prompt is read once, then one
        token a step through a cache that has room for all of them from the start. Use it in `eval` mode.

        Args:
            input_ids, pixel_values, attention_mask: The inference prompt of [`CycleMimicProcessor`].
            kwargs: Passed to the backbone with the prompt.

        Returns:
            `torch.LongTensor` of shape `(batch_size, num_latent_tokens)`: codes in `[0, codebook_size)`.

        Raises:
            ValueError: `labels` or `actions` came too: such a batch holds the answer.
        """
        return self._decode_latent_actions(input_ids, pixel_values, attention_mask, **kwargs)[0]

    def _decode_latent_actions(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, _DecodingState]:
        """Codes, and the state after all but the last of them have been read."""
        if answers := sorted({"labels", "actions", "actions_mask"}.intersection(kwargs)):
            raise ValueError(
                f"Prediction takes the processor's batch without latent actions or actions, got {answers}."
            )
        # transformers' own property has one name in 5.17 and another in 5.23.
        if self.training and any(getattr(module, "gradient_checkpointing", False) for module in self.modules()):
            raise ValueError("Prediction with `gradient_checkpointing` must be in eval mode, got training mode.")
        attention_mask, input_ids, _ = self._aligned(attention_mask, input_ids, None)
        length = input_ids.shape[1] + self.config.num_latent_tokens + self._num_appended_tokens
        cache = self._make_cache(length)
        outputs, positions = self._read(
            input_ids, pixel_values, attention_mask, keep_cache=True, past_key_values=cache, **kwargs
        )
        hidden_states = outputs.last_hidden_state
        state = _DecodingState(input_ids, hidden_states, cache, attention_mask, next_position(positions))
        last_state = last_attended(hidden_states, attention_mask)
        codes = [self._best_of(self.latent_token_ids, last_state)]
        for _ in range(self.config.num_latent_tokens - 1):
            last_state = self._extend(state, self.latent_token_ids[codes[-1]])
            codes.append(self._best_of(self.latent_token_ids, last_state))
        return torch.cat(codes, dim=1), state

    def _make_cache(self, length: int) -> Cache:
        """A cache with room for `length` tokens from the start, where the attention masks by it rightly."""
        # With flex attention, transformers' static cache moves on before the mask of the step is made; and it has one
        # dtype, where autocast makes values of another than rotated keys.
        is_flex = self.backbone.config.get_text_config()._attn_implementation == "flex_attention"
        if is_flex or torch.is_autocast_enabled(self.device.type):
            return DynamicCache(config=self.backbone.config)
        return StaticCache(self.backbone.config, max_cache_len=length)

    def _read(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor,
        keep_cache: bool,
        image_grid_thw: torch.Tensor | None = None,
        robot_state: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[BaseModelOutputWithPast, torch.Tensor]:
        """
        The backbone's body over a whole sequence, without the vocabulary head: training and prediction share it. Returns
        its output and the positions of the tokens. A `robot_state` in the batch is the action decoder's, not its own.
        """
        check_names(kwargs)
        check_pixel_values(pixel_values, self.config)
        # Callers have no say: without a prediction to go on with, there is no cache, and its output is read by name.
        for name in ("use_cache", "return_dict"):
            kwargs.pop(name, None)
        if self.config.num_cameras > 1:
            given = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw, **kwargs}
            merged = merge_cameras({name: given[name] for name in IMAGE_INPUTS if given.get(name) is not None})
            pixel_values, image_grid_thw = merged.pop("pixel_values"), merged.pop("image_grid_thw", None)
            kwargs |= merged
        is_image = input_ids == self.config.image_token_id
        positions = position_ids(self.backbone, input_ids, attention_mask, is_image, image_grid_thw)
        if self.token_types is not None:
            argument, kind = self.token_types
            is_answer = torch.isin(input_ids, self.new_token_ids)
            kwargs[argument] = (is_image if kind == "image" else is_answer).long()
        if image_grid_thw is not None:
            # The processor's patches come image by image; these backbones take those of a batch in one row.
            pixel_values = pixel_values.flatten(0, -2)
            kwargs["image_grid_thw"] = image_grid_thw
        outputs = self.backbone.base_model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=positions,
            use_cache=keep_cache,
            **kwargs,
        )
        outputs.last_hidden_state = outputs.last_hidden_state.to(input_ids.device)
        return outputs, positions

    @staticmethod
    def _aligned(
        attention_mask: torch.Tensor | None, input_ids: torch.Tensor, labels: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Mask, token ids and labels as the backbone reads them: padding first."""
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        attention_mask, input_ids, *aligned = padding_first(
            attention_mask, input_ids, *([] if labels is None else [labels])
        )
        return attention_mask, input_ids, aligned[0] if aligned else None

    def _vocabulary_logits(self, states: torch.Tensor) -> torch.Tensor:
        # Of a model over several GPUs, the head may be on another than what asks for it.
        return finish_logits(self.backbone.config, self.get_output_embeddings()(states).to(states.device))

    def _logits_of(self, token_ids: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """The logits of some tokens alone, `(batch_size, length, num_tokens)`."""
        head = self.get_output_embeddings()
        # An offloaded head has its weights while it is called, and noise before.
        if type(head) is not nn.Linear or hasattr(head, "_hf_hook"):
            return self._vocabulary_logits(states)[..., token_ids]
        # Their rows of the vocabulary are read instead of all.
        rows = F.linear(states, head.weight[token_ids], None if head.bias is None else head.bias[token_ids])
        return finish_logits(self.backbone.config, rows)

    def _best_of(self, token_ids: torch.Tensor, last_state: torch.Tensor) -> torch.Tensor:
        """Which of the tokens comes next, `(batch_size, 1)`, after a state `(batch_size, 1, hidden_size)`."""
        return self._logits_of(token_ids, last_state).argmax(dim=-1)

    @property
    def _num_appended_tokens(self) -> int:
        """Tokens that are read after the latent action."""
        return 0

    def _extend(self, state: _DecodingState, token_ids: torch.Tensor) -> torch.Tensor:
        """Read `token_ids` `(batch_size, n)` through the cache; returns their own last-layer states, and moves on."""
        num_tokens = token_ids.shape[1]
        state.attention_mask = F.pad(state.attention_mask, (0, num_tokens), value=1)
        positions = state.next_position + torch.arange(num_tokens, device=token_ids.device)
        state.next_position = state.next_position + num_tokens
        outputs = self.backbone.base_model(
            input_ids=token_ids,
            attention_mask=state.attention_mask,
            position_ids=positions,
            past_key_values=state.cache,
            use_cache=True,
        )
        state.read_states.append(outputs.last_hidden_state.to(token_ids.device))
        return state.read_states[-1]

    def _latent_action_loss(
        self, hidden_states: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """`L_π`, and its logits and accuracies. Only the N states that predict a latent token meet the vocabulary."""
        self._check_labels(labels)
        targets = labels[:, 1:]
        states, positions = gather_marked(
            hidden_states[:, :-1], targets != IGNORED_LABEL, self.config.num_latent_tokens
        )
        logits = self._vocabulary_logits(states)
        targets = targets.gather(1, positions)
        total = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
        )
        # Nothing of a batch without labels, whose mean would be NaN.
        loss = total / (targets != IGNORED_LABEL).sum().clamp_min(1)
        is_right = self.latent_token_ids[logits[..., self.latent_token_ids].argmax(dim=-1)] == targets
        # Samples without labels count in the loss no more than here.
        num_labelled = (targets != IGNORED_LABEL).sum(dim=0).clamp_min(1)
        scores = {
            "logits": logits,
            "latent_token_accuracy": is_right.sum(dim=0) / num_labelled,
            "latent_action_accuracy": is_right.all(dim=1).sum() / num_labelled.max(),
        }
        return loss, scores

    def _check_labels(self, labels: torch.Tensor) -> None:
        """Looks at the first batch alone: to look is to wait for the device."""
        if self._has_seen_labels or torch.compiler.is_compiling():
            return
        check_labels(labels, self.config)
        self._has_seen_labels = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the parts that are not the backbone's, which initialises itself."""
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, CycleMimicPreTrainedModel):
            module._fill_token_ids()
        elif isinstance(module, CycleMimicActionDecoder):
            module.init_own_parameters()


class CycleMimicForLatentActionPrediction(CycleMimicPreTrainedModel):
    """
    The policy in pretraining: it predicts the latent action from image and instruction (paper §4, `L_π`). Its backbone is the
    one that `config` describes, or `backbone`, which exists already.

    Example:

    ```python
    >>> inputs = processor(images, ["open the drawer"], latent_actions=codes)
    >>> model(**inputs).loss.backward()
    >>> model.eval().predict_latent_actions(**processor(images, ["open the drawer"]))
    tensor([[ 3,  0, 15,  7]])
    ```"""

    def __init__(self, config: CycleMimicConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config, backbone)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CycleMimicLatentActionOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`): Image placeholders, prompt, and in
                training the latent action tokens.
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`): As the backbone takes them; of
                several cameras, `(batch_size, num_cameras, …)`.
            attention_mask (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): 0 at padding, on
                either side; it is moved to the left, where `hidden_states` and `attentions` have it.
            labels (`torch.LongTensor` of shape `(batch_size, sequence_length)`, *optional*): Token ids at the
                `num_latent_tokens` positions of the latent action, -100 elsewhere. Not shifted.
            kwargs: Passed to the backbone, but for `use_cache`, which changes nothing.

        Raises:
            ValueError: `position_ids`, which follow from `attention_mask`.
        """
        attention_mask, input_ids, labels = self._aligned(attention_mask, input_ids, labels)
        outputs, _ = self._read(input_ids, pixel_values, attention_mask, keep_cache=False, **kwargs)
        hidden_states = outputs.last_hidden_state
        if labels is None:
            loss, scores = None, {"logits": self._vocabulary_logits(last_attended(hidden_states, attention_mask))}
        else:
            latent_action_loss, scores = self._latent_action_loss(hidden_states, labels)
            loss = self.config.latent_action_loss_weight * latent_action_loss
        return CycleMimicLatentActionOutput(
            loss=loss, **scores, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class CycleMimicForActionPrediction(CycleMimicPreTrainedModel):
    """
    The policy in fine-tuning and deployment: it predicts the latent action, then the robot's action chunk from ACT
    query tokens that follow it (paper §4). `from_pretrained` of a [`CycleMimicForLatentActionPrediction`] checkpoint
    loads everything but the action decoder.

    The model appends the ACT tokens itself, in training as in prediction, so both read the very same states. With another
    `action_decoding` it appends none, or the words of the actions. `config` and `backbone` are as there.

    Example:

    ```python
    >>> inputs = processor(images, ["open the drawer"], latent_actions=codes, actions=actions)
    >>> model(**inputs).loss.backward()
    >>> chunk = model.eval().predict_action_chunk(**processor(images, ["open the drawer"]))
    >>> processor.post_process_actions(chunk).shape
    (1, 12, 7)
    ```"""

    # It has few weights, whose errors are the robot's: neither in float16 nor quantised, also to be trained so.
    _keep_in_fp32_modules = ["action_decoder"]

    def __init__(self, config: CycleMimicConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config, backbone)
        is_discrete = config.action_decoding == "discrete"
        reads_image = config.action_decoder_context == "image-act" and not is_discrete
        if reads_image and (config.num_image_tokens is None or config.image_token_id is None):
            raise ValueError(
                "`config` must hold `num_image_tokens` and `image_token_id`, whose states the action decoder reads, "
                f"got {config.num_image_tokens} and {config.image_token_id}."
            )
        self.action_decoder = None if is_discrete else CycleMimicActionDecoder(config)
        if is_discrete:
            self.register_buffer("action_bin_token_ids", torch.tensor(config.action_bin_token_ids), persistent=False)
        self.reset()
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        actions: torch.Tensor | None = None,
        actions_mask: torch.Tensor | None = None,
        robot_state: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> CycleMimicActionOutput:
        """
        Args:
            input_ids, pixel_values, attention_mask, labels, kwargs: As in [`CycleMimicForLatentActionPrediction`];
                `input_ids` hold the latent action tokens.
            actions (`torch.FloatTensor` of shape `(batch_size, chunk_size, action_dim)`, *optional*): Normalised.
            actions_mask (`torch.BoolTensor` of shape `(batch_size, chunk_size)`, *optional*): False where an action
                is not to be learned.
            robot_state (`torch.FloatTensor` of shape `(batch_size, state_dim)`, *optional*): Normalised; where the
                configuration has a `state_dim`, and only there.

        Raises:
            ValueError: a robot state that the configuration does not have, or none or one of another size where it does; actions
                of another shape; without `labels`, no latent action in `input_ids`.
        """
        check_robot_state(robot_state, len(input_ids), self.config)
        check_actions(actions, actions_mask, len(input_ids), self.config)
        attention_mask, input_ids, labels = self._aligned(attention_mask, input_ids, labels)
        if labels is None and not torch.compiler.is_compiling():
            check_latent_tokens(input_ids, self.latent_token_ids, self.config)
        appended = self._appended_token_ids(actions, len(input_ids))
        full_mask = F.pad(attention_mask, (0, appended.shape[1]), value=1)
        outputs, _ = self._read(
            torch.cat([input_ids, appended], dim=1), pixel_values, full_mask, keep_cache=False, **kwargs
        )
        prompt_states, appended_states = outputs.last_hidden_state.tensor_split([input_ids.shape[1]], dim=1)
        if self.action_decoder is None:
            last_state = last_attended(prompt_states, attention_mask)
            predicted, action_loss = self._score_bins(
                torch.cat([last_state, appended_states], 1), actions, actions_mask
            )
        else:
            if self.config.action_decoding == "latent":
                is_latent = torch.isin(input_ids, self.latent_token_ids)
                appended_states, _ = gather_marked(prompt_states, is_latent, self.config.num_latent_tokens)
            predicted = self._decode_actions(input_ids, prompt_states, appended_states, robot_state)
            action_loss = None
            if actions is not None:
                action_loss = masked_mean_absolute_error(predicted, actions, actions_mask, is_global=self.training)
        latent_action_loss = loss = None
        scores: dict[str, torch.Tensor] = {}
        if labels is not None:
            latent_action_loss, scores = self._latent_action_loss(prompt_states, labels)
            loss = self.config.latent_action_loss_weight * latent_action_loss
        if action_loss is not None:
            weighted = self.config.action_loss_weight * action_loss
            loss = weighted if loss is None else loss + weighted
        return CycleMimicActionOutput(
            loss=loss,
            latent_action_loss=latent_action_loss,
            action_loss=action_loss,
            actions=predicted,
            **scores,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    @torch.no_grad()
    def predict_action_chunk(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        robot_state: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """
        Decode the latent action greedily, then the action chunk. The backbone runs once on the prompt and
        `num_latent_tokens` times on a token or two through the cache; discrete actions take a step each. Use it in `eval`
        mode.

        After one call as it is, `torch.compile` makes one graph of it, without a break, for most backbones (Qwen-VL reads
        the shapes of its images in Python). `pad_to_multiple_of` of the processor keeps prompts to a few shapes, each of
        which is compiled once.

        Args:
            input_ids, pixel_values, attention_mask, robot_state: The inference prompt of [`CycleMimicProcessor`].
            kwargs: Passed to the backbone with the prompt.

        Returns:
            `torch.FloatTensor` of shape `(batch_size, chunk_size, action_dim)`: normalised actions, for
            [`CycleMimicProcessor.post_process_actions`].

        Raises:
            ValueError: `labels` or `actions` came too: such a batch holds the answer; or a `robot_state` as in `forward`.
        """
        check_robot_state(robot_state, len(input_ids), self.config)
        codes, state = self._decode_latent_actions(input_ids, pixel_values, attention_mask, **kwargs)
        last_token = self.latent_token_ids[codes[:, -1:]]
        if self.action_decoder is None:
            return self._decode_bins(state, last_token)
        states = self._extend(state, torch.cat([last_token, self._appended_token_ids(None, len(codes))], dim=1))
        states = states[:, 1:] if self.config.action_decoding == "act" else torch.cat(state.read_states, dim=1)
        return self._decode_actions(state.input_ids, state.hidden_states, states, robot_state)

    def reset(self) -> None:
        """Forget the chunks that [`~CycleMimicForActionPrediction.select_action`] has under way: an episode begins."""
        config = self.config
        self._queue = ActionChunkQueue(config.num_executed_steps, config.temporal_ensemble_coeff)

    @torch.no_grad()
    def select_action(
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """
        The next action of a batch of robots that step together. The inputs are looked at only where a new chunk is due:
        after `config.num_executed_steps` actions, or before every one with `config.temporal_ensemble_coeff`.

        Args:
            input_ids, pixel_values, attention_mask, kwargs: As in
                [`~CycleMimicForActionPrediction.predict_action_chunk`].

        Returns:
            `torch.FloatTensor` of shape `(batch_size, action_dim)`: a normalised action a robot.

        Raises:
            ValueError: as there, or another batch size before [`~CycleMimicForActionPrediction.reset`].
        """
        if self._queue.needs_chunk:
            self._queue.push(self.predict_action_chunk(input_ids, pixel_values, attention_mask, **kwargs))
        return self._queue.pop(len(input_ids))

    @property
    def _num_appended_tokens(self) -> int:
        config = self.config
        num_words = config.chunk_size * config.action_dim - 1  # the last is predicted, and not read
        return {"act": config.num_act_tokens, "latent": 0, "discrete": num_words}[config.action_decoding]

    def _appended_token_ids(self, actions: torch.Tensor | None, batch_size: int) -> torch.Tensor:
        """What is read after the latent action, `(batch_size, n)`: without `actions`, no words of them."""
        if self.config.action_decoding == "act":
            return self.act_token_ids.expand(batch_size, -1)
        if self.action_decoder is not None or actions is None:
            return self.act_token_ids.new_empty(batch_size, 0)
        return self.action_bin_token_ids[to_bins(actions, self.config.num_action_bins).flatten(1)[:, :-1]]

    def _score_bins(
        self, states: torch.Tensor, actions: torch.Tensor | None, actions_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Actions read off the states that predict their words, and the loss of these; nothing without `actions`."""
        if actions is None:
            return None, None
        num_bins = self.config.num_action_bins
        logits = self._logits_of(self.action_bin_token_ids, states).unflatten(1, actions.shape[1:])
        targets = to_bins(actions, num_bins)
        if actions_mask is not None:
            targets = targets.masked_fill(~actions_mask.bool()[:, :, None], IGNORED_LABEL)
        total = F.cross_entropy(
            logits.flatten(0, 2).float(), targets.flatten(), ignore_index=IGNORED_LABEL, reduction="sum"
        )
        loss = mean_of_unmasked(total, (targets != IGNORED_LABEL).sum(), is_global=self.training)
        return bin_centres(logits.argmax(dim=-1), num_bins), loss

    def _decode_bins(self, state: _DecodingState, token_ids: torch.Tensor) -> torch.Tensor:
        bins = []
        for _ in range(self.config.chunk_size * self.config.action_dim):
            last_state = self._extend(state, token_ids)
            bins.append(self._best_of(self.action_bin_token_ids, last_state))
            token_ids = self.action_bin_token_ids[bins[-1]]
        chunk = torch.cat(bins, dim=1).unflatten(1, (self.config.chunk_size, self.config.action_dim))
        return bin_centres(chunk, self.config.num_action_bins)

    def _decode_actions(
        self,
        input_ids: torch.Tensor,
        prompt_states: torch.Tensor,
        act_states: torch.Tensor,
        robot_state: torch.Tensor | None,
    ) -> torch.Tensor:
        if not self.action_decoder.reads_image:
            return self.action_decoder(None, act_states, robot_state=robot_state)
        is_image = input_ids == self.config.image_token_id
        num_visual = self.config.num_cameras * self.config.num_image_tokens
        visual_states, _ = gather_marked(prompt_states, is_image, num_visual)
        return self.action_decoder(visual_states, act_states, robot_state=robot_state)


def _fill_token_ids_of(model: CycleMimicPreTrainedModel, incompatible_keys: object) -> None:
    model._fill_token_ids()


# With this, `save_pretrained` puts this module and its siblings beside the weights.
CycleMimicForActionPrediction.register_for_auto_class("AutoModel")
CycleMimicForLatentActionPrediction.register_for_auto_class("AutoModelForPreTraining")

__all__ = [
    "CycleMimicActionOutput",
    "CycleMimicForActionPrediction",
    "CycleMimicForLatentActionPrediction",
    "CycleMimicLatentActionOutput",
    "CycleMimicPreTrainedModel",
]
