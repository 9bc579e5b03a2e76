# SPDX-License-Identifier: Apache-2.0
"""The policy's processor and the tokenizer's image processor through transformers' common tests; what is left out says why."""

from __future__ import annotations

import unittest
from typing import Any

from PIL.Image import Image
from tests_of_transformers.test_image_processing_common import ImageProcessingTester, ImageProcessingTestMixin
from tests_of_transformers.test_processing_common import ProcessorTesterMixin

from cyclemimic import CycleMimicProcessor, LatentActionTokenizerImageProcessor

from .leaving_out import left_out

IN_THE_SIGNATURE = "`return_tensors` and padding stay in the signature, where they always were"


class CycleMimicProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = CycleMimicProcessor

    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        statistics = {"arm": {"q01": [-1.0, 0.0, 0.0], "q99": [1.0, 2.0, 4.0], "mask": [True, True, False]}}
        return {"num_image_tokens": 4, "chunk_size": 2, "action_dim": 3, "action_statistics": statistics}

    @classmethod
    def _setup_from_components(cls) -> CycleMimicProcessor:
        sizes = cls.prepare_processor_dict()
        del sizes["num_image_tokens"]  # which follows
        return CycleMimicProcessor.from_texts(["lower newer"], image_size=32, patch_size=16, **sizes)

    @classmethod
    def _setup_test_attributes(cls, processor: CycleMimicProcessor) -> None:
        """No image token in the tests' texts: the prompt's template places it."""

    test_call_arguments_default_none = left_out(IN_THE_SIGNATURE)
    test_call_arguments_not_in_processor_kwargs = left_out(IN_THE_SIGNATURE)
    test_processor_text_has_no_visual = left_out("every sample has its image: a policy does not act blind")
    test_subprocessor_defaults_preserved_by_kwargs_0_images = left_out(
        "prompts are padded as the call says, however the tokenizer pads texts of its own"
    )


class LatentActionTokenizerImageProcessingTester(ImageProcessingTester):
    """Small frames, of several sizes."""

    def __init__(self, parent: unittest.TestCase) -> None:
        super().__init__(parent, size=18, image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4])

    def _get_image_processing_classes(self) -> dict[str, type]:
        return dict.fromkeys(("pil", "torchvision"), LatentActionTokenizerImageProcessor)

    def prepare_image_processor_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("size", "image_mean", "image_std")}

    def prepare_image_inputs(self, *args: Any, torchify: bool = False, **kwargs: Any) -> list[Any]:
        """Channels last in tensors, too."""
        images = super().prepare_image_inputs(*args, torchify=torchify, **kwargs)
        return [image.permute(1, 2, 0) for image in images] if torchify else images

    def prepare_processor_inputs(self, **kwargs: Any) -> dict[str, Any]:
        return {"current": self.prepare_image_inputs(**kwargs)}

    def expected_output_image_shape(self, images: list[Image]) -> tuple[int, int, int]:
        return self.num_channels, self.size, self.size


class LatentActionTokenizerImageProcessingTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = LatentActionTokenizerImageProcessingTester
    test_cast_dtype = True

    test_call_numpy_4_channels = left_out("frames are RGB")
    test_backends_equivalence = left_out("fetches a picture; the test of a batch makes its own")
