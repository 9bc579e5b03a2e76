# SPDX-License-Identifier: Apache-2.0
"""The command line: `cyclemimic VERB`.

A verb is one row of `VERBS`: what it is for, a function from strings to its arguments, a function that runs it. Both
are in the verb's module in `commands`, and import what they need themselves, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from cyclemimic.commands import (
    card,
    convert_prismatic,
    demo,
    evaluate_policy,
    evaluate_tokenizer,
    finetune,
    gallery,
    inspect,
    label,
    plan,
    pretrain,
    push,
    rollout,
    serve,
    train_tokenizer,
)
from cyclemimic.commands.faults import FaultsFound
from cyclemimic.hub.redaction import redacted
from cyclemimic.verb_parser import OneLineErrors


@dataclasses.dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Args:
        help (`str`): One line for `cyclemimic --help`.
        parse (`Callable[[Sequence[str], str], Any]`):
            From the strings behind the verb, and the program's name for messages, to the arguments of `run`.
        run (`Callable[[Any], str | None]`): Does the work; returns what is to be printed, if anything.
    """

    help: str
    parse: Callable[[Sequence[str], str], Any]
    run: Callable[[Any], str | None]


VERBS: dict[str, Verb] = {
    "inspect": Verb("data -> what is in it, and which episodes are broken", inspect.parse, inspect.run),
    "train-tokenizer": Verb(
        "video -> latent action tokenizer, trained with AC3", train_tokenizer.parse, train_tokenizer.run
    ),
    "evaluate-tokenizer": Verb(
        "tokenizer, data with states or actions -> how good its codes are",
        evaluate_tokenizer.parse,
        evaluate_tokenizer.run,
    ),
    "gallery": Verb("tokenizer, video -> pictures of pairs that share one action", gallery.parse, gallery.run),
    "label": Verb("tokenizer, video -> latent action labels", label.parse, label.run),
    "pretrain": Verb("video, instructions, labels -> pretrained policy", pretrain.parse, pretrain.run),
    "finetune": Verb("pretrained policy, demonstrations -> policy that acts", finetune.parse, finetune.run),
    "rollout": Verb("policy, simulator -> success rates and films", rollout.parse, rollout.run),
    "evaluate-policy": Verb(
        "policy, recorded episodes -> how far its actions are from theirs", evaluate_policy.parse, evaluate_policy.run
    ),
    "serve": Verb("policy -> model server of the VLA evaluation harness", serve.parse, serve.run),
    "card": Verb("trained model, what was measured of it -> its card", card.parse, card.run),
    "push": Verb("checkpoint, adapter or labels -> the Hugging Face Hub", push.parse, push.run),
    "convert-prismatic": Verb(
        "Prismatic or OpenVLA checkpoint -> backbone to pretrain", convert_prismatic.parse, convert_prismatic.run
    ),
    "plan": Verb("model, GPUs -> memory a training takes, and hours", plan.parse, plan.run),
    "demo": Verb("from video to a moving robot, every stage once, with a report", demo.parse, demo.run),
}


def _describe_expected_error(error: Exception) -> str | None:
    """One line for an error that the user can mend, `None` for a fault of the program."""
    if _is_disk_full(error):
        path = getattr(error, "filename", None)
        return f"no space left on device{f': {path}' if path else ''}; free some disk, or write to another one"
    # By name: the strict dataclasses of huggingface_hub have an exception of their own, and its import is slow.
    is_strict = any(kind.__name__ == "StrictDataclassError" for kind in type(error).__mro__)
    if isinstance(error, ValueError | OSError) or is_strict:
        return " ".join(str(error).split()) or type(error).__name__
    return None


# What safetensors and torch.save say of a full disk, in exceptions that carry no error number.
_DISK_FULL_TEXTS = (os.strerror(errno.ENOSPC), "PytorchStreamWriter failed writing", "unexpected pos")


def _is_disk_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or any(text in str(error) for text in _DISK_FULL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False


def build_parser() -> OneLineErrors:
    """The parser of everything up to the verb."""
    from cyclemimic import __version__

    width = max(map(len, VERBS)) + 2
    rows = "\n".join(f"  {name:<{width}}{verb.help}" for name, verb in VERBS.items())
    parser = OneLineErrors(
        prog="cyclemimic",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Learn robot actions from video.",
        epilog=f"verbs:\n{rows}\n\n`cyclemimic VERB --help` explains one.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error (or CYCLEMIMIC_DEBUG=1)")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help="what to do, see below")
    rest = parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    rest.required = False  # or the message about a missing verb asks for "..." too
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv (`Sequence[str]`, *optional*): The command line behind the program's name; `sys.argv[1:]` by default.

    Returns:
        `int`: The exit code: 0; 2 for bad input, with one line on stderr; 130 if interrupted; 1 with a traceback that held a
        token, which is taken out of it.
    """
    command = build_parser().parse_args(argv)
    prog = f"cyclemimic {command.verb}"
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("cyclemimic").setLevel(logging.INFO)
    # Where it is installed, transformers imports it, and it warns of kernels that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        verb = VERBS[command.verb]
        message = verb.run(verb.parse(command.arguments, prog))
        if message is not None:
            print(message)
    except KeyboardInterrupt:
        print(f"{prog}: interrupted", file=sys.stderr)
        return 130
    except FaultsFound as error:
        print(error.report)
        print(f"{prog}: error: {error}", file=sys.stderr)
        return 2
    except Exception as error:
        message = _describe_expected_error(error)
        if message is None or command.debug or os.environ.get("CYCLEMIMIC_DEBUG") == "1":
            shown = "".join(traceback.format_exception(error))
            if redacted(shown) == shown:
                raise
            print(redacted(shown), end="", file=sys.stderr)
            return 1
        print(f"{prog}: error: {redacted(message)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
