# SPDX-License-Identifier: Apache-2.0
"""Environments of one's own, by id and by where they are made."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from cyclemimic.evaluation.environments.gymnasium import _warn_of_silence
from cyclemimic.evaluation.environments.simulator import SimulatorError, UnfitEnvironment, open_simulator

pytest.importorskip("gymnasium")

# A point that goes up; above 1 it has arrived, below 0 it has fallen.
CLIMB = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

class Climb(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    action_space = Box(-1, 1, (2,), np.float32)
    observation_space = Box(0, 9, (1,), np.float32)
    instruction = "climb"

    def __init__(self, render_mode="rgb_array"):
        self.render_mode = render_mode

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.height = self.np_random.uniform(0.4, 0.6)
        return self.observe(), {}

    def observe(self):
        return np.array([self.height], np.float32)

    def step(self, action):
        self.height += float(action[0])
        return self.observe(), 0.0, self.height > 1 or self.height < 0, False, self.inform()

    def inform(self):
        return {"is_success": np.bool_(self.height > 1)}

    def render(self):
        return np.full((4, 6, 3), int(abs(self.height) * 100), np.uint8)

class Seeing(Climb):
    observation_space = Dict({"pixels": Box(0, 255, (4, 6, 3), np.uint8), "agent_pos": Box(0, 9, (1,), np.float64)})
    instruction = None

    def reset(self, **settings):
        observation, _ = super().reset(**settings)
        return observation, {"instruction": "look"}

    def observe(self):
        return {"pixels": np.full((4, 6, 3), 7, np.uint8), "agent_pos": np.array([self.height])}

    def inform(self):
        return {}

class Silent(Seeing):
    def step(self, action):
        return *super().step(action)[:2], False, True, {}

class Forgetful(Climb):
    def inform(self):
        return {"success": False} if 0 <= self.height <= 1 else {}

class Promising(Climb):
    def reset(self, **settings):
        observation, _ = super().reset(**settings)
        return observation, {"is_success": False}

    def inform(self):
        return {}

class Legacy(Climb):
    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.height = np.random.RandomState(seed).uniform(0.4, 0.6)
        return self.observe(), {}

class Timeless(Climb):
    metadata = {"render_modes": ["rgb_array"]}

class TwoEyes(Seeing):
    observation_space = Dict({name: Box(0, 255, (4, 6, 3), np.uint8) for name in ("left", "right")})

class Nested(Seeing):
    observation_space = Dict(
        {"pixels": Box(0, 255, (4, 6, 3), np.uint8), "agent_pos": Dict({"arm": Box(0, 9, (1,), np.float64)})}
    )

class Buttons(Climb):
    action_space = Discrete(3)

class Mute(Climb):
    instruction = None

class Grey(Climb):
    def render(self):
        return np.zeros((4, 6), np.uint8)

class Redrawing(Climb):
    picture = np.zeros((4, 6, 3), np.uint8)

    def render(self):
        self.picture[:] = int(abs(self.height) * 100)
        return self.picture

class Seedless(Climb):
    def reset(self):
        return super().reset()

class Terse(Climb):
    def reset(self, seed=None, options=None):
        return super().reset(seed=seed)[0]

class Old(Climb):
    def step(self, action):
        observation, reward, terminated, _, information = super().step(action)
        return observation, reward, terminated, information

class Vague(Climb):
    def inform(self):
        return {"success": np.array([True, False])}

class Saying(Climb):
    word = None

    def inform(self):
        return {"success": self.word}

class Growing(Climb):
    def render(self):
        return np.zeros((4, 6 + int(self.height > 0.7), 3), np.uint8)

class ChannelsFirst(Climb):
    observation_space = Box(0, 255, (3, 4, 6), np.uint8)

    def render(self):
        return gymnasium.Env.render(self)

class Numbered(Climb):
    instruction = 3

class Broken(Climb):
    def reset(self, seed=None, options=None):
        raise ValueError("the arm is at [1, 2]")

def forgotten():
    Climb()

if "stand_in/Climb-v0" not in gymnasium.registry:
    gymnasium.register("stand_in/Climb-v0", Climb, max_episode_steps=30)
    gymnasium.register("stand_in/Seedless-v0", Seedless, max_episode_steps=30)
"""


