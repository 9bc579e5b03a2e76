# SPDX-License-Identifier: Apache-2.0
"""Makes transformers' Auto classes know the package's model types, without importing transformers or torch.

Registration needs the classes themselves, and their import costs seconds. `install` therefore only places a finder on
`sys.meta_path`. It lets the modules of transformers be found as ever and notes when their execution begins and ends:
each time none is half executed any more, the model types are registered with the Auto classes that have been imported.
Earlier would be too early, because a model's own imports may need the very module that is half executed. Programs that
never import an Auto class import none of the models.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec

_AUTO_PACKAGE = "transformers.models.auto"
_MODELS_PACKAGE = f"{__package__}.models"

_CONFIGS = {
    "latent_action_tokenizer": (
        "latent_action_tokenizer.configuration_latent_action_tokenizer",
        "LatentActionTokenizerConfig",
    ),
    "cyclemimic": ("cyclemimic.configuration_cyclemimic", "CycleMimicConfig"),
    "prismatic": ("cyclemimic.configuration_prismatic", "PrismaticConfig"),
}

# (module of `transformers.models.auto`, Auto class, model type, own module, own class)
_REGISTRATIONS = [
    ("configuration_auto", "AutoConfig", model_type, module, config)
    for model_type, (module, config) in _CONFIGS.items()
] + [
    (
        "modeling_auto",
        "AutoModel",
        "latent_action_tokenizer",
        "latent_action_tokenizer.modeling_latent_action_tokenizer",
        "LatentActionTokenizerModel",
    ),
    (
        "modeling_auto",
        "AutoModelForPreTraining",
        "latent_action_tokenizer",
        "latent_action_tokenizer.modeling_latent_action_tokenizer",
        "LatentActionTokenizerForPreTraining",
    ),
    (
        "image_processing_auto",
        "AutoImageProcessor",
        "latent_action_tokenizer",
        "latent_action_tokenizer.image_processing_latent_action_tokenizer",
        "LatentActionTokenizerImageProcessor",
    ),
    ("modeling_auto", "AutoModel", "cyclemimic", "cyclemimic.modeling_cyclemimic", "CycleMimicForActionPrediction"),
    (
        "modeling_auto",
        "AutoModelForPreTraining",
        "cyclemimic",
        "cyclemimic.modeling_cyclemimic",
        "CycleMimicForLatentActionPrediction",
    ),
    ("processing_auto", "AutoProcessor", "cyclemimic", "cyclemimic.processing_cyclemimic", "CycleMimicProcessor"),
    ("modeling_auto", "AutoModel", "prismatic", "cyclemimic.modeling_prismatic", "PrismaticModel"),
    (
        "modeling_auto",
        "AutoModelForImageTextToText",
        "prismatic",
        "cyclemimic.modeling_prismatic",
        "PrismaticForConditionalGeneration",
    ),
]

_PIPELINE_TASK = "latent-actions"

_WATCHED_PACKAGES = ("transformers", _MODELS_PACKAGE)
_executing = threading.local()  # .depth: watched modules that this thread is executing, one inside the other


def install() -> None:
    """Places the finder, and registers at once with the Auto modules that are imported already. Idempotent."""
    if not any(isinstance(finder, _WatchingFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WatchingFinder())
    register_available()


def register_available() -> None:
    """Registers every model type with the Auto classes that are imported by now. Running it again changes nothing."""
    for auto_module_name, auto_class_name, model_type, own_module_name, own_class_name in _REGISTRATIONS:
        auto_module = sys.modules.get(f"{_AUTO_PACKAGE}.{auto_module_name}")
        if auto_module is None:
            continue
        auto_class = getattr(auto_module, auto_class_name)
        own_class = _import_class(own_module_name, own_class_name)
        config_class = _import_class(*_CONFIGS[model_type])
        if auto_class_name == "AutoConfig":
            auto_class.register(model_type, config_class, exist_ok=True)
        elif auto_class_name == "AutoImageProcessor":
            # One class serves both backends, so that the presence of torchvision does not change what is loaded.
            backends = {"pil": own_class, "torchvision": own_class}
            auto_class.register(config_class, image_processor_classes=backends, exist_ok=True)
        else:
            auto_class.register(config_class, own_class, exist_ok=True)
    _register_pipeline(sys.modules.get("transformers.pipelines"))


def _register_pipeline(pipelines: ModuleType | None) -> None:
    if pipelines is None:
        return
    own_class = _import_class("latent_action_tokenizer.pipeline_latent_action_tokenizer", "LatentActionPipeline")
    registry = pipelines.PIPELINE_REGISTRY
    if _PIPELINE_TASK not in registry.supported_tasks:  # the import may have come here itself
        registry.register_pipeline(_PIPELINE_TASK, own_class, pt_model=pipelines.AutoModel, type="image")


def _import_class(module_name: str, class_name: str) -> type:
    return getattr(importlib.import_module(f"{_MODELS_PACKAGE}.{module_name}"), class_name)


class _WatchingFinder:
    """Lets the other finders find a module of a watched package, and wraps the loader they return."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not f"{fullname}.".startswith(tuple(f"{package}." for package in _WATCHED_PACKAGES)):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    # It stands in for a loader without being one: what it has no method for is the loader's own.
                    spec.loader = cast("Loader", _WatchingLoader(spec.loader))
                return spec
        return None


class _WatchingLoader:
    """Executes a module with its real loader; at the end of the outermost one, registers what has become available."""

    def __init__(self, loader: Loader):
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        # `python -m` and `pkgutil.get_data` ask the loader of a module that is not imported for its code or its files.
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module must not remember the wrapper: `inspect`, `pickle` and `importlib.resources` read these two.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        depth = getattr(_executing, "depth", 0)
        _executing.depth = depth + 1
        try:
            self.loader.exec_module(module)
        finally:
            _executing.depth = depth
        if depth == 0:
            register_available()
