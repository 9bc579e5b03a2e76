# SPDX-License-Identifier: Apache-2.0
"""
What a server takes: observations of several clients at once, and messages that are no good. A tiny policy with random
weights is served by `cyclemimic serve` in a process of its own; how fast a policy is, `policy_latency` measures.

    python measure.py
    python measure.py --observations 10000
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import psutil
import torch
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_plainly

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
from cyclemimic.evaluation.policy import ChunkPolicy
from cyclemimic.models.cyclemimic import make_tiny_backbone_config

INSTRUCTION = "put the red block into the drawer, and close it"
IMAGE_SIZE, ACTION_DIM = 128, 7
MAX_MESSAGE_MB = 4


def make_policy(folder: str) -> None:
    """A tiny policy whose chunks are of one action, so that it looks at every observation."""
    torch.manual_seed(0)
    statistics = {"random": {"q01": [-1.0] * ACTION_DIM, "q99": [1.0] * ACTION_DIM}}
    processor = CycleMimicProcessor.from_texts(
        [INSTRUCTION], image_size=IMAGE_SIZE, chunk_size=1, action_statistics=statistics
    )
    config = processor.make_config(make_tiny_backbone_config(processor, IMAGE_SIZE, hidden_size=32, num_text_layers=1))
    CycleMimicForActionPrediction(config).save_pretrained(folder)
    processor.save_pretrained(folder)


@contextmanager
def serving(folder: str) -> Iterator[tuple[str, psutil.Process, Callable[[], str]]]:
    """Address and process of the server, and what ends it and gives its last line."""
    command = [sys.executable, "-m", "cyclemimic.cli", "serve", "--policy", folder, "--port", "0", "--device", "cpu"]
    command += ["--max_message_mb", str(MAX_MESSAGE_MB)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

        def stop() -> str:
            process.send_signal(signal.SIGTERM)
            return process.communicate(timeout=60)[0].strip()

        try:
            address = None
            while address is None and process.poll() is None:
                time.sleep(0.2)
                log.seek(0)
                address = re.search(r"ws://\S+", log.read())
            if address is None:
                log.seek(0)
                raise RuntimeError(log.read())
            yield address[0], psutil.Process(process.pid), stop
        finally:
            if process.poll() is None:
                process.kill()


def pack(payload: Any, seq: Any = 1, kind: Any = "observation") -> bytes:
    return msgpack.packb({"type": kind, "payload": payload, "seq": seq, "timestamp": 0.0}, default=pack_array)


def pack_array(array: np.ndarray) -> dict[str, Any]:
    return {"__ndarray__": True, "data": array.tobytes(), "dtype": array.dtype.str, "shape": list(array.shape)}


def observation(client: int, seq: int) -> dict[str, Any]:
    """One that no other is like, so that the answers differ."""
    image = np.random.default_rng([client, seq]).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return {"images": {"front": image}, "task_description": INSTRUCTION}


async def run_client(address: str, client: int, num_observations: int) -> np.ndarray:
    """The actions `(num_observations, action_dim)` of one client, which sends without waiting for answers."""
    actions = []
    async with connect(address, compression=None) as connection:

        async def send() -> None:
            await connection.send(pack({"task": {}}, 0, "episode_start"))
            for seq in range(num_observations):
                await connection.send(pack(observation(client, seq), seq))

        sending = asyncio.create_task(send())
        for seq in range(num_observations):
            answer = msgpack.unpackb(await connection.recv())
            if (answer["type"], answer["seq"]) != ("action", seq):
                raise RuntimeError(f"client {client} got {answer} instead of action {seq}")
            actions.append(np.frombuffer(answer["payload"]["actions"]["data"], np.float32))
        await sending
    return np.stack(actions)


def check(folder: str, answers: np.ndarray) -> tuple[float, float]:
    """
    How far the answers `(clients, observations, action_dim)` are from what the policy says of the very observation, and how
    far that is at least from what it says of another one of the same client.
    """
    policy = ChunkPolicy(
        CycleMimicForActionPrediction.from_pretrained(folder), CycleMimicProcessor.from_pretrained(folder)
    )
    farthest, nearest = 0.0, float("inf")
    for client, actions in enumerate(answers):
        images = [observation(client, seq)["images"]["front"] for seq in range(len(actions))]
        expected = np.concatenate([policy.predict([image], [INSTRUCTION])[:, 0] for image in images])
        farthest = max(farthest, float(np.abs(actions - expected).max()))
        distances = np.abs(expected[:, None] - expected[None]).max(-1) + np.diag([np.inf] * len(expected))
        nearest = min(nearest, float(distances.min()))
    return farthest, nearest


def malformed_messages(random_: random.Random) -> Iterator[tuple[str, bytes | str]]:
    """Kinds of messages that are no good, over and over."""
    good = observation(0, 0)
    whole = pack(good)

    def with_image(image: Any) -> bytes:
        return pack(good | {"images": {"front": image}})

    while True:
        position = random_.randrange(8, len(whole) - 1)
        yield "cut short", whole[:position]
        yield "random bytes", random_.randbytes(random_.randint(1, 5000))
        yield "text", "x" * random_.randint(0, 5000)
        yield "huge", bytes(int(MAX_MESSAGE_MB * 2**20) + random_.randint(1, 2**16))
        yield "nested without end", b"\x81\xa1x" * 5000
        yield "promises 4 billion items", b"\xdd\xff\xff\xff\xff" + random_.randbytes(9)
        yield "extension type (a pickle)", pack(good | {"x": msgpack.ExtType(78, random_.randbytes(20))})
        yield "unknown type", pack(good, kind="shutdown")
        yield "number of another kind", pack(good, seq="1")
        yield "content of another kind", pack([1, 2, 3])
        yield "image missing", pack(good | {"images": {}})
        yield "image of floats", with_image(np.full((8, 8, 3), np.nan, np.float32))
        yield "image without colours", with_image(np.zeros((8, 8), np.uint8))
        yield "image of no size", with_image(np.zeros((0, 8, 3), np.uint8))
        yield "array of objects", with_image(pack_array(np.zeros(8)) | {"dtype": "O"})
        yield "array shorter than its shape", with_image(pack_array(np.zeros(8)) | {"shape": [2**33, 2**33]})
        yield "broken PNG", with_image({"__image__": True, "format": "png", "data": random_.randbytes(500)})
        yield "image of 67 million pixels", with_image(png_of_many_pixels())
        yield "no instruction", pack({"images": good["images"]})
        # In NumPy, which divides by zero outside of Python, the process would be gone.
        yield "array of times by zero", with_image(pack_array(np.zeros(8)) | {"dtype": "m8[s/0]"})


def png_of_many_pixels() -> dict[str, Any]:
    """The first bytes of a PNG of 8,192 x 8,192 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 2**13, 2**13, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return {
        "__image__": True,
        "format": "png",
        "data": b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 2**20) + b"IDAT",
    }


