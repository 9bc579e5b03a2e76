# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import cyclemimic
from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicProcessor,
    LatentActionTokenizerImageProcessor,
    LatentActionTokenizerModel,
)
from cyclemimic.data import CycleMimicCollator
from cyclemimic.evaluation.policy import ChunkPolicy

PLUGIN = "lerobot_policy_cyclemimic"
ROOT = Path(__file__).resolve().parents[2]
KITCHEN = SimpleNamespace(repo_id="me/kitchen", fps=10)


def make_config(**kwargs: Any) -> Any:
    return importlib.import_module(PLUGIN).CycleMimicConfig(
        **{key: str(value) if isinstance(value, Path) else value for key, value in kwargs.items()}, device="cpu"
    )


def make_policy(config: Any, **kwargs: Any) -> Any:
    return importlib.import_module(f"{PLUGIN}.modeling_cyclemimic").CycleMimicPolicy(config, **kwargs)


def make_features(**shapes: tuple[int, ...]) -> dict[str, Any]:
    """`front=(3, 32, 32), state=(2,)` → features of those names."""
    configs = importlib.import_module("lerobot.configs")
    kinds = {"action": configs.FeatureType.ACTION, "state": configs.FeatureType.STATE}
    keys = {"action": "action", "state": "observation.state"}
    return {
        keys.get(name, f"observation.images.{name}"): configs.PolicyFeature(
            kinds.get(name, configs.FeatureType.VISUAL), shape
        )
        for name, shape in shapes.items()
    }


def as_seen(batch: dict[str, Any]) -> dict[str, Any]:
    """A training batch without what only training has."""
    seen = {key: value for key, value in batch.items() if not key.startswith("action")}
    return {key: value if key == "task" else value[:, 0] for key, value in seen.items()}


def loaded(checkpoint: Path) -> tuple[CycleMimicForActionPrediction, CycleMimicProcessor]:
    model = CycleMimicForActionPrediction.from_pretrained(checkpoint).eval()
    return model, CycleMimicProcessor.from_pretrained(checkpoint)


def test_names_are_those_that_lerobot_looks_for():
    config_class = importlib.import_module("lerobot.configs").PreTrainedConfig.get_choice_class(make_config().type)
    modeling, processing = (
        importlib.import_module(config_class.__module__.replace("configuration_", prefix))
        for prefix in ("modeling_", "processor_")
    )
    policy_class = getattr(modeling, config_class.__name__.removesuffix("Config") + "Policy")
    assert make_config().type == policy_class.name == "cyclemimic"
    assert policy_class.config_class is config_class
    assert callable(processing.make_cyclemimic_pre_post_processors)


def test_distribution_has_the_name_of_the_package_and_the_version_of_cyclemimic():
    project = tomllib.loads((ROOT / "src" / PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["name"], project["version"]) == (PLUGIN, cyclemimic.__version__)


def test_guide_names_fields_of_the_configuration():
    guide = (ROOT / "examples" / "lerobot" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"--policy\.(\w+)", guide)) - {"path", "type", "push_to_hub"}  # LeRobot's own
    assert {"checkpoint_path", "tokenizer_path"} <= named <= {field.name for field in fields(make_config())}


def test_acts_as_the_checkpoint_does(checkpoints, frames, training_batch):
    policy = make_policy(
        make_config(checkpoint_path=checkpoints.finetuned, input_features=make_features(top=(3, 9, 9)))
    )
    batch = as_seen(training_batch)
    batch["observation.images.top"] = batch.pop("observation.image")
    expected = ChunkPolicy(*loaded(checkpoints.finetuned)).predict(list(frames[:, 0]), batch["task"])
    assert expected.std(axis=0).mean() > 0
    actions = policy.eval().predict_action_chunk(batch)
    assert torch.equal(actions, torch.from_numpy(expected))


def test_instruction_stands_in_for_a_task_that_is_not_named(checkpoints, training_batch):
    config = make_config(
        checkpoint_path=checkpoints.finetuned, cameras=["observation.image"], instruction="open the drawer"
    )
    policy = make_policy(config).eval()
    batch = as_seen(training_batch)
    named = policy.predict_action_chunk({**batch, "task": ["open the drawer", "press the button"]})
    assert torch.equal(policy.predict_action_chunk({**batch, "task": ["", "press the button"]}), named)
    config.instruction = None
    with pytest.raises(ValueError, match="`text` must be an instruction that is not empty"):
        policy.predict_action_chunk({**batch, "task": ["", ""]})


