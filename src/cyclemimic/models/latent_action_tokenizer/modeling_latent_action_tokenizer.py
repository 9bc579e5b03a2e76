# SPDX-License-Identifier: Apache-2.0
"""Latent action tokenizer: encoder E, quantizer, decoder D, and their pretraining with AC3 (paper §3)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .buffer_latent_action_tokenizer import LatentActionBuffer
from .configuration_latent_action_tokenizer import LatentActionTokenizerConfig
from .decoder_latent_action_tokenizer import LatentActionTokenizerDecoder
from .discriminator_latent_action_tokenizer import LatentActionTokenizerDiscriminator
from .encoder_latent_action_tokenizer import LatentActionTokenizerEncoder, LatentActionTokenizerVisionFeatures
from .layers_latent_action_tokenizer import LatentActionTokenizerEmbeddingNorm, Memory
from .loss_latent_action_tokenizer import (
    codebook_loss,
    codebook_perplexity,
    commitment_loss,
    cycle_consistency_loss,
    discriminator_loss,
    generator_loss,
    motion_weights,
    reconstruction_loss,
)
from .precision_latent_action_tokenizer import in_fp32
from .quantizer_latent_action_tokenizer import LatentActionTokenizerQuantizer
from .ranks_latent_action_tokenizer import all_gather_rows, global_mean, mean_over_ranks
from .safe_weights_latent_action_tokenizer import SafeWeightsModel, load_safetensors

# Before AC3 has joined, the host asks the device every so many steps whether it should: a sync a step would cost more.
AC3_CHECK_STEPS = 20
COPY_RATIO_MOMENTUM = 0.05
# Size of the weights that draw before training, beside that of others. Not zero, through which no gradient would pass; so small
# that AdamW's epsilon outweighs what passes, and drawing is learnt after moving. At a thousandth both are learnt at once, and what
# the codes tell of the motion suffers.
FIRST_DRAWING_STD = 1e-9
# Mean error of a copy below which a batch stands still: far less than one step of 8-bit pixels.
STILL_COPY_ERROR = 1e-8


@dataclass
class LatentActionEncoderOutput(ModelOutput):
    """
    Args:
        codes (`torch.LongTensor` of shape `(batch_size, num_latent_tokens)`): word indices in `[0, codebook_size)`.
        quantized (`torch.FloatTensor` of shape `(batch_size, num_latent_tokens, codebook_dim)`): `z_t^q`, the words'
            vectors; gradients pass straight through to `embeddings`.
        embeddings (`torch.FloatTensor` of the same shape): `z_t^e`, before quantisation.
    """

    # Always there: a field of a `ModelOutput` must have a default.
    codes: torch.Tensor = None
    quantized: torch.Tensor = None
    embeddings: torch.Tensor = None


@dataclass
class LatentActionDecoderOutput(ModelOutput):
    """
    Args:
        pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): the future frame, in the
            normalisation of the input.
    """

    pixel_values: torch.Tensor = None


@dataclass
class LatentActionTokenizerOutput(ModelOutput):
    """
    Args:
        loss (`torch.FloatTensor`): scalar, the weighted sum of the three terms of a plain VQ-VAE.
        reconstruction_loss, codebook_loss, commitment_loss (`torch.FloatTensor`): scalars, unweighted.
        pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): `ô_{t+H}`.
        codes, quantized, embeddings: as in [`LatentActionEncoderOutput`].
    """

    loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    codebook_loss: torch.Tensor | None = None
    commitment_loss: torch.Tensor | None = None
    pixel_values: torch.Tensor | None = None
    codes: torch.Tensor | None = None
    quantized: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None


@dataclass
class LatentActionTokenizerForPreTrainingOutput(ModelOutput):
    """
    Every term is an unweighted scalar; the AC3 terms are zero until AC3 has joined.

    Args:
        loss (`torch.FloatTensor`): scalar; one backward trains encoder, quantizer, decoder and discriminator.
        reconstruction_loss, codebook_loss, commitment_loss (`torch.FloatTensor`): the VQ-VAE terms.
        cycle_loss (`torch.FloatTensor`): `L_C`, in nats.
        generator_loss, discriminator_loss (`torch.FloatTensor`): the adversarial pair, in nats.
        codebook_perplexity (`torch.FloatTensor`): of the real pairs' words, in `[1, codebook_size]`.
        cycle_accuracy (`torch.FloatTensor`): share of sampled words that came back. Says nothing alone: a watermark
            or a collapsed codebook wins it too.
        copy_ratio (`torch.FloatTensor`): `reconstruction_loss` over that of copying the current frame, motion weighted
            in both.
        ac3_scale (`torch.FloatTensor`): how far the weights of AC3 have risen, in `[0, 1]`; 0 until it joins.
        codes (`torch.LongTensor` of shape `(batch_size, num_latent_tokens)`): of the real pairs.
    """

    loss: torch.Tensor | None = None
    reconstruction_loss: torch.Tensor | None = None
    codebook_loss: torch.Tensor | None = None
    commitment_loss: torch.Tensor | None = None
    cycle_loss: torch.Tensor | None = None
    generator_loss: torch.Tensor | None = None
    discriminator_loss: torch.Tensor | None = None
    codebook_perplexity: torch.Tensor | None = None
    cycle_accuracy: torch.Tensor | None = None
    copy_ratio: torch.Tensor | None = None
    ac3_scale: torch.Tensor | None = None
    codes: torch.Tensor | None = None


class LatentActionTokenizerPreTrainedModel(SafeWeightsModel):
    config_class = LatentActionTokenizerConfig
    config: LatentActionTokenizerConfig
    base_model_prefix = "tokenizer"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    # Checkpoints from before it have their words in the codebook itself.
    _keys_to_ignore_on_load_missing = [r"codebook_shift$"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _no_split_modules = ["LatentActionTokenizerSpatialLayer", "LatentActionTokenizerSpatioTemporalLayer"]

    def get_input_embeddings(self) -> None:
        """There are no tokens to embed; FSDP asks."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, LatentActionTokenizerQuantizer):
            init.uniform_(module.codebook, -1 / module.codebook.shape[0], 1 / module.codebook.shape[0])
            init.zeros_(module.codebook_shift)
            init.constant_(module.idle_steps, self.config.dead_code_steps)
        elif isinstance(module, LatentActionTokenizerEmbeddingNorm):
            init.zeros_(module.running_mean)
            init.ones_(module.running_variance)
        elif isinstance(module, LatentActionBuffer):
            init.zeros_(module.codes)
            init.constant_(module.embodiment_ids, -1)
            init.zeros_(module.filled)
        elif isinstance(module, LatentActionTokenizerForPreTraining):
            init.ones_(module.mean_copy_ratio)
            init.zeros_(module.steps)
            init.zeros_(module.ac3_steps)
        for parameter in (p for name, p in module.named_parameters(recurse=False) if _is_embedding(name)):
            init.trunc_normal_(parameter, std=std)
        if isinstance(module, LatentActionTokenizerDecoder) and module.residual:
            # The first reconstruction is a copy of the current frame, plus next to nothing.
            init.trunc_normal_(module.head.weight, std=FIRST_DRAWING_STD * std)
        if isinstance(module, LatentActionTokenizerDecoder) and module.transport is not None:
            init.trunc_normal_(module.transport.outline_head.weight, std=FIRST_DRAWING_STD * std)
            init.copy_(module.transport.outline_head.bias, module.transport.first_outline_bias())


