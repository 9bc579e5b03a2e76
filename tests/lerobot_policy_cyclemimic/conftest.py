# SPDX-License-Identifier: Apache-2.0
"""
LeRobot, or where it is not installed what version 0.6 asks of a policy and gives it, as far as the plug-in touches
that; and small checkpoints.
"""

from __future__ import annotations

import abc
import enum
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch

from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    LatentActionTokenizerConfig,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
)
from cyclemimic.models.cyclemimic import make_tiny_backbone_config

TEXTS = ["open the drawer", "press the button"]
STATISTICS = {"arm": {"q01": [-2.0, -1.0, 0.0, 0.0], "q99": [2.0, 1.0, 4.0, 1.0], "mask": [True, True, True, False]}}
STATE_STATISTICS = {"arm": {"q01": [0.0, -1.0], "q99": [2.0, 1.0]}}


class FeatureType(enum.StrEnum):
    STATE, VISUAL, ACTION = "STATE", "VISUAL", "ACTION"


class NormalizationMode(enum.StrEnum):
    IDENTITY, QUANTILES = "IDENTITY", "QUANTILES"


@dataclass
class PolicyFeature:
    type: FeatureType
    shape: tuple[int, ...]


@dataclass
class AdamWConfig:
    lr: float
    weight_decay: float
    grad_clip_norm: float


@dataclass
class PreTrainedConfig(abc.ABC):
    input_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    output_features: dict[str, PolicyFeature] | None = field(default_factory=dict)
    device: str | None = None
    choices: ClassVar[dict[str, type]] = {}

    @classmethod
    def register_subclass(cls, name: str) -> Any:
        return lambda config_class: cls.choices.setdefault(name, config_class)

    @classmethod
    def get_choice_class(cls, name: str) -> type:
        return cls.choices[name]

    def __post_init__(self) -> None:
        self.device = self.device or "cpu"

    @property
    def type(self) -> str:
        return next(name for name, choice in self.choices.items() if choice is type(self))

    @property
    def image_features(self) -> dict[str, PolicyFeature]:
        return {key: each for key, each in self.input_features.items() if each.type is FeatureType.VISUAL}

    @property
    def robot_state_feature(self) -> PolicyFeature | None:
        return self.input_features.get("observation.state")

    @property
    def action_feature(self) -> PolicyFeature | None:
        return self.output_features.get("action")

    @property
    @abc.abstractmethod
    def observation_delta_indices(self) -> list | None: ...

    @property
    @abc.abstractmethod
    def action_delta_indices(self) -> list | None: ...

    @property
    @abc.abstractmethod
    def reward_delta_indices(self) -> list | None: ...

    @abc.abstractmethod
    def get_optimizer_preset(self) -> AdamWConfig: ...

    @abc.abstractmethod
    def get_scheduler_preset(self) -> Any: ...

    @abc.abstractmethod
    def validate_features(self) -> None: ...

    def _save_pretrained(self, save_directory: Path) -> None:
        (save_directory / "config.json").write_text(json.dumps({"type": self.type, **asdict(self)}), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, path: str | Path) -> PreTrainedConfig:
        values = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        if "type" not in values:
            raise ValueError(f"Missing 'type' field in config.json of {path}")
        for name in ("input_features", "output_features"):
            values[name] = {
                key: PolicyFeature(FeatureType(each["type"]), tuple(each["shape"]))
                for key, each in values[name].items()
            }
        return cls.choices[values.pop("type")](**values)


class PreTrainedPolicy(torch.nn.Module, abc.ABC):
    config_class: ClassVar[type]
    name: ClassVar[str]

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config

    def save_pretrained(
        self, save_directory: str | Path, *, state_dict: dict[str, torch.Tensor] | None = None
    ) -> None:
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self._save_pretrained(Path(save_directory), state_dict=state_dict)

    @abc.abstractmethod
    def get_optim_params(self) -> Any: ...

    @abc.abstractmethod
    def reset(self) -> None: ...

    @abc.abstractmethod
    def forward(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict | None]: ...

    @abc.abstractmethod
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> torch.Tensor: ...

    @abc.abstractmethod
    def select_action(self, batch: dict[str, Any], **kwargs: Any) -> torch.Tensor: ...


class Pipeline(NamedTuple):
    """What matters of one: whether it leaves values as they are."""

    name: str
    modes: set[NormalizationMode]

    def __call__(self, data: Any) -> Any:
        assert self.modes == {NormalizationMode.IDENTITY}
        return data

    def save_pretrained(self, save_directory: Path) -> None:
        (save_directory / f"{self.name}.json").write_text("{}", encoding="utf-8")


def make_default_pre_post_processors(config: PreTrainedConfig, dataset_stats: Any = None) -> tuple[Pipeline, Pipeline]:
    modes = set(config.normalization_mapping.values())
    return Pipeline("policy_preprocessor", modes), Pipeline("policy_postprocessor", modes)


