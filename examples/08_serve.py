"""Stage 5 elsewhere, policy -> a server, and a robot that asks it over a WebSocket, as the benchmarks of vla-eval do.

pip install '.[serve]'
python examples/08_serve.py --policy outputs/policy --data demo_output/data
"""

import argparse
import asyncio
from functools import partial

import msgpack
import numpy as np
from websockets.asyncio.client import connect

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor
from cyclemimic.checkpoints import choose_device
from cyclemimic.data import Episode, open_source
from cyclemimic.evaluation.policy import ChunkPolicy
from cyclemimic.models.cyclemimic.execution_cyclemimic import ActionChunkQueue
from cyclemimic.serving.batcher import PolicyBatcher
from cyclemimic.serving.benchmark_format import BenchmarkFormat, Translator
from cyclemimic.serving.protocol import Message, pack_message
from cyclemimic.serving.server import PolicyServer, ServerSettings


async def act(episode: Episode, port: int) -> None:
    """The robot's side: an image and the instruction there, an action back."""
    async with connect(f"ws://127.0.0.1:{port}") as connection:
        for index, frame in enumerate(episode.iter_frames(range(3))):
            seen = {"images": {"front": frame}, "task_description": episode.instruction}
            if episode.states is not None:
                seen["states"] = episode.states[index]
            await connection.send(pack_message(Message("observation", seen, seq=index)))
            answer = msgpack.unpackb(await connection.recv())["payload"]["actions"]
            action = np.frombuffer(answer["data"], answer["dtype"])
            print(f"frame {index}, {episode.instruction!r}: {[round(float(value), 2) for value in action]}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="outputs/policy")
    parser.add_argument(
        "--data", default="demo_output/data", help="a LeRobot data set: its frames stand for a camera's"
    )
    arguments = parser.parse_args()

    model = CycleMimicForActionPrediction.from_pretrained(arguments.policy).to(choose_device(None))
    policy = ChunkPolicy(model, CycleMimicProcessor.from_pretrained(arguments.policy))
    server = PolicyServer(
        PolicyBatcher(policy, max_batch_size=8, max_wait_s=0.01),
        Translator(
            BenchmarkFormat(robot_state="states"),
            model.config.num_cameras,
            model.config.action_dim,
            model.config.state_dim,
        ),
        # How many actions until the policy looks again.
        partial(ActionChunkQueue, model.config.num_executed_steps, model.config.temporal_ensemble_coeff),
        ServerSettings(port=0),  # a free one, of this machine alone
    )
    port = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(server.run(started=port.set_result))
    await act(open_source(arguments.data)[0], await port)
    server.stop()
    await serving


if __name__ == "__main__":
    asyncio.run(main())
