# SPDX-License-Identifier: Apache-2.0
"""The verbs with several cameras: labels of the first, a policy of both, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cyclemimic import CycleMimicForActionPrediction, CycleMimicForLatentActionPrediction, CycleMimicProcessor
from cyclemimic.commands.cameras import choose_cameras, open_further_cameras
from cyclemimic.commands.inputs import open_sources

from .conftest import INTERVAL, TRAINING, run_verb

BOTH = ["front", "wrist"]


@pytest.fixture(scope="module")
def labels(two_camera_data, tokenizer, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("cameras") / "labels"
    flags = ["--tokenizer", tokenizer, "--data", two_camera_data, "--camera", "front", "--output", output]
    assert run_verb("label", *flags, "--device", "cpu", *INTERVAL) == 0
    return output


@pytest.fixture(scope="module")
def pretrained(two_camera_data, labels, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("cameras") / "pretrained"
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1 --image_shift 2".split()
    flags = ["--data", two_camera_data, "--labels", labels, *tiny, "--output_dir", output, "--cameras", *BOTH]
    assert run_verb("pretrain", *flags, *TRAINING) == 0
    return output


@pytest.fixture(scope="module")
def policy(two_camera_data, labels, pretrained, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("cameras") / "policy"
    flags = ["--policy", pretrained, "--data", two_camera_data, "--labels", labels, "--output_dir", output]
    assert run_verb("finetune", *flags, *TRAINING) == 0
    return output


def test_a_policy_of_both_acts(policy, pretrained):
    model = CycleMimicForActionPrediction.from_pretrained(policy).eval()
    processor = CycleMimicProcessor.from_pretrained(policy)
    assert model.config.camera_names == processor.camera_names == BOTH
    views = list(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8))
    chunks = [model.predict_action_chunk(**processor(order, "go left")) for order in (views, views[::-1])]
    assert chunks[0].shape == (1, 3, 4) and not torch.equal(*chunks)
    assert CycleMimicForLatentActionPrediction.from_pretrained(pretrained).config.camera_names == BOTH


def test_a_camera_more_for_acting(verb, two_camera_data, labels, tmp_path):
    """Pretrained on one camera, fine-tuned on two."""
    one = tmp_path / "one"
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1".split()
    data = ["--data", two_camera_data, "--labels", labels]
    assert verb("pretrain", *data, *tiny, "--camera", "front", "--output_dir", one, *TRAINING) == 0
    flags = ["--policy", one, *data, "--cameras", *BOTH, "--lora_rank", "2", "--output_dir", tmp_path / "two"]
    assert verb("finetune", *flags, *TRAINING) == 0
    assert CycleMimicForActionPrediction.from_pretrained(tmp_path / "two").config.camera_names == BOTH
    assert verb("pretrain", "--policy", one, *data, "--cameras", *BOTH, "--output_dir", tmp_path / "3", *TRAINING) == 0
    assert CycleMimicProcessor.from_pretrained(tmp_path / "3").camera_names == BOTH


def test_names_that_count():
    assert choose_cameras(None, None, None) == (None, None)
    assert choose_cameras("top", None, None) == choose_cameras(None, ["top"], BOTH) == ("top", None)
    assert choose_cameras(None, BOTH, ["a", "b"]) == choose_cameras(None, None, BOTH) == ("front", BOTH)
    assert choose_cameras("top", None, BOTH) == ("top", None)


def test_further_cameras_have_the_episodes_of_the_first(two_camera_data):
    sources, _ = open_sources([two_camera_data], "front", num_episodes=1)
    ((view,),) = open_further_cameras([two_camera_data], BOTH, sources)
    assert (view.name, view.camera, len(view)) == ("squares", "observation.images.wrist", 1)
    assert open_further_cameras([two_camera_data], None, sources) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--cameras front wrist --camera front", "`camera` must be left out with `cameras`, got 'front' and ['front'"),
        (
            "--cameras front side",
            "has no camera 'side'; give one of ['observation.images.front', 'observation.images.w",
        ),
        (
            "--cameras front observation.images.front",
            "`cameras` must be different ones, got ['front', 'observation.im",
        ),
        ("--cameras front wrist --skip_broken", "`skip_broken` must be left out with several cameras"),
        ("--cameras wrist front", "`labels` must be of squares's camera observation.images.wrist, got those of"),
        ("--camera front", "as data and flags say, got {"),
    ],
)
def test_bad_input(refuses, two_camera_data, labels, policy, tmp_path, flags, message):
    data = ["--policy", policy, "--data", two_camera_data, "--labels", labels, "--output_dir", tmp_path / "output"]
    assert message in refuses("finetune", "--use_cpu", *data, *flags.split())
    assert list(tmp_path.iterdir()) == []


def test_a_mixture_has_one_camera(refuses, pretrained, labels, tmp_path):
    flags = ["--policy", pretrained, "--data", "bridge", "--labels", labels, "--output_dir", tmp_path / "output"]
    line = refuses("pretrain", "--use_cpu", *flags)
    assert "`data` must be no mixture where the policy sees with several cameras, got ['front', 'wrist']" in line


def test_simulators_have_one_camera(refuses, policy, tmp_path):
    flags = ["--policy", policy, "--env", "metaworld:reach-v3", "--output", tmp_path / "rollout"]
    line = refuses("rollout", *flags)
    assert "`policy` must see with one camera, as the simulators do, got one of ['front', 'wrist']" in line
