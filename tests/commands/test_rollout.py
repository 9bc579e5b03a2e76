# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil
import sys
from types import SimpleNamespace

import pytest

from cyclemimic import CycleMimicForActionPrediction, CycleMimicForLatentActionPrediction, CycleMimicProcessor
from cyclemimic.commands.rollout import _gripper_opens_at_one, _settings, format_table, parse
from cyclemimic.data import decode_frames
from cyclemimic.evaluation.environments.metaworld import MetaworldEnvironment, SimulatorError
from cyclemimic.evaluation.environments.simulator import open_simulator
from cyclemimic.models.cyclemimic.tiny_cyclemimic import make_tiny_backbone_config


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
    sizes = "--episodes 2 --seed 1 --clips 1 --max_steps 4 --num_action_steps 3 --num_workers 1 --image_size 32"
    assert verb("rollout", *flags, *sizes.split()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["task", "reach-v3", "mean", "Saved:"]
    results = json.loads((output / "results.json").read_text())
    assert results["success"]["mean"]["trials"] == 2
    assert results["arguments"]["dataset"] == "squares"
    assert results["arguments"]["action_repeat"] == 8  # 80 control steps a second, 10 actions
    assert [trial["initial_state"] for trial in results["trials"]] == [1_000_000, 1_000_001]
    assert results["trials"][0]["film"] == "clips/reach-v3_1000000.mp4"
    assert decode_frames(output / "clips" / "reach-v3_1000000.mp4", 5, num_frames=3).shape == (3, 32, 32, 3)
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


@pytest.fixture
def pushing_policy(tmp_path):
    """A policy with random weights that says where in PushT's 512 × 512 pixels to go."""
    processor = CycleMimicProcessor.from_texts(["push the T"], image_size=32, chunk_size=4, action_dim=2)
    processor.add_action_statistics("pushes", {"q01": [0.0] * 2, "q99": [512.0] * 2, "fps": 10})
    backbone = make_tiny_backbone_config(processor, 32, hidden_size=32, num_text_layers=1)
    config = processor.make_config(backbone, action_decoder_hidden_size=32, action_decoder_num_heads=1)
    CycleMimicForActionPrediction(config).save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_pusht(verb, pushing_policy, tmp_path):
    try:
        open_simulator("pusht")
    except SimulatorError as error:
        pytest.skip(str(error))
    flags = ["--policy", pushing_policy, "--env", "pusht", "--device", "cpu", "--output", tmp_path / "rollout"]
    assert verb("rollout", *flags, *"--episodes 2 --clips 1 --max_steps 5 --num_workers 1".split()) == 0
    results = json.loads((tmp_path / "rollout" / "results.json").read_text())
    assert [(trial["task"], trial["num_steps"]) for trial in results["trials"]] == [("pusht", 5)] * 2
    assert (tmp_path / "rollout" / results["trials"][0]["film"]).is_file()


# A dot moves as the policy says, in one of the instructions the policy knows. Its process may be killed once, in an episode.
DOT = """
import os
from pathlib import Path
import gymnasium
import numpy as np
from gymnasium.spaces import Box

TRAP = Path(__file__).with_name("trap")

class Dot(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_space = Box(-1, 1, (4,), np.float32)
    observation_space = Box(0, 255, (32, 32, 3), np.uint8)

    def __init__(self, render_mode="rgb_array"):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.seed = self.np_random.uniform(8, 20, 2), seed
        self.goal, self.steps = self.np_random.uniform(2, 16), 0
        self.scene = self.np_random.integers(0, 200, (32, 32, 3), dtype=np.uint8)
        return self.observe(), {"instruction": ["go right", "go down and down"][seed % 2]}

    def observe(self):
        image = self.scene.copy()
        top, left = self.place.astype(int) % 24
        image[top : top + 8, left : left + 8] = 220
        return image

    def step(self, action):
        # Enlarges the last digits of an action, as contact does.
        self.place += 1 + np.abs(action[:2] * 1e5) % 2
        self.steps += 1
        if self.steps == 3 and self.seed % 5 == 1 and TRAP.exists():
            TRAP.unlink()
            os._exit(9)
        return self.observe(), 0.0, False, False, {"success": self.steps >= 3 and self.place[0] % 16 > self.goal}

gymnasium.register("stand_in/Dot-v0", Dot, max_episode_steps=7)
"""


@pytest.fixture
def roll(verb, policy, tmp_path, monkeypatch):
    """Rolls out six episodes with further flags; returns the exit code."""
    (tmp_path / "stand_in_dot.py").write_text(DOT)
    monkeypatch.syspath_prepend(tmp_path)

    def run(output, *flags, run=verb):
        fixed = "--episodes 6 --clips 1 --max_steps 8 --num_action_steps 2 --env gym:stand_in_dot:Dot --device cpu"
        return run("rollout", "--policy", policy, *fixed.split(), "--output", output, *map(str, flags))

    return run


def episodes_of(output):
    return {path.name: json.loads(path.read_text()) for path in (output / "episodes").iterdir()}


def test_the_same_seed_is_the_same_episodes_whatever_runs_them(roll, tmp_path):
    assert roll(tmp_path / "a", "--num_environments", 1, "--num_workers", 1) == 0
    (tmp_path / "trap").touch()
    assert roll(tmp_path / "b", "--num_environments", 5, "--num_workers", 2) == 0
    assert not (tmp_path / "trap").exists()
    assert roll(tmp_path / "c", "--num_environments", 5, "--seed", 3) == 0
    first, second, other = (episodes_of(tmp_path / name) for name in "abc")
    assert len(first) == 6 and first == second
    assert len({episode["num_steps"] for episode in first.values()}) > 1
    assert {episode["initial_state"] for episode in other.values()} == set(range(2_000_000, 2_000_006))


def test_a_run_that_was_stopped_goes_on(roll, refuses, tmp_path, monkeypatch, caplog):
    from cyclemimic.evaluation import rollout_folder

    output, save = tmp_path / "rollout", rollout_folder.RolloutFolder.save

    def stop_after_three(folder, result):
        if len(list(output.glob("episodes/*.json"))) == 3:
            raise KeyboardInterrupt
        save(folder, result)

    with monkeypatch.context() as patch:
        patch.setattr(rollout_folder.RolloutFolder, "save", stop_after_three)
        assert roll(output) == 130
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("episodes/*.json")}
    assert len(before) == 3 and not (output / "results.json").exists()
    message = roll(output, "--seed", 3, run=refuses)
    assert (
        "`output` must be a folder of rollouts with the same settings" in message
        and "`seed` is 0 instead of 3" in message
    )
    assert roll(output, "--num_workers", 1) == 0
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("episodes/*.json")}
    assert len(after) == 6 and before.items() <= after.items()
    results = json.loads((output / "results.json").read_text())
    assert sorted(results["trials"], key=str) == sorted(episodes_of(output).values(), key=str)
    assert sum(trial["success"] for trial in results["trials"]) == results["success"]["mean"]["successes"]
    assert "Rollouts in gym:stand_in_dot:Dot" in (output / "report.html").read_text()
    assert [path.name for path in (output / "clips").iterdir()] == ["stand_in_dot-Dot_500000.mp4"]
    monkeypatch.setattr("cyclemimic.checkpoints.load_finetuned", lambda *_: pytest.fail("nothing is left to do"))
    with caplog.at_level("INFO"):
        assert roll(output) == 0
    assert f"6 of 6 episodes are in {output} from before, and are not played again" in caplog.text


