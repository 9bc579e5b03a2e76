# SPDX-License-Identifier: Apache-2.0
"""Configuration of the policy."""

import copy
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, LlavaConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from .configuration_prismatic import PrismaticConfig, config_from_dict
from .tiny_vision_cyclemimic import TinyVisionConfig

# What a backbone may be or hold, and transformers does not know: this code also loads without the package. From a
# checkpoint's folder it is copied, and so read, once a file that is asked for: the first copy counts.
for config_class in (PrismaticConfig, TinyVisionConfig):
    if config_class.model_type not in CONFIG_MAPPING:
        AutoConfig.register(config_class.model_type, config_class)

# What transformers itself hands to a config beside its declared fields, on construction and when it loads one.
_LIBRARY_ARGUMENTS = {
    *("_attn_implementation_internal", "_commit_hash", "_experts_implementation_internal", "_name_or_path"),
    *("attn_implementation", "auto_map", "experts_implementation", "model_type", "name_or_path", "num_labels"),
    *("output_attentions", "quantization_config", "torch_dtype", "use_cache"),
}
_AUTO_MAP = {
    "AutoConfig": "configuration_cyclemimic.CycleMimicConfig",
    "AutoModel": "modeling_cyclemimic.CycleMimicForActionPrediction",
    "AutoModelForPreTraining": "modeling_cyclemimic.CycleMimicForLatentActionPrediction",
}
_SIZES = (
    *("codebook_size", "num_latent_tokens", "num_act_tokens", "chunk_size", "action_dim", "num_image_tokens"),
    "state_dim",
)
# Of the outputs, what is no array of a row a sample, or as large as the backbone's states.
_NOT_COLLECTED = [
    *("latent_action_loss", "action_loss", "latent_token_accuracy", "latent_action_accuracy"),
    *("hidden_states", "attentions"),
]
_DECODER_SIZES = ("action_decoder_hidden_size", "action_decoder_num_heads", "action_decoder_num_layers")