@pytest.fixture(autouse=True)
def climb(tmp_path, monkeypatch):
    (tmp_path / "stand_in_climb.py").write_text(CLIMB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(importlib.sys.modules, "stand_in_climb", raising=False)


def make(env, terminated_is=None, **settings):
    simulator = open_simulator(env, terminated_is=terminated_is)
    return simulator.make_environment(simulator.tasks[0], **settings)


def test_a_frame_stays_as_it_was_where_all_are_drawn_into_one():
    environment = make("gym:stand_in_climb:Redrawing")
    environment.reset(0)
    first = environment.render()
    before = first.copy()
    environment.step(np.array([0.3, 0]))
    assert (environment.render() != first).all() and (first == before).all()


def test_by_id():
    simulator = open_simulator("gym:stand_in_climb:stand_in/Climb-v0")
    assert (simulator.action_dim, simulator.max_steps, simulator.control_rate_hz) == (2, 30, 5)
    assert simulator.state_dim is None
    environment = simulator.make_environment(simulator.tasks[0])
    environment.reset(3)
    first = environment.render()
    assert first.shape == (4, 6, 3) and environment.instruction == "climb"
    assert environment.step(np.array([0.1, 0])) is False
    environment.reset(3)
    np.testing.assert_array_equal(environment.render(), first)
    assert environment.step(np.array([9.0, 0])) is True  # no further than the limit of 1
    assert environment.render()[0, 0, 0] == int((first[0, 0, 0] / 100 + 1) * 100)


def test_a_state_of_several_parts_is_not_read():
    assert open_simulator("gym:stand_in_climb:Seeing").state_dim == 1
    assert open_simulator("gym:stand_in_climb:Nested").state_dim is None


def test_an_end_without_success():
    environment = make("gym:stand_in_climb:Climb")
    environment.reset(0)
    assert environment.step(np.array([-1.0, 0])) is None


def test_an_end_is_no_success_where_success_was_spoken_of_before():
    environment = make("gym:stand_in_climb:Forgetful")
    environment.reset(0)
    assert environment.step(np.array([0.1, 0])) is False
    assert environment.step(np.array([-1.0, 0])) is None
    environment = make("gym:stand_in_climb:Forgetful", action_repeat=5)
    environment.reset(0)
    assert environment.step(np.array([-0.3, 0])) is None
    environment = make("gym:stand_in_climb:Promising")
    environment.reset(0)
    assert environment.step(np.array([-1.0, 0])) is None


def test_what_success_is_does_not_depend_on_the_episodes_before():
    environment = make("gym:stand_in_climb:Forgetful", "success")
    ends = []
    for actions in ([1.0], [0.1, -1.0], [1.0]):
        environment.reset(0)
        ends.append([environment.step(np.array([action, 0])) for action in actions][-1])
    assert ends == [True, None, True]


@pytest.mark.parametrize(("said", "end"), [("success", True), ("failure", None)])
def test_where_no_success_is_told_it_must_be_said_what_an_end_is(said, end):
    environment = make("gym:stand_in_climb:Seeing")
    environment.reset(0)
    with pytest.raises(
        UnfitEnvironment, match="`terminated_is` must say what it is when stand_in_climb:Seeing termin"
    ):
        environment.step(np.array([1.0, 0]))
    environment = make("gym:stand_in_climb:Seeing", said)
    environment.reset(0)
    assert environment.step(np.array([1.0, 0])) is end
    with pytest.raises(ValueError, match="`terminated_is` must be left out for pusht, which tells success"):
        open_simulator("pusht", terminated_is=said)


@pytest.mark.parametrize(
    ("name", "said", "warned"), [("Silent", None, 1), ("Silent", "failure", 0), ("Forgetful", None, 0)]
)
def test_an_end_without_a_word_of_success_is_noticed_once(name, said, warned, caplog):
    _warn_of_silence.cache_clear()
    environment = make(f"gym:stand_in_climb:{name}", said)
    for _ in range(2):
        environment.reset(0)
        while environment.step(np.array([-0.3, 0])) is not None:
            pass
    assert [record.getMessage() for record in caplog.records] == [
        f"an episode of stand_in_climb:{name} ended without `is_success` or `success` in its infos, "
        "and counts as failed, as all such do"
    ] * warned


@pytest.mark.parametrize(("name", "warned"), [("Seeing", 1), ("Climb", 0)])
@pytest.mark.parametrize("end", ["reset", "close"])
def test_an_episode_that_is_cut_without_a_word_of_success_is_noticed(name, warned, end, caplog):
    _warn_of_silence.cache_clear()
    environment = make(f"gym:stand_in_climb:{name}")
    environment.reset(0)
    environment.reset(0)
    assert environment.step(np.array([0.1, 0])) is False
    assert not caplog.records
    environment.reset(1) if end == "reset" else environment.close()
    assert [f"an episode of stand_in_climb:{name} ended without" in each.getMessage() for each in caplog.records] == [
        True
    ] * warned


@pytest.mark.parametrize(
    ("word", "success"),
    [
        (True, True),
        (np.False_, False),
        (1, True),
        (0.0, False),
        (np.float32(1), True),
        (np.array([1]), True),
        ([False], False),
        (np.array(True), True),
    ],
)
def test_words_of_success(word, success):
    environment = make("gym:stand_in_climb:Saying")
    environment.reset(0)
    environment._env.word = word
    assert environment.step(np.zeros(2)) is success


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("no", "'no'"),
        ("", "''"),
        (float("nan"), "nan"),
        (0.3, "0.3"),
        (2, "2"),
        (None, "None"),
        ({}, "dict"),
        (np.array([0.3]), r"numpy.ndarray of shape \(1,\)"),
    ],
)
def test_what_may_mean_success_or_not_is_refused(word, shown):
    environment = make("gym:stand_in_climb:Saying")
    environment.reset(0)
    environment._env.word = word
    with pytest.raises(
        UnfitEnvironment, match=f"one truth value as `success` of `step`, .*, got {shown} of stand_in_climb:Saying"
    ):
        environment.step(np.zeros(2))


