# SPDX-License-Identifier: Apache-2.0
"""Configuration of the latent action tokenizer."""

import copy
import inspect
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

DEFAULT_VISION_MODEL_TYPE = "dinov2"
# What transformers itself hands to a config beside its declared fields, on construction and when it loads one.
_LIBRARY_ARGUMENTS = {
    *("_attn_implementation_internal", "_commit_hash", "_experts_implementation_internal", "_name_or_path"),
    *("attn_implementation", "auto_map", "experts_implementation", "model_type", "name_or_path", "num_labels"),
    *("output_attentions", "quantization_config", "torch_dtype", "use_cache"),
}
_MODELING = "modeling_latent_action_tokenizer"
_AUTO_MAP = {
    "AutoConfig": "configuration_latent_action_tokenizer.LatentActionTokenizerConfig",
    "AutoModel": f"{_MODELING}.LatentActionTokenizerModel",
    "AutoModelForPreTraining": f"{_MODELING}.LatentActionTokenizerForPreTraining",
}
_SIZES = (
    *("image_size", "num_channels", "patch_size", "hidden_size", "intermediate_size", "num_attention_heads"),
    *("num_encoder_layers", "num_decoder_layers", "num_discriminator_layers"),
    *("num_latent_tokens", "codebook_dim", "buffer_batches", "buffer_batch_size"),
)
_NOT_NEGATIVE = (
    *("reconstruction_weight", "codebook_weight", "commitment_weight", "cycle_weight", "adversarial_weight"),
    *("motion_weight", "cycle_start_copy_ratio", "cycle_ramp_steps", "generated_noise_std", "dead_code_steps"),
    *("layer_norm_eps", "initializer_range"),
)


