# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic evaluate-policy`: a policy on recorded episodes, where there is no simulator."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyclemimic.commands.flags import FPS, ON_THE_HUB, add_policy_flags
from cyclemimic.verb_parser import VerbParser

if TYPE_CHECKING:
    from cyclemimic.data import DemonstrationDataset
    from cyclemimic.evaluation.policy import ChunkPolicy

logger = logging.getLogger(__name__)

_GUESSES = {"policy": "policy", "mean_action": "the mean action", "last_action": "the last action"}


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Shows a fine-tuned policy the frames of recorded episodes and compares its actions with the recorded "
        "ones, and with two guesses that look at nothing: the mean action, and the last action once more. Errors are mean "
        "absolute ones, in units of half a dimension's range. Writes OUTPUT/errors.json. A policy that is no better than "
        "the guesses has already failed; one that is better may still fail in closed loop.",
    )
    add_policy_flags(parser, default_dataset="what `data` is called, if the policy knows it, or its only one")
    parser.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help=f"data set with actions, of the frame rate that the policy was fine-tuned at {ON_THE_HUB}",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--skip_episodes",
        type=int,
        default=0,
        help="episodes to leave out, from the first: those of `finetune --num_episodes` (default: %(default)s)",
    )
    parser.add_argument("--num_episodes", type=int, help="how many to look at, after those (default: all)")
    parser.add_argument("--camera", help="camera to read (default: the policy's, or one that sees the scene)")
    parser.add_argument("--fps", type=float, help=FPS)
    parser.add_argument(
        "--skip_broken",
        action="store_true",
        help="read everything before, and go on without broken episodes, which then count nowhere, as in `finetune`",
    )
    parser.add_argument("--batch_size", type=int, default=32, help="frames at a time (default: %(default)s)")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Measures the errors, writes them, and returns a table of them."""
    from cyclemimic.commands.inputs import check_at_least_one
    from cyclemimic.data.atomic import AtomicFolder
    from cyclemimic.evaluation.open_loop import errors_by_statistics
    from cyclemimic.hub.integrity import hash_files

    check_at_least_one(batch_size=arguments.batch_size)
    folder = AtomicFolder(arguments.output)
    # What cannot be written shall not be looked through first.
    with folder.writing() as partial:
        policy, frames = _open(arguments)
        statistics = policy.processor.action_statistics[policy.dataset]
        errors = errors_by_statistics(policy, frames, statistics, arguments.batch_size)
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()}
        settings |= {"dataset": policy.dataset, "camera": frames.episodes[0].camera}
        settings["policy_files"] = hash_files(Path(arguments.policy))
        counts = {"episodes": len(frames.episodes), "frames": len(frames)}
        text = json.dumps({"errors": errors, **counts, "arguments": settings}, indent=2)
        with folder.one_line_errors():
            (partial / "errors.json").write_text(text, encoding="utf-8")
    seen = f"{counts['frames']} frames of {counts['episodes']} episodes"
    return f"{format_errors(errors)}\nSaved: {arguments.output}, errors on {seen}"


def _open(arguments: argparse.Namespace) -> tuple[ChunkPolicy, DemonstrationDataset]:
    """Policy and frames, everything checked before the weights are loaded."""
    from cyclemimic.checkpoints import choose_device, load_finetuned, load_processor, read_finetuned_config
    from cyclemimic.commands.cameras import choose_cameras, open_further_cameras
    from cyclemimic.commands.inputs import open_sources
    from cyclemimic.data import DemonstrationDataset, open_source
    from cyclemimic.data.instructions import instructions_of
    from cyclemimic.evaluation.policy import ChunkPolicy

    device = choose_device(arguments.device)
    config = read_finetuned_config("policy", arguments.policy)
    camera, names = choose_cameras(arguments.camera, None, config.camera_names, arguments.skip_broken)
    processor = load_processor(arguments.policy)
    camera = camera or _trained_camera(processor.action_statistics, arguments.dataset, arguments.data)
    (everything,), _ = open_sources([arguments.data], camera, fps=arguments.fps, skip_broken=arguments.skip_broken)
    of_its_own = everything.name if everything.name in processor.action_statistics else None
    dataset = processor.resolve_dataset(arguments.dataset or of_its_own)
    known: dict[str, Any] = processor.action_statistics[dataset]
    chosen = _choose_episodes(arguments, [episode.index for episode in everything])
    if of_its_own == dataset:
        _tell_of_demonstrations(chosen, known.get("last_episode"))
    source = open_source(arguments.data, camera, fps=arguments.fps, episodes=chosen)
    _check_rate(source.fps, known.get("fps"))
    instructions_of([source])
    frames = DemonstrationDataset(
        [source],
        chunk_size=config.chunk_size,
        transform=processor.resize_images,
        use_robot_state=config.state_dim is not None,
        further_cameras=open_further_cameras([arguments.data], names, [source], arguments.fps),
    )
    for what, size, of_policy in (
        ("actions", frames.action_dim, config.action_dim),
        ("states", frames.state_dim, config.state_dim),
    ):
        if size != of_policy:
            raise ValueError(f"`data` must have {what} of the policy's size {of_policy}, got {size}.")
    model = load_finetuned(arguments.policy, device, arguments.dtype)
    return ChunkPolicy(model, processor, dataset), frames


def _trained_camera(statistics: Mapping[str, Mapping[str, Any]], dataset: str | None, data: str) -> str | None:
    """The camera that the policy was fine-tuned with: of the data set whose statistics are asked for, or of the one of this
    name, or of all, where that is the same; `None` where nothing says it."""
    names = [name for name in statistics if name == (dataset or Path(data).name)] or list(statistics)
    cameras = {str(statistics[name]["camera"]) for name in names if "camera" in statistics[name]}
    if len(cameras) != 1:
        return None
    camera = cameras.pop()
    logger.info("camera %s, which the policy was fine-tuned with; `camera` chooses another", camera)
    return camera


def _choose_episodes(arguments: argparse.Namespace, indices: list[int]) -> list[int]:
    skipped, count = arguments.skip_episodes, arguments.num_episodes
    if not 0 <= skipped < len(indices):
        raise ValueError(
            f"`skip_episodes` must be in [0, {len(indices) - 1}], as the data has episodes, got {skipped}."
        )
    left = len(indices) - skipped
    if count is not None and not 1 <= count <= left:
        raise ValueError(f"`num_episodes` must be in [1, {left}], what is left, got {count}.")
    return indices[skipped:][:count]


def _check_rate(fps: float, of_policy: float | None) -> None:
    """Raises `ValueError` where frames are further apart than the policy's actions; older policies do not know their rate."""
    from cyclemimic.commands.inputs import is_same_rate

    if of_policy is not None and not is_same_rate(fps, of_policy):
        raise ValueError(
            f"`data` must have the frame rate that the policy's actions are for, {of_policy:g}, got {fps:g} frames a second."
        )


def _tell_of_demonstrations(chosen: list[int], last_episode: int | None) -> None:
    """Warns where episodes are looked at that the policy may have been fine-tuned on; older policies do not know theirs."""
    seen = sum(index <= last_episode for index in chosen) if last_episode is not None else 0
    if seen:
        logger.warning(
            "%d of %d episodes may be among those the policy was fine-tuned on, up to episode %d, and say nothing of new ones: "
            "`skip_episodes` leaves them out",
            *(seen, len(chosen), last_episode),
        )


def format_errors(errors: dict[str, Any]) -> str:
    """Errors as text, a row a dimension and one for their mean, a column a guess."""
    from cyclemimic.evaluation.formatting import format_columns

    rows = [("dimension", *_GUESSES.values())]
    per_dimension = zip(*(errors["per_dimension"][name] for name in _GUESSES), strict=True)
    for dimension, values in zip(errors["dimensions"], per_dimension, strict=True):
        rows.append((str(dimension), *(f"{value:.3f}" for value in values)))
    rows.append(("mean", *(f"{errors[name]:.3f}" for name in _GUESSES)))
    return format_columns(rows)
