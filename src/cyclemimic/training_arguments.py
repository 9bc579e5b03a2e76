# SPDX-License-Identifier: Apache-2.0
"""Flags and YAML files for the dataclasses of a training verb."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from inspect import get_annotations
from pathlib import Path
from typing import Any

from .strict_yaml import load_yaml
from .verb_parser import OneLineErrors, suggestion

# Types, as written, of fields that take text alone.
_TEXT = {"str", "str | None", "<class 'str'>"}
# argparse's own would have two hundred flags.
_USAGE = "%(prog)s [--config FILE] [--FLAG VALUE ...]"


def show_own_help(dataclass_types: Sequence[type], argv: Sequence[str], prog: str, description: str) -> None:
    """
    Answers `--help`, where `argv` asks for it, with the package's own flags: it takes seconds to import Trainer's.

    Args:
        dataclass_types (`Sequence[type]`): Dataclasses of these flags.
        argv (`Sequence[str]`), prog (`str`): As of [`parse_training_arguments`].
        description (`str`): What the verb does.

    Raises:
        SystemExit: With code 0, after help.
    """
    if not {"-h", "--help"} & set(argv):
        return
    parser = OneLineErrors(
        prog=prog,
        usage=_USAGE,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="Every argument of transformers' TrainingArguments is accepted, too, such as --output_dir (required), "
        "--max_steps, --per_device_train_batch_size and --learning_rate: --help_all lists them.",
    )
    _add_config_flag(parser)
    for field in (field for kind in dataclass_types for field in dataclasses.fields(kind)):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        # What is not given by default needs no word.
        is_silent = needed or field.default is None or field.default is False
        parser.add_argument(
            f"--{field.name}",
            nargs="+" if str(field.type).startswith("list") else "?" if field.type == "bool" else None,
            required=needed,
            default=argparse.SUPPRESS if is_silent else field.default,
            help=field.metadata["help"] + (" (required)" if needed else ""),
        )
    parser.print_help()
    parser.exit()


def parse_training_arguments(
    dataclass_types: Sequence[type], argv: Sequence[str], prog: str | None = None
) -> tuple[Any, ...]:
    """Parses flags, or one YAML file and flags that override it, into configuration dataclasses.

    The file is flat: one key a field, of whichever dataclass. A value from it passes the same checks as the flag of
    that name; `null` sets `None`, where a field may be it, and what YAML takes for a truth value, as in `save_strategy: no`, is
    the word where a field is none.

    Args:
        dataclass_types (`Sequence[type]`): Dataclasses without a field in common, `TrainingArguments` among them.
        argv (`Sequence[str]`): The flags, e.g. `["--config", "tokenizer.yaml", "--learning_rate", "1e-4"]`.
        prog (`str`, *optional*): The program's name in messages.

    Returns:
        `tuple`: One instance a dataclass, in their order.

    Raises:
        ValueError: If the file is not a YAML mapping, has a key that is no field, a key twice or a value that is missing, or a
            dataclass refuses a value.
        SystemExit: With code 2, by argparse, for an unknown flag or a value that does not have the flag's type.

    Example:

    ```python
    >>> from transformers import TrainingArguments
    >>> (arguments,) = parse_training_arguments([TrainingArguments], ["--output_dir", "out", "--max_steps", "10"])
    >>> arguments.max_steps
    10
    ```
    """
    from transformers import HfArgumentParser, TrainingArguments

    trainers_own = {field.name for field in dataclasses.fields(TrainingArguments)}

    class TrainersOwnLast(argparse.ArgumentDefaultsHelpFormatter):
        """`--help` with a section of their own for the hundred flags and more that every Trainer takes."""

        def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
            actions = list(actions)
            super().add_arguments(action for action in actions if action.dest not in trainers_own)
            self.end_section()
            self.start_section("arguments of transformers' Trainer")
            super().add_arguments(action for action in actions if action.dest in trainers_own)

    class TrainingParser(OneLineErrors, HfArgumentParser):
        """The parser of a training verb."""

    types: list[Any] = list(dataclass_types)
    parser = TrainingParser(types, prog=prog, formatter_class=TrainersOwnLast)
    parser.usage = _USAGE
    _add_config_flag(parser)
    parser.add_argument("--help_all", action="help", help="show all of this")
    for action in parser._actions:
        # Trainer would make a folder of its own choice.
        action.required |= action.dest == "output_dir"
    known = {name: kind for each in dataclass_types for name, kind in _types_of(each).items()}

    flags = list(argv)
    config_file = _find_config_file(flags)
    if config_file is not None:
        values = _read_config_file(config_file, known)
        # No flag says "nothing" or "an empty list".
        parser.set_defaults(**{name: value for name, value in values.items() if value is None or value == []})
        flags = [flag for name, value in values.items() for flag in _as_flags(name, value)] + flags

    *outputs, unknown = parser.parse_args_into_dataclasses(
        flags, return_remaining_strings=True, look_for_args_file=False
    )
    if unknown:
        parser.refuse(unknown[0])
    outputs = outputs[: len(dataclass_types)]
    if any(getattr(output, "hub_token", None) is not None for output in outputs):
        raise ValueError("`hub_token` must be left out: it would be saved with the run; set HF_TOKEN, got a token.")
    return tuple(outputs)


def _types_of(kind: type) -> dict[str, str]:
    """The fields of a dataclass and their types as written; in the fields themselves, `HfArgumentParser` puts others."""
    written = {
        name: str(annotation) for base in reversed(kind.__mro__) for name, annotation in get_annotations(base).items()
    }
    return {field.name: written[field.name] for field in dataclasses.fields(kind) if field.init}


def _add_config_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="a YAML file of these arguments; flags override it",
    )


def _find_config_file(flags: Sequence[str]) -> Path | None:
    if {"-h", "--help", "--help_all"} & set(flags):
        return None
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    # `nargs="?"`: a missing value is for the full parser to report.
    finder.add_argument("--config", type=Path, nargs="?")
    return finder.parse_known_args(flags)[0].config


def _read_config_file(path: Path, known: Mapping[str, str]) -> dict[str, Any]:
    """The values of a file, by names of fields, of which `known` has the types."""
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"`config` must be a YAML file, got {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a mapping of argument names to values, got {type(values).__name__}")
    for key in values:
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}{suggestion(str(key), list(known))}")
    return {name: _as_meant(value, known[name], f"{path}: `{name}`") for name, value in values.items()}


def _as_meant(value: Any, kind: str, where: str) -> Any:
    """A value of a file for a field of a type, of which it may be none, or a word that YAML knows as a truth value."""
    is_missing = value is None and "None" not in kind and "Optional" not in kind
    if is_missing or (isinstance(value, list) and None in value):
        raise ValueError(f"{where} must have a value, got none; leave out the key for the default.")
    if isinstance(value, bool) and "bool" not in kind:
        return "yes" if value else "no"
    if kind.removeprefix("list[").replace("]", "") in _TEXT:
        # YAML reads 2024_05_01 as a number, 12:30:00 as seconds, and a revision of digits without its first zero.
        others = [
            each for each in (value if isinstance(value, list) else [value]) if not isinstance(each, str | dict | None)
        ]
        if others:
            raise ValueError(f"{where} must be text, got {others[0]!r}, as YAML reads it; put it in quotes.")
    return value


def _as_flags(name: str, value: Any) -> Iterator[str]:
    if value is None or value == []:
        return
    if isinstance(value, list):
        yield f"--{name}"
        yield from map(str, value)
    else:
        yield f"--{name}={json.dumps(value, default=str) if isinstance(value, dict) else value}"