def test_images_of_another_size_later_in_an_episode_are_refused():
    environment = make("gym:stand_in_climb:Growing")
    environment.reset(0)
    environment.render()
    environment.step(np.array([0.35, 0]))
    message = r"images of one size in an episode, got \(4, 7, 3\) after \(4, 6, 3\) of stand_in_climb:Growing"
    with pytest.raises(UnfitEnvironment, match=message):
        environment.render()
    environment.reset(0)
    environment.render()


def test_any_seed_will_do():
    environment = make("gym:stand_in_climb:Legacy")
    environment.reset(2**32 * 7 + 3)
    first = environment.render()
    environment.reset(3)
    np.testing.assert_array_equal(environment.render(), first)


def test_a_rate_that_is_not_told_is_known_to_be_a_guess():
    assert open_simulator("gym:stand_in_climb:Climb").tells_rate
    simulator = open_simulator("gym:stand_in_climb:Timeless")
    assert (simulator.control_rate_hz, simulator.tells_rate) == (10.0, False)


def test_an_action_that_lasts():
    environment = make("gym:stand_in_climb:Climb", action_repeat=5)
    environment.reset(0)
    assert environment.step(np.array([0.2, 0])) is True


def test_images_state_and_words_out_of_the_observations():
    environment = make("gym:stand_in_climb:Seeing")
    environment.reset(0)
    assert environment.render().mean() == 7 and environment.instruction == "look"
    assert environment.state.shape == (1,) and environment.state.dtype == np.float32
    assert environment.step(np.array([0.1, 0])) is False


