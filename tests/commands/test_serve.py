# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from cyclemimic.evaluation.policy import ChunkPolicy

msgpack = pytest.importorskip("msgpack")
connect = pytest.importorskip("websockets.asyncio.client").connect

IMAGE = np.full((32, 32, 3), 90, dtype=np.uint8)


def test_served_actions_are_the_policys_and_sigterm_ends_it(policy):
    command = [sys.executable, "-m", "cyclemimic.cli", "serve", "--policy", policy, "--port", "0", "--device", "cpu"]
    command += ["--num_action_steps", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stderr.readline, "")
            port = next(match[1] for line in lines if (match := re.search(r"at ws://127\.0\.0\.1:(\d+)", line)))
            answers = asyncio.run(ask(port, num_observations=2))
        finally:
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.endswith("Stopped; the policy looked at 1 observations, in 1 calls.\n")
    np.testing.assert_allclose(answers, load(policy).predict([IMAGE], ["go right"])[0, :2], rtol=1e-5)


async def ask(port: str, num_observations: int) -> list[np.ndarray]:
    """Actions for as many observations, the second out of the chunk of the first."""
    array = {"data": IMAGE.tobytes(), "dtype": "|u1", "shape": list(IMAGE.shape)}
    payload = {"images": {"any": {"__image__": True, "format": "raw", **array}}, "task_description": "go right"}
    actions = []
    async with connect(f"ws://127.0.0.1:{port}") as connection:
        for seq in range(num_observations):
            await connection.send(
                msgpack.packb({"type": "observation", "payload": payload, "seq": seq, "timestamp": 0.0})
            )
            answer = msgpack.unpackb(await connection.recv())
            assert (answer["type"], answer["seq"]) == ("action", seq)
            actions.append(np.frombuffer(answer["payload"]["actions"]["data"], np.float32))
    return actions


def load(policy) -> ChunkPolicy:
    from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor

    return ChunkPolicy(
        CycleMimicForActionPrediction.from_pretrained(policy), CycleMimicProcessor.from_pretrained(policy)
    )


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--port 70000", "`port` must be in [0, 65535], got 70000."),
        ("--max_batch_size 0", "`max_batch_size` must be at least 1, got 0."),
        ("--max_wait_ms nan", "`max_wait_ms` must be in [0, 10000], got nan."),
        ("--max_message_mb 0", "`max_message_mb` must be in [0.01, 1024], got 0.0."),
        ("--num_action_steps 99", "`num_action_steps` must be in [1, "),
        ("--benchmark nowhere.yaml", "`benchmark` must be a file such as"),
        ("--dataset nobody", "nobody"),
    ],
)
def test_faulty_arguments_are_refused(refuses, policy, flags, reason):
    assert reason in refuses("serve", "--policy", policy, *flags.split())


def test_a_gripper_of_other_values_is_refused(refuses, policy, tmp_path):
    file = tmp_path / "benchmark.yaml"
    file.write_text("gripper: {demonstrations: {open: 4, closed: 5}, benchmark: {open: 0, closed: 1}}")
    reason = refuses("serve", "--policy", policy, "--benchmark", file)
    assert f"`gripper` of {file} must have the demonstrations' values, which go from" in reason


def test_policy_without_action_decoder_is_refused(refuses, pretrained):
    assert "`policy` must be fine-tuned" in refuses("serve", "--policy", pretrained)


def test_missing_libraries_are_named(refuses, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install 'cyclemimic[serve]'" in refuses("serve", "--policy", "nowhere")