def test_the_settings_say_how_the_policy_acted(roll, refuses, verb, policy, tmp_path):
    folder, output = tmp_path / "policy", tmp_path / "rollout"
    shutil.copytree(policy, folder)
    flags = ["rollout", "--policy", folder, "--env", "gym:stand_in_dot:stand_in/Dot-v0", "--output", output]
    flags += "--episodes 1 --clips 0 --num_workers 1 --device cpu".split()
    assert verb(*flags) == 0
    recorded = json.loads((output / "results.json").read_text())["arguments"]
    steps = CycleMimicForActionPrediction.config_class.from_pretrained(folder).num_executed_steps
    assert (recorded["max_steps"], recorded["num_action_steps"], recorded["temporal_ensemble_coeff"]) == (
        7,
        steps,
        None,
    )
    assert verb(*flags) == 0  # the same command goes on
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"n_action_steps": steps + 1}))
    message = refuses(*flags)
    assert "`output` must be a folder of rollouts with the same settings" in message
    assert f"`num_action_steps` is {steps} instead of {steps + 1}" in message


@pytest.mark.parametrize("name", ["config.json", "processor_config.json", "model.safetensors"])
def test_a_policy_that_was_edited_is_another(tmp_path, name):
    for each in ("config.json", "processor_config.json", "model.safetensors"):
        (tmp_path / each).write_text("{}")
    arguments = parse(["--policy", str(tmp_path), "--env", "pusht", "--output", "rollout"], "rollout")
    before = _settings(arguments, "cpu")
    (tmp_path / name).write_text("{}")
    assert _settings(arguments, "cpu") == before  # copied, but the same
    (tmp_path / name).write_text("[]")
    assert _settings(arguments, "cpu") != before