def test_looks_again_when_its_actions_are_used_up(checkpoints, training_batch):
    policy = make_policy(
        make_config(checkpoint_path=checkpoints.finetuned, n_action_steps=2, cameras=["observation.image"])
    )
    first = as_seen(training_batch)
    second = {**first, "observation.image": 1 - first["observation.image"]}
    chunks = [policy.eval().predict_action_chunk(batch) for batch in (first, second)]
    seen = [policy.select_action(batch) for batch in (first, second, second, second)]
    expected = [chunks[0][:, 0], chunks[0][:, 1], chunks[1][:, 0], chunks[1][:, 1]]
    assert all(torch.equal(action, wanted) for action, wanted in zip(seen, expected, strict=True))
    policy.select_action(first)
    policy.reset()
    assert torch.equal(policy.select_action(second), chunks[1][:, 0])


def test_loss_is_that_of_the_trainer(checkpoints, frames, training_batch):
    config = make_config(
        checkpoint_path=checkpoints.finetuned, tokenizer_path=checkpoints.tokenizer, cameras=["observation.image"]
    )
    policy = make_policy(config)
    model, processor = loaded(checkpoints.finetuned)
    pairs = LatentActionTokenizerImageProcessor.from_pretrained(checkpoints.tokenizer)(
        list(frames[:, 0]), list(frames[:, 1])
    )
    codes = LatentActionTokenizerModel.from_pretrained(checkpoints.tokenizer).eval().encode(**pairs).codes
    items = [
        {
            "image": frames[index, 0],
            "instruction": training_batch["task"][index],
            "latent_actions": codes[index].numpy(),
            "actions": training_batch["action"][index].numpy(),
            "actions_mask": ~training_batch["action_is_pad"][index].numpy(),
        }
        for index in range(2)
    ]
    expected = model(**CycleMimicCollator(processor)(items))
    loss, terms = policy.forward(training_batch)
    assert torch.equal(loss, expected.loss)
    assert terms == {name: expected[name].item() for name in ("latent_action_loss", "action_loss")}
    loss.backward()
    # A head that nothing reads stands beside the gradients; the tokenizer has none.
    assert policy.model.action_decoder.head[0].weight.grad.abs().sum() > 0
    assert not [name for name, _ in policy.named_parameters() if "tokenizer" in name]
    assert {id(each) for each in policy.get_optim_params()} == {id(each) for each in policy.model.parameters()}


def test_what_is_saved_acts_alike_and_is_a_checkpoint_of_the_package(checkpoints, training_batch, tmp_path):
    policy = make_policy(make_config(checkpoint_path=checkpoints.finetuned, cameras=["observation.image"])).eval()
    batch = as_seen(training_batch)
    policy.save_pretrained(tmp_path / "saved")
    gathered = {name: value.clone() + (name.endswith("head.2.bias")) for name, value in policy.state_dict().items()}
    policy.save_pretrained(tmp_path / "gathered", state_dict=gathered)
    again, moved = (type(policy).from_pretrained(tmp_path / name) for name in ("saved", "gathered"))
    assert torch.equal(again.predict_action_chunk(batch), policy.predict_action_chunk(batch))
    assert not torch.equal(moved.predict_action_chunk(batch), policy.predict_action_chunk(batch))
    assert not again.training
    model, _ = loaded(tmp_path / "saved" / "cyclemimic")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in policy.model.state_dict().items())


def test_pretrained_policy_takes_sizes_and_statistics_of_the_data(checkpoints, dataset_stats, tmp_path):
    config = make_config(
        checkpoint_path=checkpoints.pretrained,
        input_features=make_features(front=(3, 32, 32), wrist=(3, 32, 32), state=(2,)),
        output_features=make_features(action=(4,)),
        cameras=["observation.images.wrist", "observation.images.front"],
        use_robot_state=True,
        chunk_size=3,
    )
    policy = make_policy(config, dataset_stats=dataset_stats, dataset_meta=KITCHEN)
    assert (config.dataset, config.n_action_steps) == ("kitchen", 1)  # half a chunk of 3
    assert (config.observation_delta_indices, config.action_delta_indices) == ([0, 3], [0, 1, 2])
    model = policy.model.config
    assert (model.chunk_size, model.state_dim, model.camera_names) == (3, 2, config.cameras)
    statistics = policy.processor.action_statistics["kitchen"]
    assert (statistics["q01"], statistics["q99"]) == ([-1, -2, 0, 3], [1, 2, 1, 3])
    assert statistics["fps"] == 10
    # As `cyclemimic evaluate-policy` and `rollout` need them.
    assert statistics["mean"] == np.asarray(dataset_stats["action"]["mean"]).tolist()
    assert (model.n_action_steps, model.num_executed_steps) == (1, 1)
    assert policy.processor.state_statistics["kitchen"]["q99"] == [2, 1]
    policy.save_pretrained(tmp_path)
    again = type(policy).from_pretrained(tmp_path)
    assert again.processor.action_statistics == policy.processor.action_statistics
    assert again.config.cameras == config.cameras


