# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from cyclemimic.serving.batcher import PolicyBatcher
from cyclemimic.serving.benchmark_format import BenchmarkFormat, Observation

from .harness_client import ACTION_DIM, CHUNK_SIZE, StubPolicy, actions_of, connect, observation, pack, run_with_server

exceptions = pytest.importorskip("websockets.exceptions")


def test_each_client_gets_its_own_answers_in_order():
    num_clients, num_observations = 8, 20

    async def robot(parts, number):
        client = await parts.connect()
        for seq in range(num_observations):  # all at once, before any answer
            await client.connection.send(pack("observation", observation(number, "x" * (1 + seq)), seq))
        answers = [await client.receive() for _ in range(num_observations)]
        assert [answer["seq"] for answer in answers] == list(range(num_observations))
        seen = np.stack([actions_of(answer) for answer in answers])
        np.testing.assert_array_equal(seen[:, 0], number)
        np.testing.assert_array_equal(seen[:, 1], 1 + np.arange(num_observations))

    async def talk(parts):
        await asyncio.gather(*(robot(parts, number) for number in range(num_clients)))

    policy = run_with_server(talk)
    assert sum(policy.batches) == num_clients * num_observations


@pytest.mark.parametrize(("max_batch_size", "expected"), [(4, [4]), (3, [1, 3]), (1, [1, 1, 1, 1])])
def test_who_asks_at_once_is_answered_at_once(max_batch_size, expected):
    async def talk(parts):
        clients = [await parts.connect() for _ in range(4)]
        await asyncio.gather(*(client.act(observation(n)) for n, client in enumerate(clients)))

    policy = run_with_server(talk, max_batch_size=max_batch_size, max_wait_ms=500)
    assert sorted(policy.batches) == expected


def test_who_is_alone_waits_for_nobody():
    async def talk(parts):
        client, other = await parts.connect(), await parts.connect()
        await other.connection.close()
        async with asyncio.timeout(5):
            await client.act(observation())

    assert run_with_server(talk, max_wait_ms=10_000).batches == [1]


def test_others_who_are_silent_are_not_waited_for_long():
    async def talk(parts):
        client, _ = await parts.connect(), await parts.connect()
        async with asyncio.timeout(5):
            await client.act(observation())

    assert run_with_server(talk, max_wait_ms=1).batches == [1]


def test_who_has_gone_while_waiting_takes_nobody_else():
    async def main():
        batcher = PolicyBatcher(StubPolicy(), 2, 0.01)
        answering = asyncio.create_task(batcher.run())
        seen = Observation([np.zeros((4, 4, 3), np.uint8)], "go")
        gone, other = (asyncio.create_task(batcher.predict(seen)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        async with asyncio.timeout(5):
            for waiting in (other, batcher.predict(seen)):
                assert (await waiting).shape == (CHUNK_SIZE, ACTION_DIM)
        answering.cancel()

    asyncio.run(main())


def test_chunk_is_carried_out_and_forgotten_with_the_episode():
    async def talk(parts):
        one, other = await parts.connect(), await parts.connect()
        steps = [await one.act(observation(value)) for value in range(CHUNK_SIZE + 1)]
        # The image of a chunk's first step counts, and the other's steps do not.
        assert [tuple(step[[0, 2]]) for step in steps] == [(0, 0), (0, 1), (0, 2), (3, 0)]
        assert tuple((await other.act(observation(9)))[[0, 2]]) == (9, 0)
        await one.connection.send(pack("episode_start", {"task": {}}, 5))
        assert tuple((await one.act(observation(7)))[[0, 2]]) == (7, 0)
        await one.connection.send(pack("episode_end", {}, 6))
        assert tuple((await one.act(observation(8)))[[0, 2]]) == (8, 0)
        # CALVIN's next instruction, within the episode.
        assert tuple((await one.act(observation(6, episode_restart=True)))[[0, 2]]) == (6, 0)
        assert tuple((await other.act(observation(1)))[[0, 2]]) == (9, 1)

    run_with_server(talk, num_action_steps=CHUNK_SIZE)


def test_hello_asks_for_what_the_policy_reads():
    described = BenchmarkFormat(["front", "wrist"], ask_for={"wrist": {"w": True}}, settings={"seed": 7})

    async def talk(parts):
        answer = await (await parts.connect()).ask("hello", {"harness_version": "0.8.0"}, 3)
        assert (answer["type"], answer["seq"]) == ("hello", 3)
        assert answer["payload"]["protocol_version"] == 1
        assert answer["payload"]["observation_params"] == {"seed": 7}  # one camera: no wrist

    run_with_server(talk, described)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"task_description": "go"}, "`images` must be a map of images, got NoneType."),
        (observation() | {"images": {}}, "`images` must hold one image, got []."),
        (observation() | {"images": {"front": [1]}}, "got list as 'front'"),
        (observation() | {"images": {"front": np.zeros((8, 8, 3), np.float32)}}, "got float32 of (8, 8, 3)"),
        (observation() | {"images": {"front": np.zeros((8, 8), np.uint8)}}, "got uint8 of (8, 8)"),
        (observation() | {"images": {"front": np.zeros((0, 8, 3), np.uint8)}}, "got uint8 of (0, 8, 3)"),
        (observation() | {"task_description": " "}, "must be an instruction of 1 to 2000 characters, got ' '."),
        (observation() | {"task_description": "x" * 3000}, "must be an instruction of 1 to 2000 characters"),
        (observation() | {"task_description": 3}, "`task_description` must be an instruction"),
    ],
)
def test_bad_observation_is_refused_with_a_reason(payload, reason):
    async def talk(parts):
        client = await parts.connect()
        answer = await client.ask("observation", payload, 4)
        assert (answer["type"], answer["seq"]) == ("error", 4)
        assert reason in answer["payload"]["error"]
        await client.act(observation())

    run_with_server(talk)


