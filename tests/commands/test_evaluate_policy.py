# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
from cyclemimic.commands.evaluate_policy import format_errors
from cyclemimic.data import open_source

from .conftest import INTERVAL, TRAINING


def test_errors_on_episodes_it_was_not_fine_tuned_on(verb, policy, square_data, tmp_path, capsys):
    output = tmp_path / "errors"
    flags = ["--policy", policy, "--data", square_data, "--output", output, "--device", "cpu"]
    assert verb("evaluate-policy", *flags, "--skip_episodes", "2", "--num_episodes", "1") == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["dimension", "0", "1", "2", "3", "mean", "Saved:"]
    assert printed[-1] == f"Saved: {output}, errors on 12 frames of 1 episodes"
    written = json.loads((output / "errors.json").read_text())
    assert (written["episodes"], written["frames"], written["arguments"]["dataset"]) == (1, 12, "squares")
    assert written["errors"]["policy"] == pytest.approx(first_errors(policy, square_data), rel=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["errors"]


@pytest.mark.parametrize(("skipped", "seen"), [(0, 2), (1, 1), (2, 0)])
def test_episodes_it_was_fine_tuned_on_are_told_of(verb, policy, square_data, tmp_path, caplog, skipped, seen):
    """Here of the first two of four."""
    known = shutil.copytree(policy, tmp_path / "policy")
    processor = CycleMimicProcessor.from_pretrained(policy)
    assert processor.action_statistics["squares"]["last_episode"] == 3
    processor.action_statistics["squares"]["last_episode"] = 1
    processor.save_pretrained(known)
    flags = ["--policy", known, "--data", square_data, "--output", tmp_path / "errors", "--device", "cpu"]
    assert verb("evaluate-policy", *flags, "--skip_episodes", str(skipped)) == 0
    told = [message for message in caplog.messages if "fine-tuned on" in message]
    assert [message.split(" may be ")[0] for message in told] == (
        [f"{seen} of {4 - skipped} episodes"] if seen else []
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_of_another_dtype(verb, policy, square_data, tmp_path, monkeypatch, dtype):
    """Which they are loaded in, and whose errors are those of as many digits."""
    loaded = []
    load = CycleMimicForActionPrediction.from_pretrained
    monkeypatch.setattr(
        CycleMimicForActionPrediction,
        "from_pretrained",
        lambda *args, **given: loaded.append(load(*args, **given)) or loaded[-1],
    )
    flags = ["--policy", policy, "--data", square_data, "--output", tmp_path / "errors", "--device", "cpu"]
    assert verb("evaluate-policy", *flags, "--skip_episodes", "2", "--num_episodes", "1", "--dtype", dtype) == 0
    ((model, _),) = loaded
    assert {each.dtype for each in model.backbone.parameters()} == {getattr(torch, dtype)}
    written = json.loads((tmp_path / "errors" / "errors.json").read_text())
    close = 1e-4 if dtype == "float32" else 0.02
    assert written["errors"]["policy"] == pytest.approx(first_errors(policy, square_data), rel=close)


def test_broken_episodes_do_not_count(verb, policy, square_data, tmp_path):
    """As in fine-tuning, which takes the first ones that can be used."""
    data = shutil.copytree(square_data, tmp_path / "squares")
    (file,) = data.glob("data/**/*.parquet")
    rows = pq.read_table(file)
    actions = rows["action"].to_pylist()
    actions[0] = [float("nan")] * 4
    column = pa.array(actions, rows.schema.field("action").type)
    pq.write_table(rows.set_column(rows.schema.get_field_index("action"), "action", column), file)
    flags = ["--policy", policy, "--data", data, "--output", tmp_path / "errors", "--device", "cpu"]
    assert verb("evaluate-policy", *flags, "--skip_episodes", "1", "--num_episodes", "1", "--skip_broken") == 0
    written = json.loads((tmp_path / "errors" / "errors.json").read_text())
    # Of episodes 0 to 3 the first is broken, the next is skipped.
    assert written["errors"]["policy"] == pytest.approx(first_errors(policy, square_data), rel=1e-4)


def first_errors(policy, data) -> float:
    """Worked out frame by frame, by the processor's own statistics."""
    processor = CycleMimicProcessor.from_pretrained(policy)
    model = CycleMimicForActionPrediction.from_pretrained(policy).eval()
    statistics = processor.action_statistics["squares"]
    scale = (np.array(statistics["q99"]) - statistics["q01"]) / 2
    episode = open_source(data)[2]
    errors = []
    for index, image in enumerate(episode.read_frames()):
        chunk = processor.post_process_actions(
            model.predict_action_chunk(**processor(images=image, text=episode.instruction))
        )[0]
        true = episode.actions[index : index + len(chunk)]
        errors.extend(np.abs(chunk[: len(true)] - true) / scale)
    return float(np.mean(errors))


def test_the_table():
    errors = {"policy": 0.25, "mean_action": 0.5, "last_action": 1.0, "dimensions": [3]}
    errors["per_dimension"] = {"policy": [0.25], "mean_action": [0.5], "last_action": [1.0]}
    assert [line.split() for line in format_errors(errors).splitlines()[1:]] == [
        ["3", "0.250", "0.500", "1.000"],
        ["mean", "0.250", "0.500", "1.000"],
    ]


def test_the_camera_that_it_was_fine_tuned_with(verb, tokenizer, two_camera_data, pretrained, tmp_path):
    flags = ["--policy", pretrained, "--data", two_camera_data, "--tokenizer", tokenizer, "--camera", "wrist"]
    assert verb("finetune", *flags, "--output_dir", tmp_path / "policy", *TRAINING, *INTERVAL) == 0
    errors = {}
    for camera in ([], ["--camera", "wrist"], ["--camera", "front"]):
        output = tmp_path / "-".join(["errors", *camera])
        flags = ["--policy", tmp_path / "policy", "--data", two_camera_data, "--output", output, "--device", "cpu"]
        assert verb("evaluate-policy", *flags, *camera) == 0
        errors[tuple(camera)] = json.loads((output / "errors.json").read_text())["errors"]["policy"]
    assert errors[()] == errors["--camera", "wrist"] != errors["--camera", "front"]
    # A data set of another name, as held-out ones are, is seen by the same camera.
    held_out = shutil.copytree(two_camera_data, tmp_path / "held_out")
    flags = ["--policy", tmp_path / "policy", "--data", held_out, "--output", tmp_path / "held_out_errors"]
    assert verb("evaluate-policy", *flags, "--device", "cpu") == 0
    written = json.loads((tmp_path / "held_out_errors" / "errors.json").read_text())
    assert written["errors"]["policy"] == errors[()]
    assert written["arguments"]["camera"] == "observation.images.wrist"


def test_several_cameras(verb, tokenizer, two_camera_data, pretrained, tmp_path):
    output = tmp_path / "policy"
    flags = [
        "--policy",
        pretrained,
        "--data",
        two_camera_data,
        "--tokenizer",
        tokenizer,
        "--cameras",
        "front",
        "wrist",
    ]
    assert verb("finetune", *flags, "--output_dir", output, *TRAINING, *INTERVAL) == 0
    flags = ["--policy", output, "--data", two_camera_data, "--output", tmp_path / "errors", "--device", "cpu"]
    assert verb("evaluate-policy", *flags) == 0
    assert json.loads((tmp_path / "errors" / "errors.json").read_text())["frames"] == 24


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--skip_episodes 4", "`skip_episodes` must be in [0, 3], as the data has episodes, got 4."),
        ("--skip_episodes 3 --num_episodes 2", "`num_episodes` must be in [1, 1], what is left, got 2."),
        ("--batch_size 0", "`batch_size` must be at least 1, got 0."),
        ("--dataset nobody", "nobody"),
    ],
)
def test_faulty_arguments_are_refused(refuses, policy, square_data, tmp_path, flags, reason):
    given = ["--policy", policy, "--data", square_data, "--output", tmp_path / "errors", *flags.split()]
    assert reason in refuses("evaluate-policy", *given)
    assert list(tmp_path.iterdir()) == []