def test_executes_as_many_actions_as_the_checkpoint_says(checkpoints, tmp_path):
    model, processor = loaded(checkpoints.finetuned)
    model.config.n_action_steps = 4
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    for sizes in ({}, {"chunk_size": 5}):
        assert make_config(checkpoint_path=tmp_path, **sizes).n_action_steps == 4


def test_training_is_in_full_precision_and_acting_in_that_of_the_checkpoint(checkpoints, dataset_stats, tmp_path):
    model, processor = loaded(checkpoints.finetuned)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    config = make_config(checkpoint_path=tmp_path)
    assert make_policy(config).model.dtype == torch.bfloat16
    config = make_config(checkpoint_path=tmp_path)
    assert make_policy(config, dataset_stats=dataset_stats, dataset_meta=KITCHEN).model.dtype == torch.float32


def test_chunks_that_are_averaged_have_no_number_of_steps(checkpoints, tmp_path):
    model, processor = loaded(checkpoints.finetuned)
    model.config.temporal_ensemble_coeff = 0.1
    for part in (model, processor):
        part.save_pretrained(tmp_path / "averaging")
    policy = make_policy(make_config(checkpoint_path=tmp_path / "averaging", n_action_steps=3))
    policy.save_pretrained(tmp_path / "lerobot")
    again, _ = loaded(tmp_path / "lerobot" / "cyclemimic")
    assert (again.config.temporal_ensemble_coeff, again.config.num_executed_steps) == (0.1, 1)


def test_further_training_acts_by_the_statistics_of_its_data(checkpoints, dataset_stats):
    config = make_config(checkpoint_path=checkpoints.finetuned, dataset="arm", cameras=["observation.image"])
    policy = make_policy(config, dataset_stats=dataset_stats, dataset_meta=KITCHEN)
    assert sorted(policy.processor.action_statistics) == ["arm", "kitchen"]
    assert config.dataset == "kitchen"


def test_sees_with_the_cameras_of_the_checkpoint_and_feels_its_state(checkpoints, frames):
    features = make_features(wrist=(3, 32, 32), front=(3, 32, 32), state=(2,))
    policy = make_policy(make_config(checkpoint_path=checkpoints.two_cameras, input_features=features)).eval()
    state = torch.tensor([[0.5, 0.1], [1.5, -0.2]])
    views = {"front": frames[:, 0], "wrist": frames[:, 1]}
    batch = {f"observation.images.{name}": torch.from_numpy(view).movedim(-1, 1) / 255 for name, view in views.items()}
    images = [list(pair) for pair in zip(views["front"], views["wrist"], strict=True)]
    texts = ["open the drawer", "press the button"]
    expected = ChunkPolicy(*loaded(checkpoints.two_cameras)).predict(images, texts, list(state.numpy()))
    actions = policy.predict_action_chunk({**batch, "observation.state": state, "task": texts})
    assert np.array_equal(actions.numpy(), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "`checkpoint_path` must be a CycleMimic checkpoint, a folder or a Hub id, got None"),
        ({"checkpoint_path": "tokenizer", "chunk_size": 2}, "`checkpoint_path` must be a checkpoint of model type"),
        ({"checkpoint_path": "pretrained"}, "`checkpoint_path` must be fine-tuned, to act, got"),
        ({"checkpoint_path": "finetuned", "chunk_size": 4}, "`policy` must be of .*'chunk_size': 4"),
        ({"checkpoint_path": "finetuned", "n_action_steps": 6}, r"`n_action_steps` must be in \[1, 5\]"),
        ({"checkpoint_path": "finetuned", "n_action_steps": 0}, r"`n_action_steps` must be in \[1, 5\]"),
        ({"checkpoint_path": "finetuned", "chunk_size": 0}, "`chunk_size` must be at least 1, got 0"),
        ({"checkpoint_path": "finetuned", "views": ("a", "b")}, "`cameras` must say with which of"),
        ({"checkpoint_path": "finetuned", "views": ("a",), "cameras": ["c"]}, "`cameras` must be out of"),
        (
            {"checkpoint_path": "finetuned", "views": ("a",), "use_robot_state": True},
            "`use_robot_state` must be false",
        ),
        ({"checkpoint_path": "finetuned", "dataset": "leg"}, "`dataset` must be one of"),
    ],
)
def test_refuses_what_does_not_fit(checkpoints, values, message):
    values = dict(values)
    if "checkpoint_path" in values:
        values["checkpoint_path"] = getattr(checkpoints, values["checkpoint_path"])
    features = make_features(**dict.fromkeys(values.pop("views", ()), (3, 32, 32)))
    with pytest.raises(ValueError, match=message):
        make_policy(make_config(**values, input_features=features))