def test_finished_episodes_are_looked_for_once(roll, tmp_path, monkeypatch):
    from cyclemimic.evaluation import rollout_folder

    looks, finished = [], rollout_folder.RolloutFolder.finished

    def count(folder, trials):
        looks.append(len(trials))
        return finished(folder, trials)

    monkeypatch.setattr(rollout_folder.RolloutFolder, "finished", count)
    assert roll(tmp_path / "rollout", "--episodes", 3, "--max_steps", 1, "--num_workers", 1) == 0
    assert looks == [3, 3]  # before, for what is left to do; and after, for the results


def test_a_folder_of_something_else_is_left_alone(roll, refuses, tmp_path):
    (tmp_path / "rollout").mkdir()
    (tmp_path / "rollout" / "thesis.txt").touch()
    assert "exists already, and holds no rollouts" in roll(tmp_path / "rollout", run=refuses)
    assert [path.name for path in (tmp_path / "rollout").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num_action_steps", 99], "`num_action_steps` must be in"),
        (["--output", "thesis"], "thesis exists already, and holds no rollouts"),
        (["--timeout_s", 0], "`timeout_s` must be in (0, 86400], got 0"),
        (["--timeout_s", 1e7], "`timeout_s` must be in (0, 86400], got 1e+07"),
    ],
)
def test_what_is_refused_is_refused_before_weights_are_loaded(roll, refuses, tmp_path, monkeypatch, flags, message):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cyclemimic.checkpoints.load_finetuned", lambda *_: pytest.fail("weights were loaded"))
    assert message in roll(tmp_path / "rollout", *flags, run=refuses)


@pytest.mark.parametrize(
    ("lowest", "highest", "opens_at_one"),
    [
        (0, 1, True),
        (-0.0001, 1, True),  # a stray value
        (0, 0.996, True),
        (0, 0, True),  # never moves
        (1, 1, True),
        (-1, 1, False),
        (-1.02, 1.05, False),
        (-1, -1, False),
        (0.97, 1, True),  # open in nearly every frame
        (-1, -0.95, False),
    ],
)
def test_the_range_tells_how_a_gripper_opens(lowest, highest, opens_at_one):
    assert _gripper_opens_at_one(policy_with_gripper(lowest, highest)) is opens_at_one


@pytest.mark.parametrize(("lowest", "highest"), [(0, 100), (0, 0.04), (-0.3, 0.3), (-2, 1), (0.6, 1)])
def test_another_gripper_is_refused(lowest, highest):
    with pytest.raises(ValueError, match=f"`policy` must have a gripper .* got one of {lowest} to {highest} in arm"):
        _gripper_opens_at_one(policy_with_gripper(lowest, highest))