def test_failing_policy_is_an_error_for_those_who_asked():
    async def talk(parts):
        client = await parts.connect()
        parts.policy.gate = lambda: 1 / 0
        answer = await client.ask("observation", observation(), 2)
        assert answer["payload"] == {"error": "the policy failed: division by zero"}
        parts.policy.gate = lambda: None
        await client.act(observation())

    run_with_server(talk)


@pytest.mark.parametrize("shape", [(CHUNK_SIZE, ACTION_DIM), (2, CHUNK_SIZE, ACTION_DIM)])
def test_a_policy_of_other_chunks_is_an_error_and_asked_again(shape):
    async def talk(parts):
        client = await parts.connect()
        parts.policy.predict = lambda *seen: np.zeros(shape, np.float32)
        for _ in range(2):
            answer = await client.ask("observation", observation())
            assert f"1 observations became actions of shape {shape}" in answer["payload"]["error"]

    run_with_server(talk)


def test_one_bad_observation_of_a_batch_is_not_the_others_error():
    async def talk(parts):
        clients = [await parts.connect() for _ in range(4)]
        payloads = [observation(n, "bad" if n == 1 else "go") for n in range(4)]
        asked = [client.ask("observation", payload) for client, payload in zip(clients, payloads, strict=True)]
        answers = await asyncio.gather(*asked)
        assert [answer["type"] for answer in answers] == ["action", "error", "action", "action"]
        assert [actions_of(answers[n])[0] for n in (0, 2, 3)] == [0, 2, 3]

    assert run_with_server(talk, max_batch_size=4, max_wait_ms=500).batches == [4, 1, 1, 1, 1]


def test_larger_message_ends_its_client_alone():
    async def talk(parts):
        greedy, other = await parts.connect(), await parts.connect()
        await greedy.connection.send(b"x" * (2**20 + 1))
        with pytest.raises(exceptions.ConnectionClosedError) as closed:
            await greedy.receive()
        assert closed.value.rcvd.code == 1009 and "exceeds limit of 1048576 bytes" in closed.value.rcvd.reason
        await other.act(observation())

    run_with_server(talk, max_message_mb=1)


def test_health_and_a_page_in_a_browser():
    async def talk(parts):
        response = await asyncio.to_thread(urllib.request.urlopen, f"http://{parts.address}/health")
        assert (response.status, response.read()) == (200, b'{"status": "ok"}\n')
        assert response.headers.get_all("Content-Type") == ["application/json"]
        with pytest.raises(exceptions.InvalidStatus, match="403"):
            await connect(f"ws://{parts.address}", origin="https://example.org")

    run_with_server(talk)


