# SPDX-License-Identifier: Apache-2.0
"""Learn robot actions from video: latent action tokenizer, policy pretraining on latent actions, action fine-tuning.

Public names are imported on first use, so that `import cyclemimic` costs neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from . import auto_registration

__version__ = "0.1.0"

# Module -> the public names it defines. The `TYPE_CHECKING` block below says the same to type checkers and editors.
_PUBLIC_NAMES = {
    "models.latent_action_tokenizer.configuration_latent_action_tokenizer": ["LatentActionTokenizerConfig"],
    "models.latent_action_tokenizer.image_processing_latent_action_tokenizer": ["LatentActionTokenizerImageProcessor"],
    "models.latent_action_tokenizer.modeling_latent_action_tokenizer": [
        "LatentActionTokenizerForPreTraining",
        "LatentActionTokenizerModel",
    ],
    "models.cyclemimic.configuration_cyclemimic": ["CycleMimicConfig"],
    "models.cyclemimic.modeling_cyclemimic": [
        "CycleMimicForActionPrediction",
        "CycleMimicForLatentActionPrediction",
    ],
    "models.cyclemimic.configuration_prismatic": ["PrismaticConfig"],
    "models.cyclemimic.modeling_prismatic": ["PrismaticForConditionalGeneration", "PrismaticModel"],
    "models.cyclemimic.processing_cyclemimic": ["CycleMimicProcessor"],
    "trainers.latent_action_tokenizer_config": ["LatentActionTokenizerTrainingArguments"],
    "trainers.latent_action_tokenizer_trainer": ["LatentActionTokenizerTrainer"],
    "trainers.cyclemimic_config": ["CycleMimicTrainingArguments"],
    "trainers.cyclemimic_trainer": ["CycleMimicTrainer"],
}
_MODULE_OF = {name: module for module, names in _PUBLIC_NAMES.items() for name in names}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> object:
    """Import a public name on first use (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from .models.cyclemimic.configuration_cyclemimic import CycleMimicConfig
    from .models.cyclemimic.configuration_prismatic import PrismaticConfig
    from .models.cyclemimic.modeling_cyclemimic import (
        CycleMimicForActionPrediction,
        CycleMimicForLatentActionPrediction,
    )
    from .models.cyclemimic.modeling_prismatic import PrismaticForConditionalGeneration, PrismaticModel
    from .models.cyclemimic.processing_cyclemimic import CycleMimicProcessor
    from .models.latent_action_tokenizer.configuration_latent_action_tokenizer import LatentActionTokenizerConfig
    from .models.latent_action_tokenizer.image_processing_latent_action_tokenizer import (
        LatentActionTokenizerImageProcessor,
    )
    from .models.latent_action_tokenizer.modeling_latent_action_tokenizer import (
        LatentActionTokenizerForPreTraining,
        LatentActionTokenizerModel,
    )
    from .trainers.cyclemimic_config import CycleMimicTrainingArguments
    from .trainers.cyclemimic_trainer import CycleMimicTrainer
    from .trainers.latent_action_tokenizer_config import LatentActionTokenizerTrainingArguments
    from .trainers.latent_action_tokenizer_trainer import LatentActionTokenizerTrainer


auto_registration.install()
