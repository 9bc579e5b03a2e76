# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import pytest

from cyclemimic import CycleMimicForActionPrediction, CycleMimicForLatentActionPrediction, CycleMimicProcessor
from cyclemimic.commands.rollout import format_table, parse_tasks
from cyclemimic.data import decode_frames
from cyclemimic.evaluation.environments.metaworld import MetaworldEnvironment, SimulatorError


@pytest.fixture(scope="module")
def simulator():
    try:
        MetaworldEnvironment("reach-v3").close()
    except SimulatorError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("simulator")
def test_writes_results_and_clips(verb, policy, tmp_path, capsys):
    output = tmp_path / "rollout"
    flags = ["--policy", policy, "--env", "metaworld:reach-v3", "--output", output, "--device", "cpu"]
    sizes = "--episodes 2 --first_state 7 --clips 1 --max_steps 4 --num_action_steps 3 --num_workers 1 --image_size 32"
    assert verb("rollout", *flags, *sizes.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["task", "reach-v3", "mean", "Saved:"]
    results = json.loads((output / "results.json").read_text())
    assert results["success"]["mean"]["trials"] == 2
    assert results["arguments"]["dataset"] == "squares"
    assert results["arguments"]["action_repeat"] == 8  # 80 control steps a second, 10 actions
    assert [trial["initial_state"] for trial in results["trials"]] == [7, 8]
    assert results["trials"][0]["film"] == "clips/reach-v3_7.mp4"
    assert decode_frames(output / "clips" / "reach-v3_7.mp4", 5, num_frames=3).shape == (3, 32, 32, 3)
    assert "film" not in results["trials"][1]
    assert [path.name for path in tmp_path.iterdir()] == ["rollout"]


@pytest.fixture(scope="module")
def policy_of_two(policy, tmp_path_factory):
    """The policy, with the statistics of a second data set, at twice the frame rate of the first."""
    folder = tmp_path_factory.mktemp("results") / "policy"
    shutil.copytree(policy, folder)
    processor = CycleMimicProcessor.from_pretrained(policy)
    processor.add_action_statistics("circles", processor.action_statistics["squares"] | {"fps": 20})
    processor.save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("simulator")
def test_acts_by_the_data_set_named(verb, policy_of_two, tmp_path):
    flags = ["--policy", policy_of_two, "--env", "metaworld:reach-v3", "--device", "cpu", "--dataset", "circles"]
    sizes = "--episodes 1 --clips 0 --max_steps 2 --num_workers 1 --image_size 32"
    assert verb("rollout", *flags, *sizes.split(), "--output", tmp_path / "rollout") == 0
    given = json.loads((tmp_path / "rollout" / "results.json").read_text())["arguments"]
    assert (given["dataset"], given["action_repeat"]) == ("circles", 4)


def test_table():
    rates = {"reach-v3": {"successes": 3, "trials": 4, "rate": 0.75, "low": 0.3, "high": 0.954}}
    assert format_table(rates).splitlines() == [
        "task      successes  rate  95 % interval",
        "reach-v3  3/4        0.75  0.30-0.95",
    ]


def test_a_task_named_twice_counts_once():
    assert parse_tasks("metaworld:reach-v3,drawer-open-v3,reach-v3") == ["reach-v3", "drawer-open-v3"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--policy {policy}", "the following arguments are required: --env"),
        ("--policy {policy} --env libero:spatial", "`env` must be metaworld:TASK[,TASK...], got 'libero:spatial'"),
        ("--policy {policy} --env metaworld:raech-v3", "`env` must name tasks out of ['button-press-topdown-v3'"),
        ("--policy {policy} --env metaworld:", "got ''"),
        ("--policy {tmp} --env metaworld:reach-v3", "`policy` must be a checkpoint folder or a Hub id"),
        ("--policy {pretrained} --env metaworld:reach-v3", "`policy` must be fine-tuned, got"),
        ("--policy {policy} --env metaworld:reach-v3 --dataset circles", "`dataset` must be one of ['squares']"),
        (
            "--policy {policy_of_two} --env metaworld:reach-v3",
            "`dataset` must be one of ['circles', 'squares'], got None.",
        ),
        (
            "--policy {policy_of_two} --env metaworld:reach-v3 --dataset sqare",
            "`dataset` must be one of ['circles', 'squares'], got 'sqare' (did you mean 'squares'?).",
        ),
        ("--policy {policy} --env metaworld:reach-v3 --episodes 0", "`episodes` must be at least 1, got 0"),
        ("--policy {policy} --env metaworld:reach-v3 --max_steps 0", "`max_steps` must be at least 1, got 0"),
        ("--policy {policy} --env metaworld:reach-v3 --first_state -1", "`first_state` and `clips` must be"),
    ],
)
def test_bad_input(refuses, policy, policy_of_two, pretrained, tmp_path, flags, message):
    empty = tmp_path / "empty"
    empty.mkdir()
    given = flags.format(policy=policy, policy_of_two=policy_of_two, pretrained=pretrained, tmp=empty).split()
    assert message in refuses("rollout", "--output", tmp_path / "rollout", *given)
    assert list(tmp_path.iterdir()) == [empty]


@pytest.fixture(scope="module")
def feeling_policy(policy, tmp_path_factory):
    """Makes the policy again with an untrained look at robot states of some size."""

    def make(state_dim):
        folder = tmp_path_factory.mktemp("results") / "policy"
        fields = {"state_dim": state_dim}
        statistics = {"squares": {"q01": [-1] * state_dim, "q99": [1] * state_dim}}
        processor = CycleMimicProcessor.from_pretrained(policy, **fields, state_statistics=statistics)
        model = CycleMimicForLatentActionPrediction.from_pretrained(policy)
        CycleMimicForActionPrediction(processor.make_config(model.config.backbone_config)).save_pretrained(folder)
        processor.save_pretrained(folder)
        return folder

    return make


@pytest.mark.usefixtures("simulator")
def test_a_policy_that_feels_the_robot(verb, feeling_policy, tmp_path):
    flags = ["--policy", feeling_policy(4), "--env", "metaworld:reach-v3", "--device", "cpu"]
    sizes = "--episodes 1 --clips 0 --max_steps 2 --num_workers 1 --image_size 32"
    assert verb("rollout", *flags, *sizes.split(), "--output", tmp_path / "rollout") == 0


def test_a_state_that_metaworld_does_not_have(refuses, feeling_policy, tmp_path):
    flags = ["--policy", feeling_policy(7), "--env", "metaworld:reach-v3", "--output", tmp_path / "rollout"]
    assert "`policy` must read no robot state or one of size 4 (hand and gripper)" in refuses("rollout", *flags)