@strict
class CycleMimicConfig(PreTrainedConfig):
    r"""
    Configuration of [`CycleMimicForLatentActionPrediction`] and [`CycleMimicForActionPrediction`] (paper §4). Token
    ids come from the tokenizer that the processor has extended, so configs are best made by
    [`CycleMimicProcessor.make_config`].

    Args:
        backbone_config (`dict` or `PreTrainedConfig`, *optional*, defaults to `LlavaConfig()`):
            Any config that `AutoModelForImageTextToText` knows; a `dict` needs its `model_type`.
        codebook_size (`int`, *optional*, defaults to 16): K, the number of latent action words.
        num_latent_tokens (`int`, *optional*, defaults to 4): N, the words of one latent action.
        num_act_tokens (`int`, *optional*, defaults to 1): ACT query tokens appended after the latent action.
        chunk_size (`int`, *optional*, defaults to 12): T, the actions predicted at once.
        action_dim (`int`, *optional*, defaults to 7): A, the numbers in one action.
        state_dim (`int`, *optional*): The numbers in a robot state that the action decoder reads as one more token of
            its context; without, it reads none. Pretraining knows nothing of it (the paper leaves proprioception out).
        camera_names (`list[str]`, *optional*): Cameras whose images of one moment the policy sees, in this order; the first
            is the one that latent actions are of. Without, or with one name, it sees one image.
        num_image_tokens (`int`, *optional*): Placeholders of an image in `input_ids`. Needed by the action decoder.
        image_token_id (`int`, *optional*, defaults to the backbone's): Id of that placeholder.
        latent_token_ids (`list[int]`, *optional*): Vocabulary ids of `<LACT_0>` … `<LACT_{K-1}>`, in this order.
        act_token_ids (`list[int]`, *optional*): Vocabulary ids of `<ACT_0>` …, in this order.
        action_decoding (`"act"`, `"latent"` or `"discrete"`, *optional*, defaults to `"act"`): What actions are read from: the
            states of the ACT tokens (the paper); or its baselines (Table 4), the states of the latent action tokens, or
            words for bins of the normalised range, which follow the latent action one after the other, time step by time
            step, and need no action decoder (OpenVLA).
        num_action_bins (`int`, *optional*): With `"discrete"`: bins, and words, of a number.
        action_bin_token_ids (`list[int]`, *optional*): With `"discrete"`: ids of `<BIN_0>` …, in this order.
        action_decoder_context (`"image-act"` or `"act"`, *optional*, defaults to `"image-act"`): What the action
            decoder attends to: the image states and the ACT states (the paper), or the ACT states alone, which have
            read image, instruction and latent action. With a handful of demonstrations the first learns the pictures
            of the demonstrations by heart.
        action_decoder_hidden_size (`int`, *optional*, defaults to 512), action_decoder_num_heads (`int`, *optional*,
            defaults to 8), action_decoder_num_layers (`int`, *optional*, defaults to 2): Size of the action decoder
            (open in the paper; width and heads are UniVLA's).
        action_activation (`"identity"` or `"tanh"`, *optional*, defaults to `"identity"`): Last function of the action
            decoder. `"tanh"` (UniVLA) bounds the actions, but its gradient vanishes where demonstrations saturate.
        n_action_steps (`int`, *optional*, defaults to half of `chunk_size`): Actions of a chunk that are executed before
            the policy looks again.
        temporal_ensemble_coeff (`float`, *optional*): `select_action` looks before every action, and takes the mean of what
            all chunks so far say of it, chunk `i` weighted by `exp(-temporal_ensemble_coeff * i)`, the oldest being 0.
        latent_action_loss_weight, action_loss_weight (`float`, *optional*, default to 1.0): Weights of `L_π` and of
            the L1 regression loss. Both are means; where the paper prints `L_π` as a sum over the latent tokens, that is
            a weight of `num_latent_tokens`.

    Raises:
        ValueError: a size below one, a weight below zero, camera names that are not distinct, token ids that are not distinct, not in the vocabulary or not as many as the
            sizes say, a width that the heads do not divide, a `backbone_config` without `model_type`, an unknown
            argument.

    Example:

    ```python
    >>> from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
    >>> from cyclemimic.models.cyclemimic import make_tiny_backbone_config

    >>> processor = CycleMimicProcessor.from_texts(["open the drawer"], image_size=32, chunk_size=8, action_dim=4)
    >>> config = processor.make_config(make_tiny_backbone_config(processor, image_size=32, hidden_size=64))
    >>> model = CycleMimicForActionPrediction(config)
    ```"""

    model_type = "cyclemimic"
    sub_configs = {"backbone_config": AutoConfig}
    keys_to_ignore_at_inference = _NOT_COLLECTED

    backbone_config: dict[str, Any] | PreTrainedConfig | None = None
    codebook_size: int = 16
    num_latent_tokens: int = 4
    num_act_tokens: int = 1
    chunk_size: int = 12
    action_dim: int = 7
    state_dim: int | None = None
    camera_names: list[str] | None = None
    num_image_tokens: int | None = None
    image_token_id: int | None = None
    latent_token_ids: list[int] | None = None
    act_token_ids: list[int] | None = None
    action_decoding: Literal["act", "latent", "discrete"] = "act"
    num_action_bins: int | None = None
    action_bin_token_ids: list[int] | None = None
    action_decoder_context: Literal["image-act", "act"] = "image-act"
    action_decoder_hidden_size: int = 512
    action_decoder_num_heads: int = 8
    action_decoder_num_layers: int = 2
    action_activation: Literal["identity", "tanh"] = "identity"
    n_action_steps: int | None = None
    temporal_ensemble_coeff: float | int | None = None
    latent_action_loss_weight: float | int = 1.0
    action_loss_weight: float | int = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        kwargs.pop("auto_map", None)
        # A saved config names its transformers version, and may hold what Trainer or another version added to it.
        unknown = sorted(kwargs.keys() - _LIBRARY_ARGUMENTS) if self.transformers_version is None else []
        if unknown:
            allowed = sorted(type(self).__annotations__)
            raise ValueError(f"Unknown argument(s) {unknown} of {type(self).__name__}; allowed: {allowed}.")
        if self.backbone_config is None:
            self.backbone_config = LlavaConfig()
        elif isinstance(self.backbone_config, dict):
            self.backbone_config = config_from_dict("backbone_config", self.backbone_config)
        else:
            # A config resets the attention implementation of those inside it: of a living model, that would be its own.
            self.backbone_config = copy.deepcopy(self.backbone_config)
        # PEFT asks the outermost config.
        self.tie_word_embeddings = getattr(self.backbone_config, "tie_word_embeddings", False)
        if self.image_token_id is None:
            self.image_token_id = getattr(self.backbone_config, "image_token_id", None)
        self._check()
        # The base class sets the attention of all configs within, by default to none; the backbone's stays.
        attention = self.backbone_config._attn_implementation
        kwargs.setdefault("attn_implementation", {"": attention, "backbone_config": {"": attention}})
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

    @property
    def is_finetuned(self) -> bool:
        """Whether this is of a policy that can act: the action decoder of a pretraining checkpoint would be random."""
        return "CycleMimicForActionPrediction" in (self.architectures or [])

    @property
    def num_executed_steps(self) -> int:
        """Actions of a chunk that are executed before the policy looks again: `n_action_steps`, or half a chunk; one, where
        chunks are averaged (`temporal_ensemble_coeff`)."""
        if self.temporal_ensemble_coeff is not None:
            return 1
        return self.n_action_steps or max(1, self.chunk_size // 2)

    def to_dict(self) -> dict[str, Any]:
        values = {**super().to_dict(), "auto_map": self.auto_map}
        # Where the backbone was loaded from may be a path of this machine.
        values["backbone_config"] = _without_names(values["backbone_config"])
        return values

    @property
    def new_token_ids(self) -> list[int]:
        """Ids of all tokens that the processor adds to the backbone's."""
        return [
            *(self.latent_token_ids or []),
            *(self.act_token_ids or []),
            *(self.action_bin_token_ids or []),
        ]

    @property
    def hidden_size(self) -> int:
        """Width of the backbone's last layer; DeepSpeed's `"auto"` sizes ask for it."""
        return self.get_text_config().hidden_size

    @property
    def num_cameras(self) -> int:
        """Images that the policy sees at once."""
        return 1 if self.camera_names is None else len(self.camera_names)

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The backbone's text config: embeddings, vocabulary and cache are the backbone's."""
        if not isinstance(self.backbone_config, PreTrainedConfig):
            return self
        return self.backbone_config.get_text_config(decoder=decoder, encoder=encoder)

    def _check(self) -> None:
        self._check_sizes()
        self._check_execution()
        self._check_token_ids("latent_token_ids", self.codebook_size)
        self._check_token_ids("act_token_ids", self.num_act_tokens)
        self._check_action_bins()

    def _check_sizes(self) -> None:
        for name in ("latent_action_loss_weight", "action_loss_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}.")
        for name in (*_SIZES, *_DECODER_SIZES):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        check_camera_names(self.camera_names)
        if self.action_decoder_hidden_size % self.action_decoder_num_heads:
            raise ValueError(
                f"`action_decoder_hidden_size` must be a multiple of `action_decoder_num_heads` "
                f"({self.action_decoder_num_heads}), got {self.action_decoder_hidden_size}."
            )

    def _check_execution(self) -> None:
        if self.n_action_steps is not None and not 1 <= self.n_action_steps <= self.chunk_size:
            raise ValueError(
                f"`n_action_steps` must be in [1, {self.chunk_size}], the actions of a chunk, got {self.n_action_steps}."
            )
        if self.temporal_ensemble_coeff is None:
            return
        if not 0 <= self.temporal_ensemble_coeff < float("inf"):
            raise ValueError(f"`temporal_ensemble_coeff` must be at least 0, got {self.temporal_ensemble_coeff}.")
        if self.n_action_steps not in (None, 1):
            raise ValueError(
                "`n_action_steps` must be 1 or left out with `temporal_ensemble_coeff`, which looks before every action, "
                f"got {self.n_action_steps}."
            )

    def _check_action_bins(self) -> None:
        if self.num_action_bins is not None:
            if self.num_action_bins < 2:
                raise ValueError(f"`num_action_bins` must be at least 2, got {self.num_action_bins}.")
            self._check_token_ids("action_bin_token_ids", self.num_action_bins)
        if self.action_decoding != "discrete":
            return
        if self.num_action_bins is None or self.action_bin_token_ids is None:
            raise ValueError(
                "`num_action_bins` and `action_bin_token_ids` must come with `action_decoding` 'discrete', "
                f"got {self.num_action_bins} and {self.action_bin_token_ids}."
            )
        if self.state_dim is not None:
            raise ValueError(
                "`state_dim` must be left out with `action_decoding` 'discrete', which has no action decoder to read the "
                f"state, got {self.state_dim}."
            )

    def _check_token_ids(self, name: str, expected: int) -> None:
        ids = getattr(self, name)
        if ids is None:
            return
        vocab_size = self.get_text_config().vocab_size
        if len(set(ids)) != expected or len(ids) != expected or not all(0 <= token < vocab_size for token in ids):
            raise ValueError(
                f"`{name}` must be {expected} distinct ids below the backbone's vocabulary size {vocab_size}, got {ids}."
            )


def check_camera_names(names: list[str] | None) -> None:
    """Raises `ValueError` unless they are distinct texts, at least one, or not given."""
    if names is not None and (not names or not all(names) or len(set(names)) < len(names)):
        raise ValueError(f"`camera_names` must be distinct names, at least one, or left out, got {names}.")


def _without_names(values: Any) -> Any:
    """A nested configuration as a dictionary, without the names that its parts were loaded by; what is none, as it is."""
    if not isinstance(values, dict):
        return values
    return {key: _without_names(value) for key, value in values.items() if key != "_name_or_path"}


__all__ = ["CycleMimicConfig"]