@strict
class LatentActionTokenizerConfig(PreTrainedConfig):
    r"""
    Configuration of [`LatentActionTokenizerModel`] and [`LatentActionTokenizerForPreTraining`]. The defaults give the
    paper's model (paper §3) with what it leaves open, or does otherwise for the sake of training; such fields say so. Its
    pretrained vision model comes with [`~LatentActionTokenizerForPreTraining.from_vision_model`]: of a configuration alone it
    is random.

    Args:
        image_size (`int`, *optional*, defaults to 224): Height and width of a frame, in pixels.
        num_channels (`int`, *optional*, defaults to 3): Channels of a frame.
        vision_config (`dict` or `PreTrainedConfig`, *optional*, defaults to DINOv2 ViT-B/14):
            Any Auto vision model that yields patch tokens. `None` is a plain patch embedding of `patch_size`, for small
            models trained from scratch.
        patch_size (`int`, *optional*, defaults to 14): Patch of the decoder and of the discriminator, and of the
            encoder where `vision_config` is `None`.
        freeze_vision (`bool`, *optional*, defaults to `True`): Whether the vision model stays as it was loaded. It
            passes gradients on to the pixels either way.
        hidden_size (`int`, *optional*, defaults to 768): Width of encoder, decoder and discriminator.
        intermediate_size (`int`, *optional*, defaults to 4 times `hidden_size`): Width of their feed-forward layers.
        num_attention_heads (`int`, *optional*, defaults to 12): Attention heads a layer.
        num_encoder_layers, num_decoder_layers, num_discriminator_layers (`int`, *optional*, defaults to 12): Depths.
        discriminator_heads (`"local"`, `"global"` or `"local-global"`, *optional*, defaults to `"local-global"`): Whether
            Ψ judges each patch, the whole frame, or both, the paper's choice. With `adversarial_weight=0` there is no
            discriminator.
        codebook_size (`int`, *optional*, defaults to 16): K, the number of words.
        num_latent_tokens (`int`, *optional*, defaults to 4): L, the words of one latent action.
        codebook_dim (`int`, *optional*, defaults to 128): Width of a codebook vector, with `normalize_codebook` at least 2 (open
            in the paper).
        normalize_codebook (`bool`, *optional*, defaults to `True`): Whether embeddings and words are of unit length.
            Without it the embeddings of a tokenizer trained from scratch shrink to a point, and one word serves all (open
            in the paper).
        standardize_embeddings (`bool`, *optional*, defaults to `True`): Whether embeddings are brought to mean 0 and
            variance 1 over the batch, each token's dimensions apart, before they are made of unit length. A tokenizer
            trained from scratch otherwise spends its first hundreds of steps with embeddings that say which token they
            are, and hardly which pair (not in the paper).
        buffer_batches (`int`, *optional*, defaults to 4): B, how many past batches the latent action buffer holds. With
            gradient accumulation these, as the steps of `cycle_ramp_steps` and `dead_code_steps`, are of one forward each.
        buffer_batch_size (`int`, *optional*, defaults to 256): Actions kept of each of them, at most: of a larger batch an
            even subsample. A fixed shape lets a checkpoint hold the buffer.
        buffer_sampling (`"uniform"` or `"distinct"`, *optional*, defaults to `"distinct"`): Draw entries as they come
            (the paper), or every *distinct* action equally often (not in the paper). By frequency, the commonest action is also the
            safest answer, and the codebook collapses towards it.
        reconstruction_weight, codebook_weight, commitment_weight, cycle_weight, adversarial_weight (`float`):
            Weights of the loss terms (open in the paper). `cycle_weight=0, adversarial_weight=0` is the Genie
            objective.
        reconstruction_distance (`"l2"` or `"l1"`, *optional*, defaults to `"l2"`): Mean squared or mean absolute error of the
            pixels (open in the paper).
        motion_weight (`float`, *optional*, defaults to 1.0): Extra weight of places that move, as a multiple of their
            share of the mean squared change, each averaged over about a patch; 0 is the plain mean squared error.
            Without it a static background outvotes the small part of the picture that an action is about (the distance is
            open in the paper).
        residual_decoder (`bool`, *optional*, defaults to `True`): Whether the decoder predicts the *change* of the
            current frame, so that it starts as a copy (open in the paper).
        num_motions (`int`, *optional*, defaults to 0): Motions by which the decoder makes the future frame before it draws what
            is left to change (a departure from the paper): the current frame alone decides which parts go along with each,
            the action alone where each goes. An action then moves every body alike. 0, the paper's decoder, draws all.
        motion_reach (`float`, *optional*, defaults to 0.2): Farthest that such a motion goes along a side, as a share of it.
        cycle_temperature (`float`, *optional*, defaults to 0.1): τ of L_C (open in the paper). Words of unit length are
            at most 2 apart: with τ = 1 the softmax could not tell them apart, however well the cycle is closed.
        cycle_start_copy_ratio (`float`, *optional*, defaults to 0.6): AC3 joins once the reconstruction loss has
            fallen below this share of the loss of copying the current frame. Earlier, when the codes carry no motion
            yet, it collapses the codebook. It is asked every 20 steps; with `1.0` or more AC3 joins as soon as the buffer holds a
            batch (not in the paper).
        cycle_ramp_steps (`int`, *optional*, defaults to 200): Steps over which the weights of AC3 rise to full, from when
            the ratio has fallen that far (not in the paper).
        generated_share (`float`, *optional*, defaults to 1.0): Share of a batch's frames on which actions of the buffer are
            played, all of them in the paper. With a quarter, AC3 adds a quarter of the operations to a step.
        cycle_trains_decoder (`bool`, *optional*, defaults to `True`): Whether the gradient of L_C reaches D through the
            generated frame, as in the paper. Otherwise E alone learns from the cycle: D has no reason to leave marks for
            it, and Ψ can be spared. Without Ψ, D then generates without gradients, and a step costs less.
        generated_noise_std (`float`, *optional*, defaults to 0.02): Noise on the generated frame before it is encoded
            again, in units of the normalised pixels: invisible marks do not survive it (not in the paper).
        dead_code_steps (`int`, *optional*, defaults to 50): A word unused for this many steps is moved onto an
            embedding that the codebook serves badly; 0 switches that off (not in the paper).
        interval_s, min_interval_s (`float`, *optional*): Seconds between the frames of the pairs that it was trained on, and of
            the shortest; its Trainer writes them down. `None` where nobody has, or where data sets had intervals of their own.
        hidden_act (`str`, *optional*, defaults to `"gelu"`), layer_norm_eps (`float`, *optional*, defaults to 1e-6): As in
            every transformer.
        initializer_range (`float`, *optional*, defaults to `hidden_size ** -0.5`): Standard deviation of weights before
            training. A layer of this width then keeps the size of what it is given; with the usual 0.02, small
            encoders hardly learn to compare two frames.

    Raises:
        ValueError: a size below one, a weight or a number of steps below zero, `image_size` no multiple of `patch_size`, its own and the vision model's, `hidden_size` no multiple of
            `num_attention_heads`, a `vision_config` that transformers does not know or that has no patches, an unknown
            argument.

    Example:

    ```python
    >>> from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerModel

    >>> config = LatentActionTokenizerConfig(
    ...     image_size=64, patch_size=8, vision_config=None, hidden_size=64, num_attention_heads=4,
    ...     num_encoder_layers=2, num_decoder_layers=2, codebook_dim=16,
    ... )
    >>> model = LatentActionTokenizerModel(config)
    ```"""

    model_type = "latent_action_tokenizer"
    sub_configs = {"vision_config": AutoConfig}

    image_size: int = 224
    num_channels: int = 3
    vision_config: dict[str, Any] | PreTrainedConfig | str | None = DEFAULT_VISION_MODEL_TYPE
    patch_size: int = 14
    freeze_vision: bool = True
    hidden_size: int = 768
    intermediate_size: int | None = None
    num_attention_heads: int = 12
    num_encoder_layers: int = 12
    num_decoder_layers: int = 12
    num_discriminator_layers: int = 12
    discriminator_heads: Literal["local", "global", "local-global"] = "local-global"
    codebook_size: int = 16
    num_latent_tokens: int = 4
    codebook_dim: int = 128
    normalize_codebook: bool = True
    standardize_embeddings: bool = True
    buffer_batches: int = 4
    buffer_batch_size: int = 256
    buffer_sampling: Literal["uniform", "distinct"] = "distinct"
    reconstruction_weight: float | int = 1.0
    codebook_weight: float | int = 1.0
    commitment_weight: float | int = 0.25
    cycle_weight: float | int = 0.01
    adversarial_weight: float | int = 0.01
    reconstruction_distance: Literal["l2", "l1"] = "l2"
    motion_weight: float | int = 1.0
    residual_decoder: bool = True
    num_motions: int = 0
    motion_reach: float | int = 0.2
    cycle_temperature: float | int = 0.1
    cycle_start_copy_ratio: float | int = 0.6
    cycle_ramp_steps: int = 200
    generated_share: float | int = 1.0
    cycle_trains_decoder: bool = True
    generated_noise_std: float | int = 0.02
    dead_code_steps: int = 50
    interval_s: float | int | None = None
    min_interval_s: float | int | None = None
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    initializer_range: float | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)
        # A saved config names its transformers version, and may hold what Trainer or another version added to it.
        unknown = sorted(kwargs.keys() - _LIBRARY_ARGUMENTS) if self.transformers_version is None else []
        if unknown:
            allowed = sorted(type(self).__annotations__)
            raise ValueError(f"Unknown argument(s) {unknown} of {type(self).__name__}; allowed: {allowed}.")
        if isinstance(self.vision_config, str):
            self.vision_config = {"model_type": self.vision_config}
        if isinstance(self.vision_config, dict):
            sizes = {"image_size": self.image_size, "patch_size": self.patch_size, "num_channels": self.num_channels}
            self.vision_config = _config_from_dict(self.vision_config, sizes)
        elif self.vision_config is not None:
            # A config resets the attention implementation of those inside it: of a living model, that would be its own.
            self.vision_config = copy.deepcopy(self.vision_config)
            attention = self.vision_config._attn_implementation
            kwargs.setdefault("attn_implementation", {"": attention, "vision_config": attention})
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        self._check()
        if self.initializer_range is None:
            self.initializer_range = self.hidden_size**-0.5
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """
        As transformers' own, and what `kwargs` change is checked as it is on construction.

        Args:
            config_dict (`dict`): Fields.
            kwargs: Fields in place of those, as `from_pretrained` passes them on.

        Raises:
            ValueError: fields that do not fit.
        """
        found = super().from_dict(config_dict, **kwargs)
        # They have been set without the questions that `__post_init__` asks.
        (found[0] if isinstance(found, tuple) else found)._check()
        return found

    @property
    def auto_map(self) -> dict[str, str]:
        """The code beside a checkpoint's weights, for the Auto classes where the package is not installed."""
        # A copy: transformers writes into it what holds for classes of one Auto class.
        return dict(_AUTO_MAP)

    def to_dict(self) -> dict[str, Any]:
        values = {**super().to_dict(), "auto_map": self.auto_map}
        # Where the vision model was loaded from may be a path of this machine.
        values["vision_config"] = _without_names(values["vision_config"])
        return values

    @property
    def grid_size(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def motion_radius(self) -> int:
        """Farthest that a motion of the decoder goes along a side, in pixels."""
        return max(1, round(self.motion_reach * self.image_size))

    @property
    def uses_ac3(self) -> bool:
        """Whether any term of action-centric cycle consistency has a weight."""
        return self.cycle_weight > 0 or self.adversarial_weight > 0

    @property
    def generated_trains_decoder(self) -> bool:
        """Whether D learns by the frames that it generates of the buffer's actions."""
        return self.adversarial_weight > 0 or (self.cycle_weight > 0 and self.cycle_trains_decoder)

    def _check(self) -> None:
        for name in _SIZES:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        for name in _NOT_NEGATIVE:
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(f"`hidden_act` must be one of {sorted(ACT2FN)}, got {self.hidden_act!r}.")
        if self.codebook_size < 2:
            raise ValueError(f"`codebook_size` must be at least 2, got {self.codebook_size}.")
        if self.codebook_dim < 2 and self.normalize_codebook:
            raise ValueError(
                "`codebook_dim` must be at least 2 with `normalize_codebook`, as there are two words of unit length in one "
                f"dimension, got {self.codebook_dim}."
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"`image_size` must be a multiple of `patch_size` ({self.patch_size}), got {self.image_size}."
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads` ({self.num_attention_heads}), "
                f"got {self.hidden_size}."
            )
        if self.num_motions < 0 or (self.num_motions > 0 and not self.residual_decoder):
            raise ValueError(
                "`num_motions` must be at least 0, and 0 where `residual_decoder` is false, "
                f"got {self.num_motions} with {self.residual_decoder}."
            )
        times = self.min_interval_s, self.interval_s
        if times != (None, None) and (None in times or not 0 < times[0] <= times[1]):
            raise ValueError(
                "`min_interval_s` and `interval_s` must both be left out, or be above 0 and ascend, got "
                f"{times[0]} and {times[1]}."
            )
        for name in ("motion_reach", "generated_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in (0, 1], got {getattr(self, name)}.")
        if not 0 < self.cycle_temperature < float("inf"):
            raise ValueError(f"`cycle_temperature` must be above 0, got {self.cycle_temperature}.")
        if self.vision_config is not None:
            sizes = [getattr(self.vision_config, name, None) for name in ("hidden_size", "patch_size")]
            if not all(isinstance(size, int) for size in sizes):
                raise ValueError(
                    "`vision_config` must be of a model with patch tokens, with `hidden_size` and `patch_size`, "
                    f"got {type(self.vision_config).__name__}."
                )
            if self.image_size % sizes[1]:
                raise ValueError(
                    f"`image_size` must be a multiple of the vision model's `patch_size` ({sizes[1]}), whose patches would leave "
                    f"its border out, got {self.image_size}."
                )


def _config_from_dict(values: dict[str, Any], sizes: dict[str, Any]) -> PreTrainedConfig:
    """The config of `values`; `sizes` stand in for what `values` leave out, where this kind of model has them."""
    values = dict(values)
    model_type = values.pop("model_type", DEFAULT_VISION_MODEL_TYPE)
    if model_type not in CONFIG_MAPPING:
        raise ValueError(
            f"`vision_config` must have a `model_type` that transformers knows (such as 'dinov2'), got {model_type!r}."
        )
    kind = CONFIG_MAPPING[model_type]
    known = {*dir(kind), *inspect.signature(kind.__init__).parameters}
    return kind(**{name: size for name, size in sizes.items() if name in known} | values)


def _without_names(values: Any) -> Any:
    """A nested configuration as a dictionary, without the names that its parts were loaded by; what is none, as it is."""
    if not isinstance(values, dict):
        return values
    return {key: _without_names(value) for key, value in values.items() if key != "_name_or_path"}


__all__ = ["LatentActionTokenizerConfig"]
