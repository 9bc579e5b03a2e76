# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cyclemimic.serving.benchmark_format import (
    BenchmarkFormat,
    Gripper,
    GripperValues,
    Translator,
    read_benchmark_format,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "serving"
BENCHMARKS = ("libero", "calvin", "simpler")
# Its scenes as OpenVLA has them, whose seed is not that of the policy.
LIBERO = {"seed": 7, "env_seed": 0, "num_steps_wait": 10}
IMAGE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def translator(benchmark: str, num_cameras: int = 1, state_dim: int | None = None) -> Translator:
    return Translator(read_benchmark_format(EXAMPLES / f"{benchmark}.yaml"), num_cameras, 7, state_dim)


@pytest.mark.parametrize(
    ("benchmark", "expected"),
    [
        # Open and closed, as the three benchmarks take them (sign, sign, above one half).
        ("libero", ([1, 2, 3, 4, 5, 6, -1], [1, 2, 3, 4, 5, 6, 1])),
        ("calvin", ([0.02, 0.04, 0.06, 0.2, 0.25, 0.3, 1], [0.02, 0.04, 0.06, 0.2, 0.25, 0.3, 0])),
        ("simpler", ([1, 2, 3, 4, 5, 6, 1], [1, 2, 3, 4, 5, 6, 0])),
    ],
)
def test_actions_of_a_shipped_benchmark(benchmark, expected):
    actions = np.array([[1, 2, 3, 4, 5, 6, 1], [1, 2, 3, 4, 5, 6, 0]], dtype=np.float32)
    kept = actions.copy()
    np.testing.assert_allclose(translator(benchmark).write(actions), expected, rtol=1e-6)
    np.testing.assert_array_equal(actions, kept)


def test_a_gripper_of_other_values_is_refused(caplog):
    """LIBERO's own demonstrations, of -1 and 1, would come out as 3 and -1: closed for open."""
    gripper = read_benchmark_format(EXAMPLES / "libero.yaml").gripper
    gripper.check_range(0.0, 1.0, "libero.yaml")
    gripper.check_range(0.2, 1.05, "libero.yaml")
    gripper.check_range(1.0, 1.0, "libero.yaml")  # it never closes
    assert not caplog.messages
    # As of small things that it grips, or of numbers that are not those described.
    gripper.check_range(0.5, 1.0, "libero.yaml")
    assert "`gripper` of libero.yaml: the demonstrations' go from 0.5 to 1" in caplog.text
    for values in ((-1, 1), (0, 1.2)):
        with pytest.raises(
            ValueError, match="`gripper` of libero.yaml must have the demonstrations' values, which go from"
        ):
            gripper.check_range(*values, "libero.yaml")


@pytest.mark.parametrize(
    ("benchmark", "num_cameras", "state_dim", "expected"),
    [
        ("libero", 1, None, LIBERO),
        ("libero", 2, 8, LIBERO | {"send_wrist_image": True, "send_state": True, "quat_no_antipodal": True}),
        ("calvin", 2, None, {"send_wrist_image": True}),
        ("simpler", 1, 8, {"send_state": True}),
    ],
)
def test_benchmark_is_asked_for_what_the_policy_reads(benchmark, num_cameras, state_dim, expected):
    assert translator(benchmark, num_cameras, state_dim).settings == expected


def test_images_and_state_are_read():
    seen = translator("libero", 2, 8).read(
        {"images": {"wrist": IMAGE + 1, "agentview": IMAGE}, "task_description": "go", "states": np.arange(8.0)}
    )
    np.testing.assert_array_equal(seen.images, [IMAGE, IMAGE + 1])
    np.testing.assert_array_equal(seen.robot_state, np.arange(8.0))


def test_images_are_turned_where_it_says_so():
    (seen,) = (
        Translator(BenchmarkFormat(rotate_images=True), 1, 7)
        .read({"images": {"any": IMAGE}, "task_description": "go"})
        .images
    )
    np.testing.assert_array_equal(seen, np.rot90(IMAGE, 2))


def test_a_gripper_is_not_scaled():
    gripper = Gripper(demonstrations=GripperValues(open=1, closed=0), benchmark=GripperValues(open=-1, closed=1))
    described = BenchmarkFormat(action_scale=[0.5, 0.02], gripper=gripper)
    written = Translator(described, 1, 2).write(np.array([[1.0, 1.0], [-1.0, 0.0]]))
    np.testing.assert_array_equal(written, np.float32([[0.5, -1], [-0.5, 1]]))


@pytest.mark.parametrize("state", [None, [0.0] * 8, np.zeros(7), np.array([np.nan] * 8), np.array(["a"] * 8)])
def test_bad_state_is_refused(state):
    payload = {"images": {"agentview": IMAGE}, "task_description": "go", "states": state}
    with pytest.raises(ValueError, match="`states` must be 8 finite numbers, got"):
        translator("libero", 1, 8).read(payload)


@pytest.mark.parametrize(
    ("described", "shape", "reason"),
    [
        (BenchmarkFormat(["a"]), (2, 7, None), "`images` must name the policy's 2 cameras, got ['a']."),
        (BenchmarkFormat(), (1, 7, 8), "`robot_state` must be named"),
        (BenchmarkFormat(action_scale=[1.0]), (1, 7, None), "`action_scale` must have the policy's 7 dimensions"),
    ],
)
def test_policy_that_does_not_fit_is_refused(described, shape, reason):
    with pytest.raises(ValueError) as error:
        Translator(described, *shape)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("imags: [a]", "unexpected keyword argument 'imags'"),
        ("- a", "must be a file such as"),
        ("images: []", "`images` of "),
        ("action_scale: [.nan]", "`action_scale` of "),
        ("rotate_images: 180", "`rotate_images` of "),
        ("robot_state: 5", "`robot_state` of "),
        ("ask_for: {agentview: true}", "`ask_for` of "),
        ("gripper: {demonstrations: {open: 1, closed: 1}, benchmark: {open: 1, closed: 0}}", "`gripper` of "),
        ("gripper: {benchmark: {open: 1, closed: 0}}", "must be a file such as"),
        ("images: [a", "must be a file such as"),
        ("images: [a]\nimages: [b]", "'images' stands in it more than once"),
    ],
)
def test_faulty_file_is_refused(tmp_path, text, reason):
    path = tmp_path / "benchmark.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        read_benchmark_format(path)
    assert reason in str(error.value)
