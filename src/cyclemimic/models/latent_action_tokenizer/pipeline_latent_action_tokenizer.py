# SPDX-License-Identifier: Apache-2.0
"""Latent actions by transformers' `pipeline`."""

from __future__ import annotations

from typing import Any

from transformers import Pipeline
from transformers.image_utils import load_image

from .rgb_images_latent_action_tokenizer import RGBImage


class LatentActionPipeline(Pipeline):
    """
    What happened between two frames, in words of the codebook. A pair is a tuple of frames: images, uint8 arrays, or paths and
    links of them; a list of pairs is answered in its order, `batch_size` at a time.

    ```python
    >>> import cyclemimic
    >>> from transformers import pipeline

    >>> read = pipeline("latent-actions", model="demo_output/tokenizer")  # doctest: +SKIP
    >>> read(("before.png", "after.png"))  # doctest: +SKIP
    {'codes': [3, 11, 0, 7]}
    ```"""

    model: Any
    _load_image_processor: Any = True
    _load_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False
    # Left open, transformers would look for one, and ask to trust the checkpoint's code for it.
    _load_video_processor: Any = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "encode"):
            raise ValueError(f"`model` must be a latent action tokenizer, got {type(self.model).__name__}.")

    def _sanitize_parameters(self, **pipeline_parameters: Any) -> tuple[dict[str, Any], ...]:
        if pipeline_parameters:
            raise ValueError(f"A pipeline of latent actions takes no parameters, got {sorted(pipeline_parameters)}.")
        return {}, {}, {}

    def preprocess(self, input_: tuple[RGBImage | str, RGBImage | str], **parameters: Any) -> Any:
        """
        The pair as the model reads it.

        Raises:
            ValueError: not a pair, or a frame that is none.
        """
        if not isinstance(input_, tuple) or len(input_) != 2:
            got = f"a tuple of {len(input_)}" if isinstance(input_, tuple) else type(input_).__name__
            raise ValueError(f"An input must be a tuple of two frames, current and future, got {got}.")
        current, future = (load_image(frame) if isinstance(frame, str) else frame for frame in input_)
        return self.image_processor(current, future)

    def _forward(self, input_tensors: dict[str, Any], **parameters: Any) -> Any:
        return {"codes": self.model.encode(**input_tensors).codes}

    def postprocess(self, model_outputs: Any, **parameters: Any) -> dict[str, list[int]]:
        """`{"codes": …}`, as many words as a latent action has."""
        return {"codes": model_outputs["codes"][0].tolist()}


__all__ = ["LatentActionPipeline"]
