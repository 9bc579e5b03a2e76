# SPDX-License-Identifier: Apache-2.0
"""The benchmark of rollouts, on a tiny policy and a stand-in simulator."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
from cyclemimic.models.cyclemimic.tiny_cyclemimic import make_tiny_backbone_config

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "rollout_throughput" / "measure.py"

# Succeeds in the episodes of even seeds.
BLINK = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box

class Blink(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    action_space = Box(-1, 1, (2,), np.float32)
    observation_space = Box(0, 255, (32, 32, 3), np.uint8)
    instruction = "go left"

    def __init__(self, render_mode):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        return self.np_random.integers(0, 256, (32, 32, 3), dtype=np.uint8), {}

    def step(self, action):
        self.steps += 1
        over = self.steps == 4
        return np.zeros((32, 32, 3), np.uint8), 0.0, False, over, {"success": over and self.seed % 2 == 0}

gymnasium.register("stand_in/Blink-v0", Blink, max_episode_steps=6)
"""


@pytest.fixture
def measure(monkeypatch):
    spec = importlib.util.spec_from_file_location("rollout_throughput", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def policy(tmp_path) -> Path:
    """A checkpoint with random weights."""
    processor = CycleMimicProcessor.from_texts(["go left"], image_size=32, chunk_size=4, action_dim=2)
    processor.add_action_statistics("squares", {"q01": [-1.0] * 2, "q99": [1.0] * 2})
    backbone = make_tiny_backbone_config(processor, 32, hidden_size=32, num_text_layers=1)
    config = processor.make_config(backbone, action_decoder_hidden_size=32, action_decoder_num_heads=1)
    CycleMimicForActionPrediction(config).save_pretrained(tmp_path / "policy")
    processor.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_all_ways_are_played(measure, policy, tmp_path, monkeypatch, capsys):
    (tmp_path / "stand_in_blink.py").write_text(BLINK)
    monkeypatch.syspath_prepend(tmp_path)
    flags = ["--policy", str(policy), "--env", "gym:stand_in_blink:stand_in/Blink-v0", "--action_repeat", "1"]
    monkeypatch.setattr(sys, "argv", ["measure.py", *flags, "--episodes", "9", "--rounds", "2"])
    measure.main()
    printed = capsys.readouterr().out
    assert "same results: 5 of 9 succeed" in printed
    for way in ("one by one, batches of one", "one by one, batches of four"):
        assert printed.count(f"| {way} |") == 2
    assert "| eight at once, two processes |" in printed


@pytest.fixture
def ways(measure):
    """Rounds of ten episodes, one of them of another course with batches of one."""
    results = [("drawer", number < 3, 20) for number in range(10)]
    single = measure.Way("ones", 1, 1, 1, [20.0, 30.0], [8.0, 8.0], [12.0, 12.0], [("drawer", True, 5), *results[1:]])
    even = measure.Way("fours", 1, 1, 4, [40.0, 40.0], [20.0, 30.0], [10.0, 20.0], results)
    return single, even, measure.Way("eight", 8, 2, 4, [10.0, 10.0], [4.0, 6.0], [12.0, 12.0], results)


def test_report(measure, ways):
    report = measure.report(*ways, cores=2).splitlines()
    assert report[:2] == ["same results: 3 of 10 succeed", "with batches of one, 9 of 10 episodes come to the same"]
    assert report[5:8] == [
        "| ones | 24 | 0.80 | 1.20 |",
        "| fours | 15 | 2.50 | 1.50 |",
        "| eight | 60 | 0.50 | 1.20 |",
    ]
    # 5 s and 12 s on two cores take 8.5 s: 20 / 8.5 and 40 / 8.5.
    assert report[-2:] == ["| ones | 2.50 | 2.00 to 3.00 | 2.35 |", "| fours | 4.00 | 4.00 to 4.00 | 4.71 |"]


def test_the_bound_is_that_of_the_simulators_or_of_the_policy_where_cores_are_many(measure, ways):
    single, _, at_once = ways
    assert measure.bound(at_once, single, cores=16) == pytest.approx(20 / 6)
    at_once.policy_seconds = [10.0, 10.0]
    assert measure.bound(at_once, single, cores=16) == pytest.approx(2)


def test_other_results_are_an_error(measure, ways):
    ways[2].results = ways[2].results[::-1]
    with pytest.raises(SystemExit, match="the results differ"):
        measure.report(*ways, cores=2)


def test_a_policy_that_is_not_there_is_named_before_anything_starts(measure, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["measure.py", "--policy", str(tmp_path / "nothing")])
    with pytest.raises(
        SystemExit, match="^measure.py: `policy` must be a checkpoint folder or a Hub id, got .*nothing"
    ):
        measure.main()
