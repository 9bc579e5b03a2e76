# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic gallery`: tokenizer and video → pairs of frames that share one latent action (the paper's Figure 1)."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cyclemimic.commands.flags import add_tokenizer_flags
from cyclemimic.verb_parser import VerbParser

if TYPE_CHECKING:
    from cyclemimic.data import EpisodeSource
    from cyclemimic.evaluation.action_page.action_explorer import ActionExplorer

_THIS_MACHINE = "127.0.0.1"
# Frames of the data for each pair that is looked at, from which on it pays to seek each pair, where else episodes are decoded
# whole and kept: of usual video, what lies between two keyframes, a few times over.
_FRAMES_A_PAIR = 500


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Shows pairs of frames that share one latent action, across robot bodies, data sets or tasks. Writes "
        "OUTPUT/gallery.html and gallery.png; or, with --serve, serves a page to look at the actions of frames and videos "
        "of your own.",
    )
    add_tokenizer_flags(parser, needs_output=False)
    parser.add_argument("--actions", type=int, help="latent actions to show (default: 8)")
    parser.add_argument("--pairs", type=int, help="pairs of each, 2 or more (default: 4)")
    parser.add_argument(
        "--max_pairs", type=int, default=1000, help="pairs of each data set to choose from (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: %(default)s)")
    page = parser.add_argument_group("the page (needs gradio: pip install 'cyclemimic[space]')")
    page.add_argument(
        "--serve", action="store_true", help="serve the page until interrupted, instead of writing OUTPUT"
    )
    page.add_argument(
        "--labels",
        metavar="DIR",
        help="labels of the data, or their id on the Hub, to look for near pairs in; by default max_pairs are encoded",
    )
    page.add_argument("--labels_revision", help="branch, tag or commit of labels on the Hub")
    page.add_argument("--host", help=f"address to listen on (default: {_THIS_MACHINE}, this machine only)")
    page.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860 on)")
    arguments = parser.parse_args(argv)
    if arguments.serve == (arguments.output is not None):
        parser.error("give either --output, for a gallery on disk, or --serve, for a page to use")
    for name in ("labels", "labels_revision", "host", "port"):
        if not arguments.serve and getattr(arguments, name) is not None:
            parser.error(f"give --{name} with --serve only")
    for name in ("actions", "pairs"):
        if arguments.serve and getattr(arguments, name) is not None:
            parser.error(f"give --{name} without --serve only")
    if arguments.labels is None and arguments.labels_revision is not None:
        parser.error("give --labels_revision with --labels only")
    arguments.host = arguments.host or _THIS_MACHINE
    arguments.actions = 8 if arguments.actions is None else arguments.actions
    arguments.pairs = 4 if arguments.pairs is None else arguments.pairs
    return arguments


def run(arguments: argparse.Namespace) -> str | None:
    """Chooses the pairs and writes the gallery; says how many actions were shared. Or serves the page."""
    if not arguments.serve:
        return _write(arguments)
    _serve(arguments)
    return None


def _write(arguments: argparse.Namespace) -> str:
    from cyclemimic.commands.inputs import check_at_least_one, fill_intervals, open_tokenizer_and_data
    from cyclemimic.data import FramePairDataset
    from cyclemimic.data.atomic import AtomicFolder
    from cyclemimic.evaluation.gallery import write_gallery
    from cyclemimic.evaluation.pair_gallery import evenly_spread, gallery_of_pairs, motion_of
    from cyclemimic.labeling import encode_pairs

    check_at_least_one(actions=arguments.actions, max_pairs=arguments.max_pairs)
    if arguments.pairs < 2:
        raise ValueError(f"`pairs` must be at least 2, got {arguments.pairs}.")
    _check_seed(arguments.seed)
    fill_intervals(arguments)
    tokenizer, image_processor, opened = open_tokenizer_and_data(arguments)
    sources = [entry.source for entry in opened.sources]
    folder = AtomicFolder(arguments.output)
    with folder.writing() as partial:
        kept = _bytes_to_keep(sources, arguments.max_pairs)
        pairs = FramePairDataset(sources, arguments.interval_s, arguments.min_interval_s, max_bytes=kept)
        chosen = evenly_spread(pairs, arguments.max_pairs, arguments.seed)
        motion: list[float] = []
        codes = encode_pairs(
            *(tokenizer, image_processor, pairs, chosen, arguments.batch_size),
            on_pair=lambda item: motion.append(motion_of(item)),
        )
        groups = gallery_of_pairs(
            *(pairs, chosen, codes, arguments.actions, arguments.pairs, arguments.seed), motion=motion
        )
        with folder.one_line_errors():
            write_gallery(
                partial / "gallery.html",
                groups,
                title="Pairs that share one latent action",
                subtitle=", ".join(source.name for source in sources),
                notes=[
                    "Drawn at random among the pairs with the code, where there are enough of the half that moves more, not "
                    "picked for their looks."
                ],
            )
    return f"Saved: {arguments.output}, {len(groups)} latent actions of {len(chosen)} frame pairs"


