# SPDX-License-Identifier: Apache-2.0
"""The server: a WebSocket a robot, `GET /health`, and an end in which everyone who waits is answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import torch

from cyclemimic.models.cyclemimic.execution_cyclemimic import ActionChunkQueue

from .batcher import PolicyBatcher
from .benchmark_format import Translator
from .protocol import PROTOCOL_VERSION, Message, MessageError, pack_message, unpack_message

logger = logging.getLogger(__name__)

# Seconds that clients which go on sending are still answered for after the signal to stop.
_STOP_TIMEOUT_S = 30.0
# Messages of one client that are read before it is its turn; with the bound on a message, a bound on memory.
_MAX_QUEUED_MESSAGES = 4
_GOING_AWAY = 1001


@dataclass(frozen=True)
class ServerSettings:
    """
    Where and how to serve.

    Args:
        host (`str`), port (`int`): Address; port 0 takes a free one.
        max_message_mb (`float`): A client that sends more at once is disconnected.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    max_message_mb: float = 16.0


class Robot:
    """
    What the server keeps of one client: the actions that are still to be carried out.

    Args:
        batcher ([`PolicyBatcher`]): Asks the policy.
        translator ([`Translator`]): Between benchmark and policy.
        make_queue (`Callable`): Makes the queue of an episode.
    """

    def __init__(
        self, batcher: PolicyBatcher, translator: Translator, make_queue: Callable[[], ActionChunkQueue]
    ) -> None:
        self.batcher, self.translator, self.make_queue = batcher, translator, make_queue
        self.reset()

    def reset(self) -> None:
        """An episode begins."""
        self._queue = self.make_queue()

    async def act(self, payload: dict[str, Any]) -> dict[str, Any]:
        """The next action; the policy looks where none is left.

        Raises:
            ValueError: an observation that cannot be used. It is checked whether or not the policy looks at it.
        """
        observation = self.translator.read(payload)
        # CALVIN goes on to its next instruction within an episode.
        if payload.get("episode_restart") is True:
            self.reset()
        if self._queue.needs_chunk:
            chunk = self.translator.write(await self.batcher.predict(observation))
            self._queue.push(torch.from_numpy(chunk)[None])
        return {"actions": self._queue.pop(1)[0].numpy()}