def test_training_needs_a_tokenizer_of_the_same_words_and_percentiles(checkpoints, training_batch, dataset_stats):
    cameras = ["observation.image"]
    policy = make_policy(make_config(checkpoint_path=checkpoints.finetuned, cameras=cameras))
    with pytest.raises(ValueError, match="`tokenizer_path` and two frames a sample must be given to train, got None"):
        policy.forward(training_batch)
    policy.config.tokenizer_path = str(checkpoints.tokenizer)
    policy.model.config.codebook_size = 8
    with pytest.raises(
        ValueError, match="`tokenizer_path` must make 4 tokens out of 8, as the policy reads, got 4 out"
    ):
        policy.forward(training_batch)
    del dataset_stats["action"]["q01"]
    with pytest.raises(ValueError, match="`dataset_stats` must hold q01 and q99 of 'action'"):
        make_policy(
            make_config(checkpoint_path=checkpoints.pretrained, cameras=cameras),
            dataset_stats=dataset_stats,
            dataset_meta=KITCHEN,
        )


def test_converted_checkpoint_can_be_loaded_by_its_path(checkpoints, training_batch, tmp_path):
    converter = importlib.import_module(f"{PLUGIN}.convert_cyclemimic_to_lerobot")
    flags = ["--checkpoint_path", str(checkpoints.finetuned), "--cameras", "observation.image"]
    converter.main([*flags, "--output", str(tmp_path / "converted")])
    files = {path.name for path in (tmp_path / "converted").iterdir()}
    assert files == {"config.json", "cyclemimic", "policy_preprocessor.json", "policy_postprocessor.json"}
    config = json.loads((tmp_path / "converted" / "config.json").read_text(encoding="utf-8"))
    assert config["type"] == "cyclemimic"
    assert config["input_features"]["observation.image"]["shape"] == [3, 224, 224]
    assert config["output_features"]["action"]["shape"] == [4]
    policy = importlib.import_module(f"{PLUGIN}.modeling_cyclemimic").CycleMimicPolicy
    batch = as_seen(training_batch)
    expected = make_policy(make_config(checkpoint_path=checkpoints.finetuned, cameras=["observation.image"])).eval()
    actions = policy.from_pretrained(tmp_path / "converted").predict_action_chunk(batch)
    assert torch.equal(actions, expected.predict_action_chunk(batch))
    # Checkpoints of the package are told from LeRobot's.
    with pytest.raises(ValueError, match="Missing 'type' field"):
        policy.from_pretrained(checkpoints.finetuned)


def test_pipelines_leave_values_as_they_are(checkpoints):
    config = make_config(checkpoint_path=checkpoints.finetuned)
    make_policy(config)
    processing = importlib.import_module(f"{PLUGIN}.processor_cyclemimic")
    before, behind = processing.make_cyclemimic_pre_post_processors(config)
    actions = torch.tensor([[0.5, -7.0, 3.0, 100.0]])
    assert torch.equal(behind(actions), actions)
    image = torch.rand(1, 3, 32, 32)
    batch = before({"observation.images.image": image, "task": ["open the drawer"]})
    assert torch.equal(batch["observation.images.image"], image)
    assert batch["task"] == ["open the drawer"]
