# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic serve`: a policy as a model server of the VLA evaluation harness."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemimic.commands.flags import add_action_steps_flag, add_policy_flags
from cyclemimic.verb_parser import VerbParser

if TYPE_CHECKING:
    from cyclemimic.evaluation.policy import ChunkPolicy
    from cyclemimic.models.cyclemimic.execution_cyclemimic import ActionChunkQueue
    from cyclemimic.serving.benchmark_format import Translator
    from cyclemimic.serving.server import ServerSettings

logger = logging.getLogger(__name__)


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Serves a fine-tuned policy to `vla-eval run`, which brings LIBERO, CALVIN, SimplerEnv and more. "
        "GET /health answers as soon as it is ready; SIGTERM or Ctrl-C ends it, once all who wait are answered.",
    )
    add_policy_flags(parser)
    parser.add_argument(
        "--benchmark",
        type=Path,
        metavar="FILE",
        help="names of its images, sign of its gripper ..., e.g. examples/serving/libero.yaml (default: one image, "
        "actions as in the demonstrations)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this machine)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (default: %(default)s)")
    add_action_steps_flag(parser)
    parser.add_argument(
        "--max_batch_size", type=int, default=8, help="observations of a policy call (default: %(default)s)"
    )
    parser.add_argument(
        "--max_wait_ms", type=float, default=10.0, help="how long one waits for others (default: %(default)s)"
    )
    parser.add_argument(
        "--max_message_mb", type=float, default=16.0, help="largest message of a client (default: %(default)s)"
    )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Serves until it is told to stop; returns how often the policy looked."""
    from cyclemimic.loopback import is_loopback
    from cyclemimic.serving.batcher import PolicyBatcher
    from cyclemimic.serving.server import PolicyServer

    settings = _read_settings(arguments)
    policy, translator, make_queue = _open(arguments)
    if not is_loopback(settings.host):
        logger.warning("whoever reaches %s can ask the policy: there is no password", settings.host)
    batcher = PolicyBatcher(policy, arguments.max_batch_size, arguments.max_wait_ms / 1000)

    # An address of IPv6 has colons of its own.
    address = f"[{settings.host}]" if ":" in settings.host else settings.host

    async def serve() -> None:
        await PolicyServer(batcher, translator, make_queue, settings).run(
            lambda port: logger.info("serving %s at ws://%s:%d", arguments.policy, address, port)
        )

    asyncio.run(serve())
    return f"Stopped; the policy looked at {batcher.num_observations} observations, in {batcher.num_calls} calls."


def _read_settings(arguments: argparse.Namespace) -> ServerSettings:
    """The settings, checked before anything is loaded."""
    import importlib.util

    from cyclemimic.commands.inputs import check_at_least_one
    from cyclemimic.serving.server import ServerSettings

    missing = [name for name in ("msgpack", "websockets") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"`serve` needs {' and '.join(missing)}: pip install 'cyclemimic[serve]'.")
    check_at_least_one(max_batch_size=arguments.max_batch_size)
    if not 0 <= arguments.port < 2**16:
        raise ValueError(f"`port` must be in [0, 65535], got {arguments.port}.")
    # Negated, so that NaN is refused too.
    if not 0 <= arguments.max_wait_ms <= 10_000:
        raise ValueError(f"`max_wait_ms` must be in [0, 10000], got {arguments.max_wait_ms}.")
    if not 0.01 <= arguments.max_message_mb <= 1024:
        raise ValueError(f"`max_message_mb` must be in [0.01, 1024], got {arguments.max_message_mb}.")
    return ServerSettings(arguments.host, arguments.port, arguments.max_message_mb)


def _open(arguments: argparse.Namespace) -> tuple[ChunkPolicy, Translator, partial[ActionChunkQueue]]:
    """Policy, benchmark and what makes a queue of actions, everything checked before the weights are loaded."""
    from cyclemimic.checkpoints import choose_device, load_finetuned, load_processor, read_finetuned_config
    from cyclemimic.commands.inputs import choose_action_steps
    from cyclemimic.evaluation.policy import ChunkPolicy
    from cyclemimic.models.cyclemimic.execution_cyclemimic import ActionChunkQueue
    from cyclemimic.serving.benchmark_format import BenchmarkFormat, Translator, read_benchmark_format

    device = choose_device(arguments.device)
    described = BenchmarkFormat() if arguments.benchmark is None else read_benchmark_format(arguments.benchmark)
    config = read_finetuned_config("policy", arguments.policy)
    translator = Translator(described, config.num_cameras, config.action_dim, config.state_dim)
    state = "without its state" if config.state_dim is None else f"with its state {described.robot_state}"
    logger.info("the policy sees the benchmark's %s, %s", translator.cameras or "only image", state)
    steps = choose_action_steps(arguments.num_action_steps, config)
    processor = load_processor(arguments.policy)
    dataset = processor.resolve_dataset(arguments.dataset)
    if described.gripper is not None:
        statistics = processor.action_statistics[dataset]
        described.gripper.check_range(statistics["q01"][-1], statistics["q99"][-1], str(arguments.benchmark))
    model = load_finetuned(arguments.policy, device, arguments.dtype)
    make_queue = partial(ActionChunkQueue, steps, config.temporal_ensemble_coeff)
    return ChunkPolicy(model, processor, dataset), translator, make_queue