class PolicyServer:
    """
    Serves a policy to `vla-eval`.

    Args:
        batcher ([`PolicyBatcher`]), translator ([`Translator`]), make_queue (`Callable`): As of [`Robot`].
        settings ([`ServerSettings`]): Where and how.
    """

    def __init__(
        self,
        batcher: PolicyBatcher,
        translator: Translator,
        make_queue: Callable[[], ActionChunkQueue],
        settings: ServerSettings,
    ) -> None:
        self.batcher, self.translator, self.make_queue, self.settings = batcher, translator, make_queue, settings
        self._stopping = asyncio.Event()
        self.batcher.num_clients = 0

    def stop(self) -> None:
        """Take no more clients, answer those who wait, and end."""
        self._stopping.set()

    async def run(self, started: Callable[[int], None] | None = None) -> None:
        """
        Serve until [`~PolicyServer.stop`], or a signal to end.

        Args:
            started (`Callable[[int], None]`, *optional*): Called with the port as soon as clients can come.

        Raises:
            OSError: the address cannot be had.
        """
        with _stopped_by_signals(self.stop) as let_the_next_kill:
            await self._serve(started, let_the_next_kill)

    async def _serve(self, started: Callable[[int], None] | None, on_stop: Callable[[], None]) -> None:
        from websockets.asyncio.server import serve

        server = await serve(
            self._handle,
            self.settings.host,
            self.settings.port,
            # A page in a browser sends its origin, and has no business here.
            origins=[None],
            process_request=_answer_health,
            compression=None,
            max_size=int(self.settings.max_message_mb * 2**20),
            max_queue=_MAX_QUEUED_MESSAGES,
            # A simulator that resets its scene does not answer for a while.
            ping_timeout=None,
        )
        answering = asyncio.create_task(self.batcher.run())
        try:
            if started is not None:
                started(server.sockets[0].getsockname()[1])
            await self._stopping.wait()
            on_stop()
            logger.info("stopping: who waits is answered")
            server.close(close_connections=False)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await server.wait_closed()
        finally:
            server.close()
            # Who still waits hears so, and those who go on sending are sent away.
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            leaving = [connection.close(_GOING_AWAY, "the server stops") for connection in server.connections]
            await asyncio.gather(*leaving, return_exceptions=True)

    async def _handle(self, connection: Any) -> None:
        """One client, its messages one after the other, so that answers come in their order."""
        from websockets.exceptions import ConnectionClosed

        robot = Robot(self.batcher, self.translator, self.make_queue)
        stopping = asyncio.create_task(self._stopping.wait())
        logger.info("client %s is here", connection.id.hex[:8])
        self.batcher.num_clients += 1
        try:
            while (data := await self._receive(connection, stopping)) is not None:
                answer = await self._answer(data, robot)
                if answer is not None:
                    await connection.send(pack_message(answer))
            await connection.close(_GOING_AWAY, "the server stops")
        except ConnectionClosed as error:
            logger.info("client %s has gone: %s", connection.id.hex[:8], error)
        finally:
            self.batcher.num_clients -= 1
            stopping.cancel()

    async def _receive(self, connection: Any, stopping: asyncio.Task[bool]) -> bytes | str | None:
        """The next message; `None` when the server stops and none has come."""
        receiving = asyncio.ensure_future(connection.recv())
        try:
            await asyncio.wait({receiving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            # What has arrived before the signal is there after a turn of the loop.
            await asyncio.sleep(0)
            return await receiving if receiving.done() else None
        finally:
            receiving.cancel()

    async def _answer(self, data: bytes | str, robot: Robot) -> Message | None:
        try:
            # Images are unpacked there: the others are not to wait.
            message = await asyncio.to_thread(unpack_message, data)
        except MessageError as error:
            logger.warning("message refused: %s", error)
            return Message("error", {"error": str(error)}, error.seq)
        try:
            if message.type == "hello":
                return Message("hello", self._hello(), message.seq)
            if message.type == "observation":
                return Message("action", await robot.act(message.payload), message.seq)
            robot.reset()
            return None
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            logger.warning("observation refused: %s", reason)
            return Message("error", {"error": reason}, message.seq)

    def _hello(self) -> dict[str, Any]:
        from cyclemimic import __version__

        return {
            "protocol_version": PROTOCOL_VERSION,
            "harness_version": f"cyclemimic {__version__}",
            "model_server": "cyclemimic",
            "capabilities": {},
            "observation_params": self.translator.settings,
        }


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """
    Meanwhile a signal to end calls `stop`; a handler that was set on the loop itself is replaced for good, as asyncio does not
    tell it. What it gives is to be called when that is under way: the next signal then ends the process at once.
    """
    loop, former = asyncio.get_running_loop(), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        handler = signal.getsignal(number)
        # Only the main thread of a program may; others call `stop`.
        with contextlib.suppress(ValueError, RuntimeError):
            loop.add_signal_handler(number, stop)
            former[number] = signal.SIG_DFL if handler is None else handler

    def handle(handlers: Mapping[signal.Signals, Any]) -> None:
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)

    try:
        yield lambda: handle(dict.fromkeys(former, signal.SIG_DFL))
    finally:
        handle(former)


def _answer_health(connection: Any, request: Any) -> Any:
    """`GET /health`, for those who wait until the policy is loaded; everything else is a WebSocket."""
    if request.path != "/health":
        return None
    response = connection.respond(HTTPStatus.OK, json.dumps({"status": "ok"}) + "\n")
    response.headers.pop("Content-Type", None)
    response.headers["Content-Type"] = "application/json"
    return response
