# SPDX-License-Identifier: Apache-2.0
"""Both models, and the paper's backbone, through transformers' common tests; what is left out says why."""

from __future__ import annotations

import unittest
from typing import Any

import numpy as np
import torch
from tests_of_transformers.generation.test_utils import GenerationTesterMixin
from tests_of_transformers.test_modeling_common import ModelTesterMixin
from transformers import LlamaConfig

from cyclemimic import (
    CycleMimicConfig,
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    LatentActionTokenizerConfig,
    LatentActionTokenizerForPreTraining,
    LatentActionTokenizerModel,
    PrismaticConfig,
    PrismaticForConditionalGeneration,
)
from cyclemimic.models.cyclemimic import make_tiny_backbone_config

from ..models.cyclemimic.prismatic_checkpoints import TEXT, VISION
from .leaving_out import left_out

BATCH_SIZE = 3
ONE_OF_MANY = "a model of several transformers: which one's states or attentions would be meant?"
ONE_OF_TWO = "two towers, whose features come one beside the other"


class TokenizerTester:
    """A small tokenizer, and a batch of pairs."""

    is_training = True
    batch_size, seq_length = BATCH_SIZE, 16
    hidden_size, num_hidden_layers, num_attention_heads, image_size = 32, 2, 2, 16

    def get_config(self) -> LatentActionTokenizerConfig:
        return LatentActionTokenizerConfig(
            image_size=self.image_size,
            patch_size=4,
            vision_config=None,
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            num_encoder_layers=self.num_hidden_layers,
            num_decoder_layers=2,
            num_discriminator_layers=1,
            codebook_dim=8,
            # Without AC3 no part of the discriminator has a gradient, before AC3 joins just so.
            cycle_weight=0.0,
            adversarial_weight=0.0,
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[LatentActionTokenizerConfig, dict[str, torch.Tensor]]:
        frames = torch.rand(2, self.batch_size, 3, self.image_size, self.image_size)
        return self.get_config(), dict(zip(("pixel_values", "future_pixel_values"), frames))


class LatentActionTokenizerTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LatentActionTokenizerModel, LatentActionTokenizerForPreTraining)
    test_resize_embeddings = has_attentions = is_encoder_decoder = False

    def setUp(self) -> None:
        self.model_tester = TokenizerTester()

    test_hidden_states_output = left_out(ONE_OF_MANY)
    test_retain_grad_hidden_states_attentions = left_out(ONE_OF_MANY)
    test_model_outputs_equivalence = left_out("asks for hidden states; tuples are tested with the model")
    test_model_get_set_embeddings = left_out("frames come in, no words")
    test_load_save_without_tied_weights = left_out(
        "nothing is tied, and the configuration refuses fields it does not know"
    )
    test_torch_save_load = left_out("calls the state that it means to compare as a function")


class PolicyTester:
    """A small policy, and a batch of prompts with latent actions."""

    is_training = True
    batch_size = BATCH_SIZE
    hidden_size, num_hidden_layers, num_attention_heads, image_size = 32, 2, 1, 32

    def __init__(self) -> None:
        self.processor = CycleMimicProcessor.from_texts(
            ["go left", "go right"], image_size=self.image_size, patch_size=16, chunk_size=2, action_dim=3
        )
        self.seq_length = self.prepare_config_and_inputs_for_common()[1]["input_ids"].shape[1]

    def get_config(self) -> CycleMimicConfig:
        backbone = make_tiny_backbone_config(self.processor, self.image_size, 16, self.hidden_size, num_text_layers=2)
        sizes = {"action_decoder_hidden_size": 32, "action_decoder_num_heads": 2, "action_decoder_num_layers": 1}
        return self.processor.make_config(backbone, **sizes)

    def prepare_config_and_inputs_for_common(self) -> tuple[CycleMimicConfig, dict[str, torch.Tensor]]:
        random = np.random.default_rng(0)
        size = (self.image_size, self.image_size, 3)
        inputs = self.processor(
            images=[random.integers(0, 256, size, dtype=np.uint8) for _ in range(self.batch_size)],
            text=["go left"] * self.batch_size,
            latent_actions=torch.zeros(self.batch_size, 4, dtype=torch.long),
        )
        return self.get_config(), dict(inputs)


class PolicyTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (CycleMimicForLatentActionPrediction, CycleMimicForActionPrediction)
    test_resize_embeddings = has_attentions = is_encoder_decoder = False

    def setUp(self) -> None:
        self.model_tester = PolicyTester()

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False
    ) -> dict[str, Any]:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is CycleMimicForActionPrediction:
            inputs["actions"] = torch.zeros(BATCH_SIZE, 2, 3)
        return inputs

    test_hidden_states_output = left_out(ONE_OF_MANY)
    test_correct_missing_keys = left_out("makes a configuration without the tokens that its processor adds")
    test_tied_weights_keys = left_out("what is tied is the backbone's to say")


class PrismaticTester:
    """A small Prismatic, and a batch of an image and a text."""

    is_training = True
    batch_size, seq_length = BATCH_SIZE, 8
    hidden_size, num_hidden_layers, num_attention_heads, image_size = 32, 2, 2, 28
    image_token_id = 5

    def get_config(self) -> PrismaticConfig:
        text_config = LlamaConfig(**TEXT, vocab_size=64, pad_token_id=0)
        return PrismaticConfig(**VISION, text_config=text_config, image_token_id=self.image_token_id)

    def prepare_config_and_inputs_for_common(self) -> tuple[PrismaticConfig, dict[str, torch.Tensor]]:
        input_ids = torch.tensor([[1, *[self.image_token_id] * 4, 9, 10, 11]] * self.batch_size)
        pixel_values = torch.rand(self.batch_size, 3, self.image_size, self.image_size) * 2 - 1
        inputs = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), "pixel_values": pixel_values}
        return self.get_config(), inputs


class PrismaticTest(ModelTesterMixin, GenerationTesterMixin, unittest.TestCase):
    all_model_classes = (PrismaticForConditionalGeneration,)
    is_encoder_decoder = False

    def setUp(self) -> None:
        self.model_tester = PrismaticTester()

    def _prepare_for_class(
        self, inputs_dict: dict[str, Any], model_class: type, return_labels: bool = False
    ) -> dict[str, Any]:
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        return {**inputs, "labels": inputs["input_ids"]} if return_labels else inputs

    test_get_image_features_hidden_states = left_out(ONE_OF_TWO)
    test_get_image_features_attentions = left_out(ONE_OF_TWO)
    test_get_image_features_output_0 = left_out(ONE_OF_TWO)
    test_get_image_features_output_2 = left_out(ONE_OF_TWO)
    test_internal_model_config_and_subconfig_are_same = left_out(
        "a tower has a layer fewer than its configuration says, and a configuration of its own that says so"
    )
