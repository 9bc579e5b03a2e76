# SPDX-License-Identifier: Apache-2.0
"""Parsers whose errors are one line: what is wrong, and the flag that was probably meant. `--help` has the rest."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn


class OneLineErrors(argparse.ArgumentParser):
    """An `ArgumentParser` that does not bury an error under its usage, nor takes a flag for one it abbreviates, which would
    mean something else once another flag is added."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")

    def refuse(self, flag: str) -> NoReturn:
        """Exit with the error of an unknown flag."""
        flag = flag.split("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        self.error(f"unrecognized argument {flag}{suggestion(flag, known)}")


class VerbParser(OneLineErrors):
    """The parser of a verb."""

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.refuse(unknown[0])
        return parsed


def suggestion(name: str, known: Sequence[str]) -> str:
    """` (did you mean 'NEAREST'?)`, or nothing where none is near."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {nearest[0]!r}?)" if nearest else ""