CONTRACT = {
    "lerobot": {},
    "lerobot.configs": {
        "FeatureType": FeatureType,
        "NormalizationMode": NormalizationMode,
        "PolicyFeature": PolicyFeature,
        "PreTrainedConfig": PreTrainedConfig,
    },
    "lerobot.optim": {"AdamWConfig": AdamWConfig},
    "lerobot.policies": {},
    "lerobot.policies.pretrained": {"PreTrainedPolicy": PreTrainedPolicy},
    "lerobot.processor": {
        "PolicyAction": torch.Tensor,
        "PolicyProcessorPipeline": dict,
        "make_default_pre_post_processors": make_default_pre_post_processors,
    },
}


@pytest.fixture(scope="package", autouse=True)
def lerobot() -> Iterator[None]:
    """LeRobot itself, or the contract above in its place."""
    if importlib.util.find_spec("lerobot") is not None:
        yield
        return
    for name, members in CONTRACT.items():
        module = ModuleType(name)
        vars(module).update(members)
        sys.modules[name] = module
    yield
    for name in [*CONTRACT, *(name for name in sys.modules if name.startswith("lerobot_policy_cyclemimic"))]:
        sys.modules.pop(name, None)


class Checkpoints(NamedTuple):
    """Folders: a policy that acts, one with two cameras and a robot state, one that cannot act, a tokenizer."""

    finetuned: Path
    two_cameras: Path
    pretrained: Path
    tokenizer: Path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    folders = Checkpoints(*(tmp_path_factory.mktemp(name) for name in Checkpoints._fields))
    torch.manual_seed(0)
    save_policy(folders.finetuned, CycleMimicForActionPrediction, chunk_size=5, action_statistics=STATISTICS)
    save_policy(
        folders.two_cameras,
        CycleMimicForActionPrediction,
        chunk_size=5,
        action_statistics=STATISTICS,
        state_dim=2,
        state_statistics=STATE_STATISTICS,
        camera_names=["front", "observation.images.wrist"],
    )
    save_policy(folders.pretrained, CycleMimicForLatentActionPrediction)
    config = LatentActionTokenizerConfig(
        image_size=32,
        patch_size=8,
        vision_config=None,
        hidden_size=32,
        num_attention_heads=2,
        num_encoder_layers=1,
        num_decoder_layers=1,
        codebook_dim=8,
    )
    LatentActionTokenizerModel(config).save_pretrained(folders.tokenizer)
    LatentActionTokenizerImageProcessor(size=32).save_pretrained(folders.tokenizer)
    return folders


def save_policy(folder: Path, model_class: type, **kwargs: Any) -> None:
    processor = CycleMimicProcessor.from_texts(TEXTS, image_size=32, patch_size=8, action_dim=4, **kwargs)
    backbone = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=32, num_text_layers=1)
    config = processor.make_config(backbone, action_decoder_hidden_size=32, action_decoder_num_heads=2)
    model_class(config).save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.fixture
def frames() -> np.ndarray:
    """Two samples, two moments each: uint8 `(2, 2, 32, 32, 3)`."""
    return np.random.default_rng(0).integers(0, 256, (2, 2, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def training_batch(frames: np.ndarray) -> dict[str, Any]:
    """As `lerobot-train` gives it, of one camera."""
    actions = np.random.default_rng(1).uniform(-1, 1, (2, 5, 4)).astype(np.float32)
    return {
        "observation.image": to_lerobot(frames),
        "action": torch.from_numpy(actions),
        "action_is_pad": torch.tensor([[False] * 5, [False, False, True, True, True]]),
        "task": list(TEXTS),
    }


def to_lerobot(frames: np.ndarray) -> torch.Tensor:
    """uint8 `(…, height, width, 3)` → float32 `(…, 3, height, width)` in [0, 1]."""
    return torch.from_numpy(frames).movedim(-1, -3).float() / 255


@pytest.fixture
def dataset_stats() -> dict[str, dict[str, np.ndarray]]:
    """Of actions whose third dimension hardly ever moves, and whose last never does; and of a robot state."""
    return {
        "action": {
            "q01": np.array([-1.0, -2.0, 0.0, 3.0]),
            "q99": np.array([1.0, 2.0, 0.0, 3.0]),
            "min": np.array([-5.0, -5.0, 0.0, 3.0]),
            "max": np.array([5.0, 5.0, 1.0, 3.0]),
            "mean": np.array([0.5, -0.5, 0.25, 3.0]),
        },
        "observation.state": {
            "q01": np.array([0.0, -1.0]),
            "q99": np.array([2.0, 1.0]),
            "min": np.array([0.0, -1.0]),
            "max": np.array([2.0, 1.0]),
        },
    }
