# SPDX-License-Identifier: Apache-2.0
"""A server with a policy of no weights, and a client that speaks the harness's protocol on its own terms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cyclemimic.models.cyclemimic.execution_cyclemimic import ActionChunkQueue
from cyclemimic.serving.batcher import PolicyBatcher
from cyclemimic.serving.benchmark_format import BenchmarkFormat, Translator
from cyclemimic.serving.server import PolicyServer, ServerSettings

msgpack = pytest.importorskip("msgpack")
connect = pytest.importorskip("websockets.asyncio.client").connect

CHUNK_SIZE, ACTION_DIM = 3, 7


class StubPolicy:
    """
    The action tells what was seen: the image's first pixel, the instruction's length, and the step of the chunk. The
    instruction "bad" is an error.
    """

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate: Callable[[], Any] = lambda: None

    def predict(self, images, instructions, robot_states=None):
        self.batches.append(len(images))
        self.gate()
        if "bad" in instructions:
            raise ValueError("bad")
        chunks = np.zeros((len(images), CHUNK_SIZE, ACTION_DIM), np.float32)
        for chunk, image, instruction in zip(chunks, images, instructions, strict=True):
            chunk[:, 0], chunk[:, 1], chunk[:, 2] = image[0, 0, 0], len(instruction), np.arange(CHUNK_SIZE)
        return chunks


def pack(kind: str, payload: Any, seq: int, **fields: Any) -> bytes:
    """A message as the harness packs it, raw images included."""

    def encode(value: np.ndarray) -> dict[str, Any]:
        mark = "__image__" if value.dtype == np.uint8 and value.ndim == 3 else "__ndarray__"
        form = {"format": "raw"} if mark == "__image__" else {}
        array = {"data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
        return {mark: True, **form, **array}

    return msgpack.packb({"type": kind, "payload": payload, "seq": seq, "timestamp": 0.0, **fields}, default=encode)


def observation(value: int = 0, instruction: str = "go", **fields: Any) -> dict[str, Any]:
    """An observation whose image is of one grey."""
    return {"images": {"front": np.full((8, 8, 3), value, np.uint8)}, "task_description": instruction, **fields}


class Client:
    """One connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            return msgpack.unpackb(await self.connection.recv())

    async def ask(self, kind: str, payload: Any, seq: int = 1) -> dict[str, Any]:
        await self.connection.send(pack(kind, payload, seq))
        return await self.receive()

    async def act(self, payload: dict[str, Any], seq: int = 1) -> np.ndarray:
        return actions_of(await self.ask("observation", payload, seq))


def actions_of(answer: dict[str, Any]) -> np.ndarray:
    """The action of an answer, which must be one."""
    assert answer["type"] == "action", answer
    array = answer["payload"]["actions"]
    return np.frombuffer(array["data"], array["dtype"]).reshape(array["shape"])


def run_with_server(
    talk: Callable[[SimpleNamespace], Awaitable[None]],
    described: BenchmarkFormat | None = None,
    num_action_steps: int = 1,
    max_batch_size: int = 8,
    max_wait_ms: float = 10.0,
    **settings: Any,
) -> StubPolicy:
    """Runs a coroutine function against a server: it gets the server's parts, of which `connect()` is a new client."""
    policy = StubPolicy()

    async def main() -> None:
        options = ServerSettings(port=0, **settings)
        batcher = PolicyBatcher(policy, max_batch_size, max_wait_ms / 1000)
        translator = Translator(described or BenchmarkFormat(), 1, ACTION_DIM)
        server = PolicyServer(batcher, translator, partial(ActionChunkQueue, num_action_steps), options)
        port = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(server.run(port.set_result))
        address = f"127.0.0.1:{await port}"

        async def make_client() -> Client:
            return Client(await connect(f"ws://{address}", compression=None, max_size=None))

        try:
            await talk(
                SimpleNamespace(policy=policy, server=server, serving=serving, address=address, connect=make_client)
            )
        finally:
            server.stop()
            async with asyncio.timeout(10):
                await serving

    asyncio.run(main())
    return policy
