# SPDX-License-Identifier: Apache-2.0
"""Most cases run in a fresh process: what counts is the order of imports."""

from __future__ import annotations

import pytest
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForPreTraining, AutoProcessor

import cyclemimic

TOKENIZER = "cyclemimic.models.latent_action_tokenizer"
POLICY = "cyclemimic.models.cyclemimic"

CHECK = """
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForPreTraining, AutoProcessor
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

tokenizer, policy = CONFIG_MAPPING["latent_action_tokenizer"], CONFIG_MAPPING["cyclemimic"]
print(
    tokenizer.__name__,
    policy.__name__,
    AutoModel._model_mapping[tokenizer].__name__,
    AutoModel._model_mapping[policy].__name__,
    AutoModelForPreTraining._model_mapping[tokenizer].__name__,
    AutoModelForPreTraining._model_mapping[policy].__name__,
    IMAGE_PROCESSOR_MAPPING[tokenizer]["pil"].__name__,
    PROCESSOR_MAPPING[policy].__name__,
    AutoModel._model_mapping[CONFIG_MAPPING["prismatic"]].__name__,
    AutoModelForImageTextToText._model_mapping[CONFIG_MAPPING["prismatic"]].__name__,
)
"""
EXPECTED = [
    "LatentActionTokenizerConfig",
    "CycleMimicConfig",
    "LatentActionTokenizerModel",
    "CycleMimicForActionPrediction",
    "LatentActionTokenizerForPreTraining",
    "CycleMimicForLatentActionPrediction",
    "LatentActionTokenizerImageProcessor",
    "CycleMimicProcessor",
    "PrismaticModel",
    "PrismaticForConditionalGeneration",
]


@pytest.mark.parametrize(
    "first_imports",
    [
        pytest.param("import cyclemimic.auto_registration as a; a.install()", id="package-first-and-twice"),
        pytest.param(
            "import contextlib, cyclemimic\nwith contextlib.suppress(ImportError): import transformers.absent",
            id="after-a-failed-import",
        ),
        pytest.param("from transformers import AutoModel, AutoProcessor; import cyclemimic", id="auto-classes-first"),
        # These import an Auto class while they are half executed themselves.
        pytest.param(f"import {TOKENIZER}.modeling_latent_action_tokenizer", id="tokenizer-model-first"),
        pytest.param(f"import {POLICY}.processing_cyclemimic", id="processor-first"),
    ],
)
def test_auto_classes_know_the_model_types(run_python, first_imports):
    assert run_python(first_imports + "\n" + CHECK).stdout.split() == EXPECTED


def test_other_transformers_imports_stay_as_they_were(run_python):
    program = "import sys, cyclemimic, transformers.configuration_utils; print(*sys.modules, sep='\\n')"
    modules = run_python(program).stdout.split()
    assert not [name for name in modules if name.startswith(("cyclemimic.models", "transformers.models.auto"))]


def test_watched_modules_keep_their_loader(run_python):
    program = """
import cyclemimic, importlib, importlib.util, inspect
print("class HfArgumentParser" in importlib.util.find_spec("transformers.hf_argparser").loader.get_source("transformers.hf_argparser"))
from transformers.models.auto import configuration_auto
print(type(configuration_auto.__loader__).__name__, type(configuration_auto.__spec__.loader).__name__)
print("class AutoConfig" in inspect.getsource(configuration_auto))
print("cyclemimic" in importlib.reload(configuration_auto).CONFIG_MAPPING)
"""
    assert run_python(program).stdout.split() == ["True", "SourceFileLoader", "SourceFileLoader", "True", "True"]


def test_saved_folders_load_through_the_auto_classes(tmp_path):
    config = cyclemimic.LatentActionTokenizerConfig(
        image_size=16,
        vision_config=None,
        patch_size=8,
        hidden_size=16,
        num_attention_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_discriminator_layers=1,
    )
    cyclemimic.LatentActionTokenizerForPreTraining(config).save_pretrained(tmp_path / "tokenizer")
    cyclemimic.LatentActionTokenizerImageProcessor().save_pretrained(tmp_path / "tokenizer")
    cyclemimic.CycleMimicProcessor.from_texts(["reach"], image_size=32).save_pretrained(tmp_path / "policy")
    loaded = [
        auto_class.from_pretrained(tmp_path / folder)
        for auto_class, folder in [
            (AutoConfig, "tokenizer"),
            (AutoModel, "tokenizer"),
            (AutoModelForPreTraining, "tokenizer"),
            (AutoImageProcessor, "tokenizer"),
            (AutoProcessor, "policy"),
        ]
    ]
    assert [type(instance) for instance in loaded] == [
        cyclemimic.LatentActionTokenizerConfig,
        cyclemimic.LatentActionTokenizerModel,
        cyclemimic.LatentActionTokenizerForPreTraining,
        cyclemimic.LatentActionTokenizerImageProcessor,
        cyclemimic.CycleMimicProcessor,
    ]