def refusal(address: str, message: bytes | str) -> str | None:
    """Why the server did not take a message."""
    # Not asyncio's client: of a server that hangs up while it still writes, it can end in an AttributeError of asyncio.
    with connect_plainly(address, compression=None, close_timeout=1) as connection:
        try:
            connection.send(message)
            answer = msgpack.unpackb(connection.recv(timeout=10))
        except ConnectionClosed as error:
            return error.rcvd.reason if error.rcvd else None
    return answer["payload"].get("error") if answer["type"] == "error" else None


async def ask_all(address: str, num_clients: int, num_observations: int) -> np.ndarray:
    clients = [run_client(address, client, num_observations // num_clients) for client in range(num_clients)]
    return np.stack(await asyncio.gather(*clients))


def send_malformed(address: str, count: int) -> dict[str, str]:
    """A reason of each kind of message; all of them are refused, or this raises."""
    reasons = {}
    for kind, message in itertools.islice(malformed_messages(random.Random(0)), count):
        reason = refusal(address, message)
        if not reason:
            raise RuntimeError(f"not refused with a reason: {kind}")
        reasons[kind] = reason
    return reasons


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8, help="at once (default: %(default)s)")
    parser.add_argument("--observations", type=int, default=1000, help="of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="of all observations (default: %(default)s)")
    parser.add_argument("--malformed", type=int, default=200, help="messages that are no good (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        make_policy(folder)
        with serving(folder) as (address, process, stop):
            print("| after | seconds | server's memory, MB |\n|---|---|---|")

            def report(name: str, start: float) -> None:
                seconds, size = time.perf_counter() - start, process.memory_info().rss / 2**20
                print(f"| {name} | {seconds:.1f} | {size:.0f} |", flush=True)

            for number in range(arguments.rounds):
                start = time.perf_counter()
                answers = asyncio.run(ask_all(address, arguments.clients, arguments.observations))
                report(f"{answers.shape[0] * answers.shape[1]} observations, round {number + 1}", start)
            start = time.perf_counter()
            reasons = send_malformed(address, arguments.malformed)
            report(f"{arguments.malformed} malformed messages", start)
            start = time.perf_counter()
            answers = asyncio.run(ask_all(address, arguments.clients, arguments.observations))
            report("observations once more", start)
            print(f"\n{stop()}")
        farthest, nearest = check(folder, answers)
    print(
        f"Answers differ from the policy's own by at most {farthest:.1e}; two observations of a client, by at least "
        f"{nearest:.1e}.\n\n| message | reason given |\n|---|---|"
    )
    for kind, reason in reasons.items():
        print(f"| {kind} | {reason[:160].replace('|', '/')} |")


if __name__ == "__main__":
    main()
