# SPDX-License-Identifier: Apache-2.0
"""What pages of Markdown show, for tests that try it out."""

from __future__ import annotations

import re
import shlex


def code_blocks(page: str, language: str) -> list[str]:
    """The texts of all blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The words of every command of ours in blocks of bash."""
    text = "\n".join(code_blocks(page, "bash")).replace("\\\n", " ")
    # To where the next line begins another: a quoted argument may go over several lines.
    found = re.findall(r"^cyclemimic .*?(?=^\w|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(command, comments=True) for command in found]


def links(page: str) -> list[str]:
    """Targets of links that are files, without the heading in them."""
    targets = re.findall(r"\]\(([^)]+)\)", page)
    return [target.partition("#")[0] for target in targets if not target.startswith(("http", "#"))]
