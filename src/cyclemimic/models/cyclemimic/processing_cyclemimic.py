# SPDX-License-Identifier: Apache-2.0
"""Processor of the policy: images, instructions, latent actions and robot actions in; batches and robot actions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    BatchFeature,
    GPT2Tokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    SiglipImageProcessorPil,
)
from transformers.processing_utils import ImagesKwargs, ProcessingKwargs
from transformers.utils import logging

from .configuration_cyclemimic import CycleMimicConfig, check_camera_names
from .image_batches_cyclemimic import ImageBatches, is_image
from .normalization_cyclemimic import bounds_of, checked_statistics, denormalize, normalize, resolve_dataset
from .padding_cyclemimic import PADDING
from .prompts_cyclemimic import clean_instruction, encode_prompt, lay_out, template_of_cameras

logger = logging.get_logger(__name__)

MAX_CACHED_PROMPTS = 4096
# Sizes that the model's config has too, under the same names.
SHARED_SIZES = ("num_image_tokens", "codebook_size", "num_latent_tokens", "num_act_tokens", "chunk_size", "action_dim")
# All that a config takes from the processor.
CONFIG_FIELDS = (
    *(*SHARED_SIZES, "state_dim", "camera_names", "num_action_bins", "image_token_id"),
    *("latent_token_ids", "act_token_ids", "action_bin_token_ids"),
)
_AUTO_MAP = {"AutoProcessor": "processing_cyclemimic.CycleMimicProcessor"}
DEFAULT_PROMPT_TEMPLATE = "{image}In: What action should the robot take to {instruction}?\nOut:"


class CycleMimicProcessor(ProcessorMixin):
    r"""
    Turns what a robot sees and is told into a batch for [`CycleMimicForLatentActionPrediction`] and
    [`CycleMimicForActionPrediction`], and normalised actions back into physical ones. The tokens `<LACT_0>` …
    `<LACT_{K-1}>` (one a latent action word) and `<ACT_0>` … (action queries) are added to `tokenizer`, in place,
    where it lacks them.

    A batch holds, with B samples of L tokens on an image processor of H × W pixels:

    | key | dtype, shape | content |
    |---|---|---|
    | `pixel_values` | float32 (B, 3, H, W) | as the image processor normalises; in its own form, but B first |
    | `image_grid_thw` … | (B, …) | what else it makes for its backbone, where it does: see `IMAGE_INPUTS` |
    | `input_ids` | int64 (B, L) | image placeholders, prompt, and N latent action tokens where they are given |
    | `attention_mask` | int64 (B, L) | 0 at padding, on the side of `padding_side` |
    | `labels` | int64 (B, L) | with `latent_actions`: their token ids at their positions, -100 elsewhere |
    | `actions` | float32 (B, T, A) | with `actions`: normalised to [-1, 1] |
    | `actions_mask` | bool (B, T) | with `actions`: False past the end of an episode |
    | `robot_state` | float32 (B, S) | with `robot_state`: normalised to [-1, 1] |

    Without `latent_actions` the batch is the inference prompt. The ACT query tokens are appended by the model. Of several
    cameras, `pixel_values`, `image_grid_thw` … have one more axis, (B, number of cameras, …), and the prompt holds the
    image's placeholders once a camera, with the marks that the template has around them.

    Args:
        image_processor ([`BaseImageProcessor`]): The backbone's.
        tokenizer ([`PreTrainedTokenizerBase`]): The backbone's.
        num_image_tokens (`int`, *optional*, defaults to 256): Placeholders that an image takes in `input_ids`.
        image_token (`str`, *optional*, defaults to `"<image>"`): The placeholder; the tokenizer must have it.
        codebook_size (`int`, *optional*, defaults to 16), num_latent_tokens (`int`, *optional*, defaults to 4),
            num_act_tokens (`int`, *optional*, defaults to 1), chunk_size (`int`, *optional*, defaults to 12),
            action_dim (`int`, *optional*, defaults to 7): As in [`CycleMimicConfig`].
        prompt_template (`str`, *optional*): With `{image}` and `{instruction}`, each once; the instruction is put
            there in lower case. Defaults to UniVLA's prompt.
        action_statistics (`dict[str, dict]`, *optional*): Data set name to its statistics: `q01` and `q99`, lists of
            `action_dim` physical values, and optionally `mask`, False where a dimension is left alone. Saved in
            `processor_config.json`.
        state_dim (`int`, *optional*): As in [`CycleMimicConfig`]; without, there is no robot state.
        state_statistics (`dict[str, dict]`, *optional*): As `action_statistics`, of `state_dim` values, for the same data
            sets.
        camera_names (`list[str]`, *optional*): As in [`CycleMimicConfig`]; with several, a sample has as many images.
        square_size (`int`, *optional*): Images are resized to squares of so many pixels first. For image processors that
            keep an image's proportions, and so make more tokens of some images than of others.
        num_action_bins (`int`, *optional*): Adds `<BIN_0>` …, words for actions, for a policy whose `action_decoding` is
            `"discrete"`.
        chat_template (`str`, *optional*): Kept for the backbone's own use.

    Raises:
        ValueError: a size below one, a tokenizer without the image token or a padding token, a template without its
            two fields, statistics of the wrong form.

    Example:

    ```python
    >>> import numpy as np
    >>> from cyclemimic import CycleMimicProcessor

    >>> processor = CycleMimicProcessor.from_texts(["open the drawer"], image_size=32, patch_size=16)
    >>> batch = processor(np.zeros((32, 32, 3), np.uint8), "open the drawer", latent_actions=[[3, 0, 15, 7]])
    >>> sorted(batch)
    ['attention_mask', 'input_ids', 'labels', 'pixel_values']
    ```"""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        num_image_tokens: int = 256,
        image_token: str = "<image>",
        codebook_size: int = 16,
        num_latent_tokens: int = 4,
        num_act_tokens: int = 1,
        chunk_size: int = 12,
        action_dim: int = 7,
        prompt_template: str = DEFAULT_PROMPT_TEMPLATE,
        action_statistics: Mapping[str, Mapping[str, Any]] | None = None,
        square_size: int | None = None,
        chat_template: str | None = None,
        state_dim: int | None = None,
        state_statistics: Mapping[str, Mapping[str, Any]] | None = None,
        camera_names: Sequence[str] | None = None,
        num_action_bins: int | None = None,
    ) -> None:
        self.num_image_tokens = num_image_tokens
        self.image_token = image_token
        self.codebook_size = codebook_size
        self.num_latent_tokens = num_latent_tokens
        self.num_act_tokens = num_act_tokens
        self.chunk_size = chunk_size
        self.action_dim = action_dim
        self.prompt_template = prompt_template
        self.square_size = square_size
        self.num_action_bins = num_action_bins
        self.state_dim = state_dim
        self.camera_names = None if camera_names is None else list(camera_names)
        self.action_statistics: dict[str, dict[str, list]] = {}
        self.state_statistics: dict[str, dict[str, list]] = {}
        self._check_arguments()
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self._add_tokens()
        for dataset, statistics in (action_statistics or {}).items():
            self.add_action_statistics(dataset, statistics)
        for dataset, statistics in (state_statistics or {}).items():
            self.add_state_statistics(dataset, statistics)
        self._prompts: dict[tuple[Any, ...], torch.Tensor] = {}
        self._kept_image_batches = ImageBatches(self.image_processor, square_size)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        image_size: int = 128,
        patch_size: int = 16,
        vocab_size: int = 512,
        **kwargs: Any,
    ) -> CycleMimicProcessor:
        """
        Build a processor for a backbone trained from scratch (see [`make_tiny_backbone_config`]): a byte-level BPE
        tokenizer trained on the prompts of `texts`, which can still spell any other text, and an image processor
        that scales pixels to [-1, 1].

        Args:
            texts (`Sequence[str]`): Instructions, repeats welcome.
            image_size, patch_size (`int`): In pixels; one image token a patch.
            vocab_size (`int`): Upper bound of the text vocabulary, at least 260.
            kwargs: Further arguments of [`CycleMimicProcessor`].

        Raises:
            ValueError: `texts` is empty or holds an empty instruction; `image_size` is no multiple of `patch_size`.
        """
        if not texts or isinstance(texts, str):
            raise ValueError(f"`texts` must be a list of at least one instruction, got {texts!r}.")
        if image_size % patch_size:
            raise ValueError(f"`image_size` must be a multiple of `patch_size` ({patch_size}), got {image_size}.")
        template = kwargs.get("prompt_template", DEFAULT_PROMPT_TEMPLATE)
        image_token = kwargs.get("image_token", "<image>")
        prompts = [template.replace("{image}", "").replace("{instruction}", clean_instruction(text)) for text in texts]
        tokenizer = GPT2Tokenizer(vocab={}, merges=[]).train_new_from_iterator(
            prompts, vocab_size=vocab_size, new_special_tokens=["<pad>", image_token], show_progress=False
        )
        tokenizer.pad_token = "<pad>"
        return cls(
            image_processor=SiglipImageProcessorPil(size={"height": image_size, "width": image_size}),
            tokenizer=tokenizer,
            num_image_tokens=(image_size // patch_size) ** 2,
            **kwargs,
        )

    @property
    def auto_map(self) -> dict[str, str]:
        """The code beside the settings, for the Auto class where the package is not installed."""
        # A copy: transformers writes into it as it saves.
        return dict(_AUTO_MAP)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "auto_map": self.auto_map}

    @property
    def _image_batches(self) -> ImageBatches:
        """Those of the image processor as it is now: a caller may have changed it, or put another one here."""
        if not self._kept_image_batches.is_of(self.image_processor, self.square_size):
            self._kept_image_batches = ImageBatches(self.image_processor, self.square_size)
        return self._kept_image_batches

    @property
    def num_cameras(self) -> int:
        """Images of a sample."""
        return 1 if self.camera_names is None else len(self.camera_names)

    @property
    def image_token_id(self) -> int:
        """Id of the image placeholder."""
        return self.tokenizer.convert_tokens_to_ids(self.image_token)

    @property
    def latent_token_ids(self) -> list[int]:
        """Ids of `<LACT_0>` … `<LACT_{K-1}>`, in this order."""
        return self.tokenizer.convert_tokens_to_ids([f"<LACT_{k}>" for k in range(self.codebook_size)])

    @property
    def act_token_ids(self) -> list[int]:
        """Ids of `<ACT_0>` …, in this order."""
        return self.tokenizer.convert_tokens_to_ids([f"<ACT_{k}>" for k in range(self.num_act_tokens)])

    @property
    def action_bin_token_ids(self) -> list[int] | None:
        """Ids of `<BIN_0>` …, in this order, where there are any."""
        if self.num_action_bins is None:
            return None
        return self.tokenizer.convert_tokens_to_ids([f"<BIN_{k}>" for k in range(self.num_action_bins)])

    def make_config(self, backbone_config: dict[str, Any] | PreTrainedConfig, **kwargs: Any) -> CycleMimicConfig:
        """The config of a policy on `backbone_config` that reads this processor's batches; `kwargs` go to
        [`CycleMimicConfig`]."""
        arguments = {name: getattr(self, name) for name in CONFIG_FIELDS}
        return CycleMimicConfig(backbone_config=backbone_config, **{**arguments, **kwargs})

    def __call__(
        self,
        images: Any,
        text: str | Sequence[str],
        latent_actions: Any = None,
        actions: Any = None,
        actions_mask: Any = None,
        dataset: str | Sequence[str] | None = None,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str = "pt",
        robot_state: Any = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            images: One image or a list of B: PIL images, or arrays or tensors, uint8 or floats from 0 to 1, of shape
                `(height, width, 3)` or `(3, height, width)`. Of several cameras, a list of an image each, in the order of
                `camera_names`, or a mapping from them, or a list of B such lists or mappings.
            text (`str` or `Sequence[str]`): B instructions.
            latent_actions (integers of shape `(B, num_latent_tokens)`, *optional*): Codes in `[0, codebook_size)`.
            actions (floats of shape `(B, chunk_size, action_dim)`, *optional*): In physical units. Normalised by
                `q01` and `q99` to [-1, 1] and clipped there, as OpenVLA and UniVLA do.
            actions_mask (booleans of shape `(B, chunk_size)`, *optional*): False where an action is not to be learned, whatever
                it is.
            dataset (`str` or `Sequence[str]`, *optional*): Whose statistics to use, one name for all samples or one a
                sample; may be left out where there is only one.
            padding_side (`"left"` or `"right"`, *optional*, defaults to the tokenizer's).
            pad_to_multiple_of (`int`, *optional*): Pad the tokens to a multiple of this, so that instructions of about one
                length make batches of one shape: what is compiled is compiled once a shape.
            return_tensors (`"pt"`): Torch tensors are the only form.
            robot_state (floats of shape `(B, state_dim)`, *optional*): In physical units, normalised as actions are.
            kwargs: As transformers' processors take them, plain or in `text_kwargs`, `images_kwargs` and `common_kwargs`: how
                prompts are padded (`padding="max_length"` with `max_length`; none is ever cut), and arguments of the image
                processor. A policy sees well only what is made as in its training.

        Returns:
            [`BatchFeature`]: as tabled above.

        Raises:
            ValueError: an argument of the wrong form; it names the argument, what is allowed, and what came.
        """
        _check_return_tensors(return_tensors)
        padding, images_kwargs = self._merged_arguments(
            padding_side=padding_side, pad_to_multiple_of=pad_to_multiple_of, **kwargs
        )
        image_batches = self._image_batches
        texts = [text] if isinstance(text, str) else list(() if text is None else text)
        images = image_batches.check(self._one_after_another(images, len(texts)))
        batch_size = len(images) // self.num_cameras
        if len(texts) != batch_size or not texts:
            raise ValueError(f"`text` must hold one instruction an image ({batch_size}), got {len(texts)}.")
        prompts = [self._encode_prompt(instruction) for instruction in texts]
        codes = None if latent_actions is None else self._check_codes(latent_actions, batch_size)
        data: dict[str, torch.Tensor] = {}
        if actions is not None:
            if codes is None:
                raise ValueError(
                    "`latent_actions` must come with `actions`: the policy predicts them first, got None."
                )
            data["actions"], data["actions_mask"] = self._encode_actions(actions, actions_mask, dataset, batch_size)
        if robot_state is not None:
            data["robot_state"] = self._encode_state(robot_state, dataset, batch_size)
        latent_tokens = None if codes is None else torch.tensor(self.latent_token_ids)[codes]
        data.update(lay_out(prompts, latent_tokens, self.tokenizer.pad_token_id, padding))
        encoded = image_batches.encode(images, **images_kwargs)
        if self.num_cameras > 1:
            encoded = {name: values.unflatten(0, (batch_size, self.num_cameras)) for name, values in encoded.items()}
        data.update(encoded)
        return BatchFeature(data)

    def add_action_statistics(self, dataset: str, statistics: Mapping[str, Any]) -> None:
        """
        Set the statistics of the data set named `dataset`; see `action_statistics`. Further keys (`mean`, `std` …) are kept. Other
        statistics that go by its name are replaced, which the log says: actions learnt by them come out differently.

        Raises:
            ValueError: `q01`, `q99` or `mask` missing or not of `action_dim` finite values, `q01` above `q99`, `mask` of
                others than booleans, an `fps` that is no number above 0, or no name.
        """
        self._add_statistics("action_statistics", self.action_dim, dataset, statistics)

    def add_state_statistics(self, dataset: str, statistics: Mapping[str, Any]) -> None:
        """
        Set the statistics of the robot states of the data set named `dataset`, as [`~CycleMimicProcessor.add_action_statistics`] does.

        Raises:
            ValueError: as there, with `state_dim` values, or without a `state_dim`.
        """
        if self.state_dim is None:
            raise ValueError(
                f"`state_dim` must be given for statistics of robot states, those of {dataset!r}, got None."
            )
        self._add_statistics("state_statistics", self.state_dim, dataset, statistics)

    def _add_statistics(self, kind: str, size: int, dataset: str, statistics: Mapping[str, Any]) -> None:
        if not isinstance(dataset, str) or not dataset:
            raise ValueError(f"`dataset` must be the name that `{kind}` go by, got {dataset!r}.")
        if not isinstance(statistics, Mapping):
            raise ValueError(f"`{kind}[{dataset!r}]` must be a mapping, got {type(statistics).__name__}.")
        known, plain = getattr(self, kind), checked_statistics(f"{kind}[{dataset!r}]", statistics, size)
        before = known.get(dataset, plain)
        if any(before.get(key) != plain.get(key) for key in ("q01", "q99", "mask")):
            logger.warning("the %s of %s are replaced by others", kind.replace("_", " "), dataset)
        known[dataset] = plain

    def resolve_dataset(self, dataset: str | None = None) -> str:
        """
        The name of the data set whose statistics are used: `dataset`, or the only one there is.

        Raises:
            ValueError: no statistics, none of this name, or several and no name.
        """
        return resolve_dataset("action_statistics", self.action_statistics, dataset)

    def post_process_actions(
        self, actions: torch.Tensor | np.ndarray, dataset: str | Sequence[str] | None = None
    ) -> np.ndarray:
        """
        Turn normalised actions into physical units. Values beyond [-1, 1] are clipped first, so a command never leaves
        the range `q01` … `q99` of the demonstrations; dimensions that the statistics leave alone pass unchanged.

        Args:
            actions (floats of shape `(B, chunk_size, action_dim)`): From
                [`CycleMimicForActionPrediction.predict_action_chunk`].
            dataset (`str` or `Sequence[str]`, *optional*): As in a call.

        Returns:
            `np.ndarray`: float32, of the same shape.

        Raises:
            ValueError: actions of another width or not finite, no statistics, or no such data set.
        """
        actions = _as_array("actions", actions).astype(np.float64)
        if actions.ndim == 0 or actions.shape[-1] != self.action_dim:
            raise ValueError(f"`actions` must have shape (batch, time, {self.action_dim}), got {actions.shape}.")
        _check_finite("actions", actions)
        return denormalize(actions, bounds_of("action_statistics", self.action_statistics, dataset, actions.shape))

    def resize_images(self, images: Any) -> np.ndarray:
        """
        Images as the image processor resizes and crops them, before it normalises: what data sets keep instead of
        full-size frames. Passing the result to the processor gives the batch that the originals give.

        Args:
            images: uint8 `(B, height, width, 3)`, or a list of images of one size, as in a call.

        Returns:
            `np.ndarray`: uint8 `(B, new_height, new_width, 3)`; the images as they are where the image processor would
            change resized ones again, because it resizes to more than it crops.
        """
        return self._image_batches.resize(images)

    def _check_arguments(self) -> None:
        given = [name for name in ("state_dim", "num_action_bins") if getattr(self, name) is not None]
        for name in (*SHARED_SIZES, *given):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")
        check_camera_names(self.camera_names)
        if self.square_size is not None and self.square_size < 1:
            raise ValueError(f"`square_size` must be at least 1, got {self.square_size}.")
        for field in ("{image}", "{instruction}"):
            if self.prompt_template.count(field) != 1:
                raise ValueError(f"`prompt_template` must hold {field} once, got {self.prompt_template!r}.")

    def _add_tokens(self) -> None:
        if self.image_token not in self.tokenizer.get_vocab():
            raise ValueError(f"`tokenizer` must have the image token {self.image_token!r}; got one without it.")
        if self.tokenizer.pad_token is None:
            if self.tokenizer.eos_token is None:
                raise ValueError("`tokenizer` must have a padding or an end-of-sequence token; got one without both.")
            self.tokenizer.pad_token = self.tokenizer.eos_token
        counts = {"LACT": self.codebook_size, "ACT": self.num_act_tokens, "BIN": self.num_action_bins or 0}
        wanted = [f"<{kind}_{k}>" for kind, count in counts.items() for k in range(count)]
        missing = sorted(set(wanted) - self.tokenizer.get_vocab().keys(), key=wanted.index)
        if missing:
            self.tokenizer.add_tokens(missing, special_tokens=True)

    def _merged_arguments(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of a call that say how prompts are padded, and those for the image processor."""
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        self._check_names(kwargs)
        merged = self._merge_kwargs(ProcessingKwargs, **kwargs)  # type: ignore[arg-type]  # the class, says its docstring
        text, images = merged["text_kwargs"], merged["images_kwargs"]
        for part in (text, images):
            _check_return_tensors(part.pop("return_tensors", "pt"))
        padding = {name: text[name] for name in PADDING if name in text}
        return {"padding_side": self.tokenizer.padding_side, **padding}, images

    def _check_names(self, arguments: Mapping[str, Any]) -> None:
        """An argument that transformers would ignore with a warning is a slip of the pen in a policy's input."""
        of_images = getattr(self.image_processor, "valid_kwargs", None) or ImagesKwargs
        known = {
            "text_kwargs": {*PADDING, "return_tensors"},
            "images_kwargs": {*ImagesKwargs.__annotations__, *of_images.__annotations__},
            "common_kwargs": {"return_tensors"},
        }
        unknown = arguments.keys() - known.keys() - set().union(*known.values())
        for part, names in known.items():
            unknown |= arguments.get(part, {}).keys() - names
        if unknown:
            raise ValueError(
                f"A call's further arguments must be of padding ({', '.join(PADDING)}) or the image processor's, "
                f"got {sorted(unknown)}."
            )

    def _encode_prompt(self, instruction: str) -> torch.Tensor:
        """Token ids of one prompt; instructions are few, so each is tokenised once."""
        instruction = clean_instruction(instruction)
        how = (self.prompt_template, self.image_token, self.num_image_tokens, self.num_cameras, id(self.tokenizer))
        known = (*how, instruction)
        if known not in self._prompts:
            template = template_of_cameras(self.prompt_template, self.tokenizer, self.num_cameras)
            prompt = encode_prompt(template, instruction, self.tokenizer, self.image_token, self.num_image_tokens)
            if len(self._prompts) >= MAX_CACHED_PROMPTS:
                self._prompts.clear()
            self._prompts[known] = prompt
        return self._prompts[known]

    def _check_codes(self, latent_actions: Any, batch_size: int) -> torch.Tensor:
        codes = torch.as_tensor(_as_array("latent_actions", latent_actions))
        if codes.dtype in (torch.uint16, torch.uint32, torch.uint64):  # which torch has, and compares not
            codes = codes.long()
        if codes.dtype.is_floating_point or codes.dtype == torch.bool:
            raise ValueError(f"`latent_actions` must be integers, got {codes.dtype}.")
        if codes.shape != (batch_size, self.num_latent_tokens):
            shape = (batch_size, self.num_latent_tokens)
            raise ValueError(f"`latent_actions` must have shape {shape}, got {tuple(codes.shape)}.")
        if codes.min() < 0 or codes.max() >= self.codebook_size:
            raise ValueError(
                f"`latent_actions` must be in [0, {self.codebook_size}), got {int(codes.min())} to {int(codes.max())}."
            )
        return codes.long()

    def _encode_actions(
        self, actions: Any, actions_mask: Any, dataset: str | Sequence[str] | None, batch_size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        actions = _as_array("actions", actions).astype(np.float64)
        shape = (batch_size, self.chunk_size, self.action_dim)
        if actions.shape != shape:
            raise ValueError(f"`actions` must have shape {shape}, got {actions.shape}.")
        mask = np.ones(shape[:2], dtype=bool) if actions_mask is None else _as_array("actions_mask", actions_mask)
        if mask.shape != shape[:2] or mask.dtype != bool:
            raise ValueError(f"`actions_mask` must be bool of shape {shape[:2]}, got {mask.dtype} of {mask.shape}.")
        # What is not to be learned may be NaN, which no mask would take out of a sum.
        actions = np.where(mask[..., None] | np.isfinite(actions), actions, 0.0)
        _check_finite("actions", actions)
        bounds = bounds_of("action_statistics", self.action_statistics, dataset, shape)
        normalised = normalize(actions, bounds)
        largest = np.abs(normalised * mask[..., None]).max()
        if self.num_action_bins is not None and largest > 1:
            raise ValueError(
                f"`actions` must be in [-1, 1] for `num_action_bins`, got {largest:g} where `mask` of `action_statistics` "
                "leaves them as they are."
            )
        return torch.from_numpy(normalised), torch.from_numpy(mask)

    def _encode_state(self, robot_state: Any, dataset: str | Sequence[str] | None, batch_size: int) -> torch.Tensor:
        if self.state_dim is None:
            raise ValueError("`robot_state` must be left out of a processor whose `state_dim` is None, got one.")
        states = _as_array("robot_state", robot_state).astype(np.float64)
        if batch_size == 1 and states.ndim == 1:
            states = states[None]
        shape = (batch_size, self.state_dim)
        if states.shape != shape:
            raise ValueError(f"`robot_state` must have shape {shape}, got {states.shape}.")
        _check_finite("robot_state", states)
        bounds = bounds_of("state_statistics", self.state_statistics, dataset, shape)
        return torch.from_numpy(normalize(states, bounds))

    def _one_after_another(self, images: Any, num_texts: int) -> Any:
        """The images of several cameras, those of a sample together; of one camera, as they are. Of several texts, a list of
        images has one a sample."""
        if self.num_cameras == 1 or images is None:
            return images
        if is_image(images) or isinstance(images, Mapping):
            images = [images]
        samples = [images] if len(images) and is_image(images[0]) and num_texts < 2 else list(images)
        samples = [[sample] if is_image(sample) else sample for sample in samples]
        samples = [self._in_order(sample) if isinstance(sample, Mapping) else sample for sample in samples]
        for sample in samples:
            is_several = isinstance(sample, list | tuple | np.ndarray | torch.Tensor)
            if not is_several or len(sample) != self.num_cameras:
                raise ValueError(
                    f"`images` must hold {self.num_cameras} a sample, of the cameras {self.camera_names}, got "
                    f"{len(sample) if is_several else type(sample).__name__}."
                )
        return [image for sample in samples for image in sample]

    def _in_order(self, sample: Mapping[str, Any]) -> list[Any]:
        """The images of a sample by the names of their cameras, in the order of these."""
        if sample.keys() != set(self.camera_names):
            raise ValueError(f"`images` must be of the cameras {self.camera_names}, got {list(sample)}.")
        return [sample[name] for name in self.camera_names]


def _check_return_tensors(return_tensors: str) -> None:
    if return_tensors != "pt":
        raise ValueError(f"`return_tensors` must be 'pt', got {return_tensors!r}.")


def _as_array(name: str, values: Any) -> np.ndarray:
    """An array of tensors, arrays, or (lists of) lists of them; rows that differ in length are the caller's error."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        return (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, list | tuple) and any(isinstance(row, list | tuple | torch.Tensor) for row in values):
        values = [_as_array(name, row) for row in values]
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"`{name}` must have rows of one shape, got a ragged list.") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"`{name}` must be numbers, got {array.dtype}.")
    return array


def _check_finite(name: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError(f"`{name}` must be finite, got {int((~np.isfinite(values)).sum())} values that are not.")


# With this, `save_pretrained` puts this module and its siblings beside the settings.
CycleMimicProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["CycleMimicProcessor"]