def policy_with_gripper(lowest, highest):
    return SimpleNamespace(dataset="arm", statistics={"q01": [-3.0, lowest], "q99": [3.0, highest]})


def test_table():
    rates = {"reach-v3": {"successes": 3, "trials": 4, "rate": 0.75, "low": 0.3, "high": 0.954}}
    assert format_table(rates).splitlines() == [
        "task      successes  rate  95 % interval",
        "reach-v3  3/4        0.75  0.30-0.95",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--policy {policy}", "the following arguments are required: --env"),
        ("--policy {policy} --env libero:spatial", "`env` must name a suite out of ['libero_10'"),
        ("--policy {policy} --env metaworld:raech-v3", "`env` must name tasks out of ['button-press-topdown-v3'"),
        ("--policy {policy} --env metaworld:", "`env` must be metaworld:TASK[,TASK...], pusht, libero:SUITE, gym:"),
        ("--policy {tmp} --env metaworld:reach-v3", "`policy` must be a checkpoint folder or a Hub id"),
        ("--policy {pretrained} --env metaworld:reach-v3", "`policy` must be fine-tuned, to act, got"),
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
        ("--policy {policy} --env metaworld:reach-v3 --num_environments 0", "`num_environments` must be at least 1"),
        ("--policy {policy} --env metaworld:reach-v3 --batch_size 0", "`batch_size` must be at least 1, got 0"),
        ("--policy {policy} --env metaworld:reach-v3 --episodes 500001", "`episodes` must be at most 500000"),
        (
            "--policy {policy} --env metaworld:reach-v3 --instruction go",
            "`instruction` must be left out for metaworld",
        ),
        ("--policy {policy} --env libero:libero_spatial", "LIBERO is not installed (libero is missing)"),
        ("--policy {policy} --env metaworld:reach-v3 --max_steps 0", "`max_steps` must be at least 1, got 0"),
        ("--policy {policy} --env metaworld:reach-v3 --num_action_steps 99", "`num_action_steps` must be in [1, "),
        ("--policy {policy} --env metaworld:reach-v3 --seed -1", "`seed` and `clips` must be"),
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
    assert "`policy` must read no robot state or one of size 4 for metaworld:reach-v3" in refuses("rollout", *flags)


def test_more_episodes_and_films_are_added_to_those_there_are(roll, tmp_path):
    output = tmp_path / "rollout"
    assert roll(output) == 0
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("episodes/*.json")}
    assert roll(output, "--episodes", 8, "--clips", 2) == 0
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("episodes/*.json")}
    changed = [name for name, time in before.items() if after[name] != time]
    assert len(after) == 8 and changed == ["stand_in_dot-Dot_500001.json"]
    assert len(list((output / "clips").iterdir())) == 2
    results = json.loads((output / "results.json").read_text())
    assert (results["success"]["mean"]["trials"], results["arguments"]["episodes"]) == (8, 8)
    assert roll(tmp_path / "at_once", "--episodes", 8, "--clips", 2) == 0
    assert episodes_of(output) == episodes_of(tmp_path / "at_once")


def test_an_action_of_another_length_is_told_of(roll, policy, tmp_path, monkeypatch, caplog):
    flags = ["--episodes", 1, "--clips", 0, "--num_workers", 1]
    # Of frames that are 0.1 s apart; the environment says nothing of its own.
    assert roll(tmp_path / "a", *flags) == 0 and "an action lasts" not in caplog.text
    module = tmp_path / "stand_in_dot.py"
    module.write_text(
        module.read_text().replace("    action_space", '    metadata = {"render_fps": 50}\n    action_space')
    )
    monkeypatch.delitem(sys.modules, "stand_in_dot", raising=False)
    assert roll(tmp_path / "b", *flags) == 0
    assert "an action lasts 0.02 s here, and lasted 0.1 s in the demonstrations of squares" in caplog.text
    caplog.clear()
    assert roll(tmp_path / "c", *flags, "--action_repeat", 5) == 0 and "an action lasts" not in caplog.text