class LatentActionTokenizerModel(LatentActionTokenizerPreTrainedModel):
    r"""
    Encoder E, quantizer and decoder D (paper §3): names the change between two frames with `num_latent_tokens` words of
    a codebook, and makes the future frame from the current one and those words.

    Example:

    ```python
    >>> import torch
    >>> from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerModel

    >>> config = LatentActionTokenizerConfig(
    ...     image_size=32, patch_size=8, vision_config=None, hidden_size=32, num_attention_heads=2,
    ...     num_encoder_layers=1, num_decoder_layers=1, codebook_dim=8,
    ... )
    >>> model = LatentActionTokenizerModel(config).eval()
    >>> current, future, other = torch.randn(3, 1, 3, 32, 32)
    >>> codes = model.encode(current, future).codes
    >>> transferred = model.decode(other, codes=codes).pixel_values
    >>> codes.shape, transferred.shape
    (torch.Size([1, 4]), torch.Size([1, 3, 32, 32]))
    ```"""

    _keys_to_ignore_on_load_unexpected = [r"^discriminator\.", r"^buffer\.", r"^mean_copy_ratio$", r"^(ac3_)?steps$"]

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__(config)
        self.vision_features = LatentActionTokenizerVisionFeatures(config)
        self.encoder = LatentActionTokenizerEncoder(config)
        self.quantizer = LatentActionTokenizerQuantizer(config)
        self.decoder = LatentActionTokenizerDecoder(config)
        self.post_init()

    def encode(self, pixel_values: torch.Tensor, future_pixel_values: torch.Tensor) -> LatentActionEncoderOutput:
        """
        Names the change between two frames: `z_t^q = E(o_t, o_{t+H})`. In training mode and with gradients, it also moves
        the statistics that embeddings are standardised by, and the words that are not used.

        Args:
            pixel_values, future_pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`):
                normalised frames, both of `image_size`; they are read in the model's own precision.

        Returns:
            [`LatentActionEncoderOutput`]

        Raises:
            ValueError: frames of another shape than the configuration's, or of two shapes.
        """
        self.check_frames(pixel_values, future_pixel_values)
        frames = torch.cat((pixel_values, future_pixel_values)).to(self.dtype)
        features, future_features = self.vision_features(frames).chunk(2)
        return self.encode_features(self.encoder.read_current(features), future_features)

    def encode_features(self, current: list[Memory], future_features: torch.Tensor) -> LatentActionEncoderOutput:
        """
        The same from the frames' `vision_features`, for callers that use a frame in several pairs.

        Args:
            current (`list[Memory]`): Of the current frames, by `encoder.read_current`.
            future_features (`torch.FloatTensor` of shape `(batch_size, num_patches, hidden_size)`).

        Returns:
            [`LatentActionEncoderOutput`]
        """
        embeddings = self.encoder(current, future_features)
        codes, words = self.quantizer(embeddings)
        # Straight-through: the value of the word, to the last digit, and the gradient of the embedding.
        quantized = words.detach() + (embeddings - embeddings.detach())
        return LatentActionEncoderOutput(codes=codes, quantized=quantized, embeddings=embeddings)

    def decode(
        self,
        pixel_values: torch.Tensor,
        codes: torch.Tensor | None = None,
        quantized: torch.Tensor | None = None,
    ) -> LatentActionDecoderOutput:
        """
        Applies an action to a frame: `ô_{t+H} = D(o_t, z_t^q)`.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`): the current frame.
            codes (`torch.LongTensor` of shape `(batch_size, num_latent_tokens)`, *optional*): the action as words,
            quantized (`torch.FloatTensor` of shape `(batch_size, num_latent_tokens, codebook_dim)`, *optional*): or as
                vectors; exactly one of the two.

        Returns:
            [`LatentActionDecoderOutput`]

        Raises:
            ValueError: both or neither of `codes` and `quantized`, codes out of range, shapes that do not fit.
        """
        if (codes is None) == (quantized is None):
            raise ValueError("`decode` takes exactly one of `codes` and `quantized`, got both or neither.")
        self.check_frames(pixel_values)
        if codes is not None:
            quantized = self.quantizer.lookup(self._checked_codes(codes, pixel_values.shape[0]))
        expected = (pixel_values.shape[0], self.config.num_latent_tokens, self.config.codebook_dim)
        if not isinstance(quantized, torch.Tensor):
            raise ValueError(f"`quantized` must be a tensor, got {type(quantized).__name__}.")
        if tuple(quantized.shape) != expected:
            raise ValueError(f"`quantized` must be of shape {expected}, got {tuple(quantized.shape)}.")
        return LatentActionDecoderOutput(self.decoder(pixel_values.to(self.dtype), quantized.to(self.dtype)))

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, future_pixel_values: torch.Tensor, return_loss: bool = True
    ) -> LatentActionTokenizerOutput:
        """
        Encodes a pair and reconstructs its future frame, with the losses of a plain VQ-VAE.

        Args:
            pixel_values, future_pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`).
            return_loss (`bool`, *optional*, defaults to `True`): By this name a Trainer knows that there is a loss without
                labels. Where `False`, there is none.

        Returns:
            [`LatentActionTokenizerOutput`]
        """
        action = self.encode(pixel_values, future_pixel_values)
        reconstruction = self.decoder(pixel_values.to(self.dtype), action.quantized)
        if not return_loss:
            return LatentActionTokenizerOutput(pixel_values=reconstruction, **action)
        weights = self.motion_weights(future_pixel_values, pixel_values)
        terms = self.vq_vae_terms(reconstruction, future_pixel_values, weights, action)
        return LatentActionTokenizerOutput(
            loss=self.vq_vae_loss(terms), **terms, pixel_values=reconstruction, **action
        )

    def vq_vae_terms(
        self,
        reconstruction: torch.Tensor,
        future_pixel_values: torch.Tensor,
        weights: torch.Tensor | None,
        action: LatentActionEncoderOutput,
    ) -> dict[str, torch.Tensor]:
        """The three unweighted terms of a VQ-VAE, by name: of a `reconstruction` of `future_pixel_values` by an `action`, frames
        `(batch_size, channels, height, width)`, with the `weights` of their pixels' errors."""
        words = self.quantizer.lookup(action.codes)
        return {
            "reconstruction_loss": self.reconstruction_loss(reconstruction, future_pixel_values, weights),
            "codebook_loss": codebook_loss(action.embeddings, words),
            "commitment_loss": commitment_loss(action.embeddings, words),
        }

    def reconstruction_loss(
        self, reconstruction: torch.Tensor, future_pixel_values: torch.Tensor, weights: torch.Tensor | None
    ) -> torch.Tensor:
        """
        The function of this name, with the distance of the configuration.

        Args:
            reconstruction, future_pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`).
            weights (`torch.Tensor` of shape `(batch_size, 1, height, width)`, *optional*): By `motion_weights`.

        Returns:
            `torch.Tensor`: scalar.
        """
        return reconstruction_loss(reconstruction, future_pixel_values, weights, self.config.reconstruction_distance)

    def motion_weights(self, future_pixel_values: torch.Tensor, pixel_values: torch.Tensor) -> torch.Tensor | None:
        """
        How much each pixel's error counts: the function of this name, with the window and the mean of the model.

        Args:
            future_pixel_values, pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`).

        Returns:
            `torch.Tensor` of shape `(batch_size, 1, height, width)`; `None` where all count alike.
        """
        # About a patch, as the decoder draws patches.
        window = self.config.patch_size | 1
        mean = global_mean if self.training else torch.mean
        return motion_weights(future_pixel_values, pixel_values, self.config.motion_weight, window, mean)

    def vq_vae_loss(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum of the `terms` of [`~LatentActionTokenizerModel.vq_vae_terms`]."""
        return (
            self.config.reconstruction_weight * terms["reconstruction_loss"]
            + self.config.codebook_weight * terms["codebook_loss"]
            + self.config.commitment_weight * terms["commitment_loss"]
        )

    def check_frames(self, *frames: torch.Tensor) -> None:
        """
        Refuses frames of another shape than `(batch_size, num_channels, image_size, image_size)`, and bytes.

        Args:
            frames (`torch.FloatTensor`): `pixel_values` and, of pairs, `future_pixel_values`.

        Raises:
            ValueError: they are of another shape, of integers, none, or of different numbers.
        """
        expected = (self.config.num_channels, self.config.image_size, self.config.image_size)
        for name, frame in zip(("pixel_values", "future_pixel_values"), frames, strict=False):
            is_tensor = isinstance(frame, torch.Tensor)
            if not is_tensor or frame.ndim != 4 or tuple(frame.shape[1:]) != expected or len(frame) == 0:
                got = tuple(frame.shape) if is_tensor else "nothing" if frame is None else type(frame).__name__
                raise ValueError(
                    f"`{name}` must be a tensor of shape (batch_size, {', '.join(map(str, expected))}), got {got}."
                )
            if not frame.is_floating_point():
                raise ValueError(
                    f"`{name}` must be floats, normalised by the image processor, got {str(frame.dtype).removeprefix('torch.')}."
                )
        if len(frames) == 2 and frames[0].shape[0] != frames[1].shape[0]:
            raise ValueError(
                "`pixel_values` and `future_pixel_values` must hold as many frames, "
                f"got {frames[0].shape[0]} and {frames[1].shape[0]}."
            )

    def _checked_codes(self, codes: torch.Tensor, batch_size: int) -> torch.Tensor:
        expected = (batch_size, self.config.num_latent_tokens)
        # Of bytes and booleans, torch would make a mask.
        if not isinstance(codes, torch.Tensor) or codes.dtype not in (torch.int32, torch.int64):
            got = codes.dtype if isinstance(codes, torch.Tensor) else type(codes).__name__
            raise ValueError(f"`codes` must be a tensor of int64, got {got}.")
        if tuple(codes.shape) != expected:
            raise ValueError(f"`codes` must be of shape {expected}, got {tuple(codes.shape)}.")
        if codes.numel() and not (0 <= int(codes.min()) and int(codes.max()) < self.config.codebook_size):
            raise ValueError(
                f"`codes` must lie in [0, {self.config.codebook_size}), got [{int(codes.min())}, {int(codes.max())}]."
            )
        return codes


class LatentActionTokenizerForPreTraining(LatentActionTokenizerPreTrainedModel):
    r"""
    [`LatentActionTokenizerModel`] with discriminator and latent action buffer, trained with action-centric cycle
    consistency (AC3, paper §3.1): an action met in one scene, applied to a frame of another, must be read back from the
    generated frame. `cycle_weight=0, adversarial_weight=0` in its `config` is the Genie objective.
    """

    mean_copy_ratio: torch.Tensor
    steps: torch.Tensor
    ac3_steps: torch.Tensor

    def __init__(self, config: LatentActionTokenizerConfig) -> None:
        super().__init__(config)
        self.tokenizer = LatentActionTokenizerModel(config)
        if config.uses_ac3:
            self.buffer = LatentActionBuffer(config)
        if config.adversarial_weight > 0:
            self.discriminator = LatentActionTokenizerDiscriminator(config)
        self.register_buffer("mean_copy_ratio", torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("ac3_steps", torch.zeros((), dtype=torch.long))
        # Host copies of `steps` and of "has AC3 joined", read when first needed: a loaded model goes on where it was.
        self._host_steps: int | None = None
        self._ac3_active = False
        self.register_load_state_dict_pre_hook(_widen_mean)
        self.register_load_state_dict_post_hook(_forget_host_copies)
        self.post_init()

    @classmethod
    def from_vision_model(cls, vision_model: str | os.PathLike | PreTrainedModel, **fields: Any) -> Self:
        """
        A new tokenizer on a pretrained vision model. Of a `vision_config` alone, which is what a configuration has, the vision
        model would be random, and with `freeze_vision` stay so.

        Args:
            vision_model (`str` or `PreTrainedModel`): A name for `AutoModel`, such as `"facebook/dinov2-base"`, the paper's, or
                the model, of which weights are copied.
            fields: Of [`LatentActionTokenizerConfig`].

        Raises:
            ValueError: as [`LatentActionTokenizerConfig`]; weights that are no safetensors.
        """
        if isinstance(vision_model, str | os.PathLike):
            vision_model = load_safetensors(AutoModel.from_pretrained, vision_model)
        model = cls(LatentActionTokenizerConfig(**fields, vision_config=vision_model.config))
        model.tokenizer.vision_features.vision_model.load_state_dict(vision_model.state_dict())
        return model

    @property
    def ac3_has_joined(self) -> bool:
        """Whether training steps have terms of AC3 now. Before, the copy ratio may be low enough and the next look at it to come."""
        return self._ac3_active or int(self.ac3_steps) >= AC3_CHECK_STEPS

    @torch.no_grad()
    def restart_ac3(self) -> None:
        """
        Lets AC3 join and its weights rise as in a new training, with an empty buffer: for going on with other losses. Ψ may
        be new, and the buffer may be of long ago.
        """
        self.mean_copy_ratio.fill_(1)
        self.steps.zero_()
        self.ac3_steps.zero_()
        if self.config.uses_ac3:
            self.buffer.filled.zero_()
        _forget_host_copies(self)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        future_pixel_values: torch.Tensor,
        embodiment_ids: torch.Tensor | None = None,
        return_loss: bool = True,
    ) -> LatentActionTokenizerForPreTrainingOutput:
        """
        One training step's losses. In training mode it also moves the buffer and the schedule of AC3 on.

        Args:
            pixel_values, future_pixel_values (`torch.FloatTensor` of shape `(batch_size, channels, height, width)`):
                normalised frames.
            embodiment_ids (`torch.LongTensor` of shape `(batch_size,)`, *optional*): the body in each pair, so that
                sampled actions cross bodies; all one body where it is not given.
            return_loss (`bool`, *optional*, defaults to `True`): As in [`LatentActionTokenizerModel`]. Where `False`, there
                are the codes alone, and AC3 does not move on.

        Returns:
            [`LatentActionTokenizerForPreTrainingOutput`]

        Raises:
            ValueError: as [`LatentActionTokenizerModel.encode`]; `embodiment_ids` of another length.
        """
        if not return_loss:
            codes = self.tokenizer.encode(pixel_values, future_pixel_values).codes
            return LatentActionTokenizerForPreTrainingOutput(codes=codes)
        self.tokenizer.check_frames(pixel_values, future_pixel_values)
        embodiment_ids = self._checked_embodiment_ids(embodiment_ids, pixel_values)
        inputs = pixel_values, future_pixel_values, embodiment_ids
        ac3_joins = self._ac3_joins()
        if self.training:
            output = self._compute(*inputs, ac3_joins)
            self._advance(output.codes, embodiment_ids, output.copy_ratio)
            return output
        with _same_draws(pixel_values.device) if ac3_joins else nullcontext():
            return self._compute(*inputs, ac3_joins)

    def _compute(
        self,
        pixel_values: torch.Tensor,
        future_pixel_values: torch.Tensor,
        embodiment_ids: torch.Tensor,
        ac3_joins: bool,
    ) -> LatentActionTokenizerForPreTrainingOutput:
        """All of a step that the device does: torch.compile makes one graph of it."""
        model = self.tokenizer
        pixel_values, future_pixel_values = pixel_values.to(self.dtype), future_pixel_values.to(self.dtype)
        features, future_features = model.vision_features(torch.cat((pixel_values, future_pixel_values))).chunk(2)
        current = model.encoder.read_current(features)
        action = model.encode_features(current, future_features)
        if ac3_joins:
            played = slice(max(1, round(self.config.generated_share * pixel_values.shape[0])))
            sampled = self.buffer.sample(embodiment_ids[played])
            reconstruction, generated = self._decode_both(pixel_values, action.quantized, sampled)
            current = [(keys[played], values[played]) for keys, values in current]
            ac3_terms = self._ac3_terms(current, future_pixel_values[played], generated, sampled)
        else:
            reconstruction = model.decoder(pixel_values, action.quantized)
            ac3_terms = self._absent_ac3_terms(reconstruction)
        weights = model.motion_weights(future_pixel_values, pixel_values)
        terms = model.vq_vae_terms(reconstruction, future_pixel_values, weights, action)
        copy_loss = model.reconstruction_loss(pixel_values, future_pixel_values, weights)
        copy_ratio = self._copy_ratio(terms["reconstruction_loss"], copy_loss)
        ac3_scale = (self.ac3_steps / max(1, self.config.cycle_ramp_steps)).clamp(max=1.0) * ac3_joins
        codes = all_gather_rows(action.codes) if self.training else action.codes
        return LatentActionTokenizerForPreTrainingOutput(
            loss=model.vq_vae_loss(terms) + self._ac3_loss(ac3_terms, ac3_scale),
            **terms,
            **ac3_terms,
            codebook_perplexity=codebook_perplexity(codes, self.config.codebook_size),
            copy_ratio=copy_ratio,
            ac3_scale=ac3_scale,
            codes=action.codes,
        )

    def _decode_both(
        self, pixel_values: torch.Tensor, quantized: torch.Tensor, sampled: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstructions and generated frames in one call of D; the batch's first current frames serve as `o_c`."""
        # The codebook is trained by the real pairs only: L_C must not drag the words to where the cycle is easy.
        words = self.tokenizer.quantizer.lookup(sampled).detach()
        num_fixed = 0 if self.config.generated_trains_decoder else len(words)
        frames = self.tokenizer.decoder(pixel_values, torch.cat((quantized, words)), num_fixed)
        return frames.split((len(quantized), len(words)))

    def _ac3_terms(
        self, current: list[Memory], real: torch.Tensor, generated: torch.Tensor, sampled: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Cycle and adversarial terms of the generated frames (paper §3.1, §3.3); those without a weight are not computed."""
        terms = self._absent_ac3_terms(generated)
        if self.config.cycle_weight > 0:
            terms |= self._cycle_terms(current, generated, sampled)
        if self.config.adversarial_weight > 0:
            terms |= self._adversarial_terms(real, generated)
        return terms

    def _cycle_terms(
        self, current: list[Memory], generated: torch.Tensor, sampled: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        quantizer, std = self.tokenizer.quantizer, self.config.generated_noise_std
        generated = generated if self.config.cycle_trains_decoder else generated.detach()
        words = quantizer.words.detach()
        noisy = generated + torch.randn_like(generated) * std if std > 0 else generated
        embeddings = self.tokenizer.encoder(current, self.tokenizer.vision_features(noisy), is_generated=True)
        return {
            "cycle_loss": cycle_consistency_loss(embeddings, words, sampled, self.config.cycle_temperature),
            "cycle_accuracy": (quantizer.nearest(embeddings.detach()) == sampled).float().mean(),
        }

    def _adversarial_terms(self, real: torch.Tensor, generated: torch.Tensor) -> dict[str, torch.Tensor]:
        real_logits, generated_logits = self._discriminate(real, generated)
        return {
            "generator_loss": generator_loss(*self._discriminate_fixed(generated)),
            "discriminator_loss": discriminator_loss(real_logits, generated_logits),
        }

    def _discriminate(self, real: torch.Tensor, generated: torch.Tensor) -> tuple[tuple[torch.Tensor, ...], ...]:
        """Logits of real and of generated frames in one call, with gradients to Ψ alone."""
        logits = self.discriminator(torch.cat((real, generated.detach())))
        return tuple(zip(*(head.chunk(2) for head in logits), strict=True))

    def _discriminate_fixed(self, generated: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of generated frames, with gradients to the pixels and none to Ψ."""
        if torch.compiler.is_compiling():  # which cannot follow the switching of gradients within Ψ
            fixed = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
            return torch.func.functional_call(self.discriminator, fixed, (generated,))
        return self.discriminator(generated, is_fixed=True)

    def _copy_ratio(self, error: torch.Tensor, copy_error: torch.Tensor) -> torch.Tensor:
        errors = in_fp32(torch.stack((error.detach(), copy_error)))
        error, copy_error = mean_over_ranks(errors) if self.training else errors
        # Where nothing moves, nothing is better than a copy; nor does it tell how well motion is reconstructed.
        is_still = copy_error < STILL_COPY_ERROR
        # An error that overflowed stays one: nothing is to be kept of its batch.
        return torch.where(is_still & error.isfinite(), 1.0, error / copy_error.clamp_min(STILL_COPY_ERROR))

    def _absent_ac3_terms(self, like: torch.Tensor) -> dict[str, torch.Tensor]:
        zero = like.new_zeros(())
        return dict.fromkeys(("cycle_loss", "generator_loss", "discriminator_loss", "cycle_accuracy"), zero)

    def _ac3_loss(self, terms: dict[str, torch.Tensor], scale: torch.Tensor) -> torch.Tensor:
        # Ψ follows its own loss at full weight from the first moment: it should know real frames before D heeds it.
        generator = self.config.cycle_weight * terms["cycle_loss"]
        generator = generator + self.config.adversarial_weight * terms["generator_loss"]
        return scale * generator + terms["discriminator_loss"]

    @torch.compiler.disable
    def _ac3_joins(self) -> bool:
        """Whether this step has AC3 terms. The device is asked once in a while, and never again after AC3 has joined."""
        if not self.config.uses_ac3:
            return False
        loaded = self._host_steps is None
        if loaded:
            self._host_steps = int(self.steps)
        if self.config.cycle_start_copy_ratio >= 1 and not self._ac3_active:
            # No mean of ratios is above 1: there is nothing to wait for but a batch that did not overflow.
            self._ac3_active = bool(self.buffer.filled.any())
        since_check = self._host_steps % AC3_CHECK_STEPS
        if not self._ac3_active and (loaded or since_check == 0):
            # A loaded model is asked what the last check saw: resumed between two checks, it goes on as it would have.
            # Nor does it play actions of an empty buffer, as one has that was trained without AC3 in between.
            self._ac3_active = int(self.ac3_steps) > since_check and bool(self.buffer.filled.any())
        return self._ac3_active

    @torch.compiler.disable
    @torch.no_grad()
    def _advance(self, codes: torch.Tensor, embodiment_ids: torch.Tensor, copy_ratio: torch.Tensor) -> None:
        if not self.config.uses_ac3:
            return
        is_valid = copy_ratio.isfinite()
        self.buffer.add(codes, embodiment_ids, is_valid)
        # In a model of bf16 too: a mean that moves by a twentieth of what is left would there come to rest on its way.
        self.mean_copy_ratio = in_fp32(self.mean_copy_ratio)
        # No better than a copy is all that a larger ratio says: a batch where nothing moves must not blow up the mean.
        # Nor must one that overflowed: it would be NaN from then on.
        ratio = copy_ratio.to(self.mean_copy_ratio).clamp(max=1.0)
        ratio = torch.where(is_valid, ratio, self.mean_copy_ratio)
        self.mean_copy_ratio.lerp_(ratio, COPY_RATIO_MOMENTUM)
        begins = (self.mean_copy_ratio <= self.config.cycle_start_copy_ratio) | (self.ac3_steps > 0)
        self.ac3_steps += begins
        self.steps += 1
        self._host_steps += 1

    def _checked_embodiment_ids(self, embodiment_ids: torch.Tensor | None, pixel_values: torch.Tensor) -> torch.Tensor:
        if embodiment_ids is None:
            return torch.zeros(pixel_values.shape[0], dtype=torch.long, device=pixel_values.device)
        allowed = f"`embodiment_ids` must be a tensor of whole numbers, of shape ({pixel_values.shape[0]},)"
        is_whole = isinstance(embodiment_ids, torch.Tensor) and not embodiment_ids.dtype.is_floating_point
        if not is_whole or embodiment_ids.is_complex():
            raise ValueError(f"{allowed}, got {getattr(embodiment_ids, 'dtype', type(embodiment_ids).__name__)}.")
        if tuple(embodiment_ids.shape) != (pixel_values.shape[0],):
            raise ValueError(f"{allowed}, got {tuple(embodiment_ids.shape)}.")
        return embodiment_ids


@contextmanager
def _same_draws(device: torch.device) -> Iterator[None]:
    """Within it every time the same random numbers, which take nothing from a training's, that Trainer saves and resumes."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield


def _widen_mean(model: LatentActionTokenizerForPreTraining, *_: object) -> None:
    # As `_advance` does: a new model of bf16 that resumes would round what it is given.
    model.mean_copy_ratio = in_fp32(model.mean_copy_ratio)


def _forget_host_copies(model: LatentActionTokenizerForPreTraining, incompatible_keys: object = None) -> None:
    # A model that has been used, and then takes the state of a checkpoint, goes on where that was.
    model._host_steps, model._ac3_active = None, False


def _is_embedding(name: str) -> bool:
    return name.endswith(("embeddings", "latent_tokens"))


# With this, `save_pretrained` puts this module and its siblings beside the weights.
LatentActionTokenizerModel.register_for_auto_class("AutoModel")
LatentActionTokenizerForPreTraining.register_for_auto_class("AutoModelForPreTraining")

__all__ = [
    "LatentActionTokenizerForPreTraining",
    "LatentActionTokenizerModel",
    "LatentActionTokenizerPreTrainedModel",
]