def _serve(arguments: argparse.Namespace) -> None:
    from cyclemimic.commands.inputs import check_at_least_one
    from cyclemimic.evaluation.action_page.page_blocks import ActionPage
    from cyclemimic.evaluation.action_page.serving import check_port_is_free, require_gradio, serving

    require_gradio()
    check_port_is_free(arguments.host, arguments.port)
    check_at_least_one(max_pairs=arguments.max_pairs)
    _check_seed(arguments.seed)
    explorer = open_explorer(arguments)
    names = sorted({episode.source for episode in explorer.labelled.pairs.episodes})
    subtitle = f"Tokenizer: {Path(arguments.tokenizer).name}. Data: {', '.join(names)}."
    page = ActionPage(explorer, "Latent actions", subtitle, arguments.interval_s)
    # What was uploaded is deleted however the page is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serving(page.build, arguments.host, arguments.port) as (blocks, url):
        print(f"The page is at {url}; Ctrl-C ends it.", flush=True)
        blocks.block_thread()


def _bytes_to_keep(sources: Sequence[EpisodeSource], pairs_a_source: int) -> int | None:
    """Of decoded frames; `None` as many as [`FrameStore`] would."""
    num_frames = sum(episode.num_frames for source in sources for episode in source)
    return 1 if num_frames > _FRAMES_A_PAIR * pairs_a_source * len(sources) else None


def _check_seed(seed: int) -> None:
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0, got {seed}.")


def open_explorer(arguments: argparse.Namespace) -> ActionExplorer:
    """The tokenizer and what it is looked at with: the label set, or pairs that are encoded now.

    Raises:
        DataError, ValueError: The flags do not go together, or what they name cannot be used.
    """
    from cyclemimic.commands.inputs import check_labels_are_of, fill_intervals, open_tokenizer_and_data
    from cyclemimic.data import FramePairDataset, open_labels
    from cyclemimic.evaluation.action_page.action_explorer import ActionExplorer
    from cyclemimic.evaluation.action_page.labelled_pairs import LabelledPairs
    from cyclemimic.evaluation.pair_gallery import evenly_spread
    from cyclemimic.labeling import encode_pairs, tokenizer_revision

    labels = open_labels(arguments.labels, arguments.labels_revision) if arguments.labels else None
    fill_intervals(arguments)
    tokenizer, image_processor, opened = open_tokenizer_and_data(arguments)
    sources = [entry.source for entry in opened.sources]
    kept = _bytes_to_keep(sources, arguments.max_pairs)
    pairs = FramePairDataset(sources, arguments.interval_s, arguments.min_interval_s, max_bytes=kept)
    if labels is None:
        chosen = evenly_spread(pairs, arguments.max_pairs, arguments.seed)
        codes = encode_pairs(tokenizer, image_processor, pairs, chosen, arguments.batch_size)
        labelled = LabelledPairs(pairs, chosen, codes)
    else:
        revision = tokenizer_revision(tokenizer, image_processor)
        made_by = labels.metadata.get("tokenizer_revision", revision)
        if made_by != revision:
            raise ValueError(
                f"`labels` must be made by the tokenizer, got labels of {labels.tokenizer} ({made_by[:12]}) for "
                f"{arguments.tokenizer} ({revision[:12]})."
            )
        check_labels_are_of(labels, sources)
        labelled = LabelledPairs.from_labels(pairs, labels, arguments.interval_s)
    return ActionExplorer(tokenizer, image_processor, labelled, arguments.seed)
