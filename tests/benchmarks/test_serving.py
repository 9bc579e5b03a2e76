# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the server, on a policy of no weights."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

import pytest

from ..serving.harness_client import run_with_server

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "serving"
NUM_KINDS = 20


@pytest.fixture
def measure(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module("measure")
    sys.modules.pop("measure", None)


def test_all_are_answered_and_the_malformed_refused(measure):
    async def talk(parts):
        address = f"ws://{parts.address}"
        answers = await measure.ask_all(address, num_clients=4, num_observations=12)
        first_pixels = [
            [measure.observation(client, seq)["images"]["front"][0, 0, 0] for seq in range(3)] for client in range(4)
        ]
        assert answers[:, :, 0].tolist() == first_pixels
        reasons = await asyncio.to_thread(measure.send_malformed, address, NUM_KINDS + 1)
        assert len(reasons) == NUM_KINDS and all(reasons.values())
        assert await asyncio.to_thread(measure.refusal, address, measure.pack(measure.observation(0, 0))) is None

    run_with_server(talk, max_message_mb=measure.MAX_MESSAGE_MB)