def test_stop_answers_who_waits_and_takes_nobody_else():
    async def talk(parts):
        computing, go_on = threading.Event(), threading.Event()
        parts.policy.gate = lambda: (computing.set(), go_on.wait(10))
        client, idle = await parts.connect(), await parts.connect()
        asking = asyncio.create_task(client.act(observation(5)))
        await asyncio.to_thread(computing.wait, 10)
        parts.server.stop()
        with pytest.raises(exceptions.ConnectionClosed, match="the server stops"):
            await idle.receive()
        with pytest.raises(OSError):
            await parts.connect()
        go_on.set()
        assert (await asking)[0] == 5
        with pytest.raises(exceptions.ConnectionClosed, match="the server stops"):
            await client.receive()
        async with asyncio.timeout(5):
            await parts.serving

    run_with_server(talk)


def test_a_policy_that_hangs_holds_nobody_for_ever(monkeypatch):
    monkeypatch.setattr("cyclemimic.serving.server._STOP_TIMEOUT_S", 0.1)

    async def talk(parts):
        computing, go_on = threading.Event(), threading.Event()
        parts.policy.gate = lambda: (computing.set(), go_on.wait(60))
        client, queued = await parts.connect(), await parts.connect()
        asking = asyncio.create_task(client.ask("observation", observation()))
        await asyncio.to_thread(computing.wait, 10)
        late = asyncio.create_task(queued.ask("observation", observation()))
        await asyncio.sleep(0.05)
        try:
            parts.server.stop()
            async with asyncio.timeout(5):
                await parts.serving
            for answer in (await asking, await late):
                assert answer["payload"] == {"error": "the server stops"}
            with pytest.raises(exceptions.ConnectionClosed, match="the server stops"):
                await client.receive()
        finally:
            go_on.set()

    run_with_server(talk)


def test_a_client_that_does_not_leave_is_sent_away(monkeypatch):
    monkeypatch.setattr("cyclemimic.serving.server._STOP_TIMEOUT_S", 0.1)

    async def talk(parts):
        client = await parts.connect()
        talking = asyncio.create_task(talk_on(client))
        await asyncio.sleep(0.1)
        parts.server.stop()
        async with asyncio.timeout(5):
            await parts.serving
            with pytest.raises(exceptions.ConnectionClosed, match="the server stops"):
                await talking

    async def talk_on(client):
        for _ in range(3):  # so that there always is another when one is answered
            await client.connection.send(pack("observation", observation(), 1))
        while True:
            await client.receive()
            await client.connection.send(pack("observation", observation(), 1))

    run_with_server(talk)


def test_a_signal_stops_and_handlers_are_as_before():
    def handler(*_):
        pytest.fail("the server did not take the signal")

    before = signal.signal(signal.SIGTERM, handler)
    try:

        async def talk(parts):
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(5):
                await parts.serving
            assert signal.getsignal(signal.SIGTERM) is handler

        run_with_server(talk)
    finally:
        signal.signal(signal.SIGTERM, before)


# A server in a process of its own, whose policy's thread never comes back from its first call.
HANGING = """
import asyncio, signal, sys, threading
sys.path.insert(0, sys.argv[1])
import cyclemimic.serving.server
from tests.serving.harness_client import observation, pack, run_with_server

async def hang(parts):
    computing = threading.Event()
    parts.policy.gate = lambda: (computing.set(), threading.Event().wait())
    client = await parts.connect()
    await client.connection.send(pack("observation", observation(), 1))
    await asyncio.to_thread(computing.wait, 10)
"""


def run_hanging(code):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", HANGING + code, root]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_second_signal_ends_the_process_whatever_the_policy_is_at():
    """Where the first is waited out."""
    process = run_hanging("""
async def talk(parts):
    await hang(parts)
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0.3)
    print("stopping", flush=True)
    signal.raise_signal(signal.SIGINT)
    print("still here", flush=True)

run_with_server(talk)
""")
    assert process.returncode == -signal.SIGINT and process.stdout == "stopping\n", process.stderr


def test_a_policy_that_hangs_does_not_keep_the_process():
    process = run_hanging("""
cyclemimic.serving.server._STOP_TIMEOUT_S = 0.1
run_with_server(hang)
print("ended", flush=True)
""")
    assert process.returncode == 0 and process.stdout == "ended\n", process.stderr