@pytest.mark.parametrize(
    ("env", "error", "message"),
    [
        ("gym:Nowhere-v0", ValueError, "`env` must name an environment that can be made, got Nowhere-v0"),
        ("gym:no_such_module:Env", SimulatorError, "for which no_such_module is neither installed nor on PYTHONPATH"),
        ("gym:stand_in_climb:Nobody", ValueError, "`env` must name an environment that can be made"),
        ("gym:stand_in_climb:Buttons", ValueError, "must have actions that are a vector of floats, got Discrete"),
        ("gym:stand_in_climb:TwoEyes", ValueError, r"one image in its observations, got \['left', 'right'\]"),
        ("gym:stand_in_climb:Mute", ValueError, "`instruction` must be given for stand_in_climb:Mute"),
        ("gym:stand_in_climb:Grey", ValueError, r"must show uint8 images \(height, width, 3\), got uint8 \(4, 6\)"),
        (
            "gym:stand_in_climb:ChannelsFirst",
            UnfitEnvironment,
            r"which stand_in_climb:ChannelsFirst lacks, got observations Box\(0, 255, \(3, 4, 6\), uint8\)",
        ),
        (
            "gym:stand_in_climb:Numbered",
            UnfitEnvironment,
            "`instruction` must be a text, got int of stand_in_climb:Num",
        ),
        (
            "gym:stand_in_climb:forgotten",
            UnfitEnvironment,
            r"must name a gymnasium.Env or what returns one, got None of stand_in_climb:forgotten\.$",
        ),
        ("gym:builtins:dict", UnfitEnvironment, r"must name a gymnasium.Env or what returns one, got dict of"),
        (
            "gym:stand_in_climb:Seedless",
            UnfitEnvironment,
            r"must have a `reset` that takes `seed`, got reset\(\) of stand_in_climb:Seedless\.$",
        ),
        ("gym:stand_in_climb:stand_in/Seedless-v0", UnfitEnvironment, r"takes `seed`, got reset\(\) of"),
        (
            "gym:stand_in_climb:Terse",
            UnfitEnvironment,
            r"an observation and a dictionary of `reset`, got numpy.ndarray of shape \(1,\) of stand_in_climb:Terse",
        ),
        ("gym:", ValueError, "`env` must be metaworld:TASK"),
        ("pusht:left", ValueError, "`env` must be metaworld:TASK"),
        ("maze:1", ValueError, "`env` must be metaworld:TASK"),
    ],
)
def test_what_cannot_be_played_is_said_at_once(env, error, message):
    with pytest.raises(error, match=message):
        open_simulator(env)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Old", r"five values of `step`, .*, got a tuple of 4 \(ndarray, float, bool, dict\) of stand_in_climb:Old"),
        (
            "Vague",
            r"one truth value as `success` of `step`, .*, got numpy.ndarray of shape \(2,\) of stand_in_climb:Vague",
        ),
    ],
)
def test_what_a_step_must_return(name, message):
    environment = make(f"gym:stand_in_climb:{name}")
    environment.reset(0)
    with pytest.raises(UnfitEnvironment, match=message):
        environment.step(np.zeros(2))


def test_what_the_users_code_raises_keeps_its_traceback():
    with pytest.raises(RuntimeError, match=r"environment failed: ValueError: the arm is at \[1, 2\]") as caught:
        open_simulator("gym:stand_in_climb:Broken")
    assert str(caught.traceback[-1].path).endswith("gymnasium.py")
    assert caught.value.__cause__.__traceback__ is not None  # which the command line shows, as of no ValueError


def test_words_of_ones_own():
    assert open_simulator("gym:stand_in_climb:Mute", instruction="go up").tasks == ("stand_in_climb:Mute",)


def test_image_size_is_the_environments_own():
    with pytest.raises(ValueError, match="`image_size` must be left out for gym"):
        open_simulator("gym:stand_in_climb:Climb", image_size=32)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("ModuleNotFoundError('x', name='pymunk')", r'not installed: pip install "cyclemimic\[pusht\]"'),
        (
            "ImportError('libGL.so.1: no such file')",
            r"cannot run here \(libGL.so.1: no such file\); on Debian: apt-get",
        ),
    ],
)
def test_what_pusht_lacks_is_said(tmp_path, monkeypatch, fault, message):
    (tmp_path / "gym_pusht.py").write_text(f"raise {fault}")
    for name in [name for name in importlib.sys.modules if name.partition(".")[0] == "gym_pusht"]:
        monkeypatch.delitem(importlib.sys.modules, name)
    with pytest.raises(SimulatorError, match=message):
        open_simulator("pusht")


def test_pusht():
    try:
        simulator = open_simulator("pusht", image_size=64)
    except SimulatorError as error:
        assert "cyclemimic[pusht]" in str(error) or "apt-get install libgl1" in str(error)
        pytest.skip(str(error))
    assert (simulator.action_dim, simulator.state_dim, simulator.max_steps) == (2, 2, 300)
    environment = simulator.make_environment("pusht")
    environment.reset(1)
    first, state = environment.render(), environment.state
    assert first.shape == (64, 64, 3)
    environment.step(np.array([600.0, 20.0]))
    assert (environment.state != state).all()
    environment.reset(1)
    np.testing.assert_array_equal(environment.render(), first)