def test_policy_without_action_decoder_is_refused(refuses, pretrained, square_data, tmp_path):
    given = ["--policy", pretrained, "--data", square_data, "--output", tmp_path / "errors"]
    assert "`policy` must be fine-tuned" in refuses("evaluate-policy", *given)


def test_actions_of_another_size_are_refused(refuses, policy, other_sized, tmp_path):
    given = ["--policy", policy, "--data", other_sized, "--output", tmp_path / "errors"]
    assert "`data` must have actions of the policy's size 4, got 2." in refuses("evaluate-policy", *given)


@pytest.fixture
def other_sized(tmp_path_factory):
    from cyclemimic.data import LeRobotWriter

    root = tmp_path_factory.mktemp("data") / "squares"
    with LeRobotWriter(root, 10, "square", ["x", "y"]) as writer:
        writer.add_episode(np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 2)), "go right")
    return root


def test_data_of_another_frame_rate_is_refused(refuses, policy, square_data, tmp_path):
    faster = shutil.copytree(square_data, tmp_path / "faster")
    path = faster / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fps": 50}))
    flags = ["--policy", policy, "--data", faster, "--output", tmp_path / "errors", "--device", "cpu"]
    assert "`data` must have the frame rate that the policy's actions are for, 10, got 50" in refuses(
        "evaluate-policy", *flags, "--dataset", "squares"
    )
    assert not (tmp_path / "errors").exists()
