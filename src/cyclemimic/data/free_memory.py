# SPDX-License-Identifier: Apache-2.0
"""How much memory is left to this process: of the machine, and of the container or job it is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# By the controllers of a line of the latter: version 2 names none, and version 1 has a folder for memory.
_FILES = {
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def free_memory() -> int:
    """Bytes that could still be used, by all processes together."""
    return max(0, min([psutil.virtual_memory().available, *_left_in_groups()]))


def _left_in_groups() -> Iterator[int]:
    """What is left of each limit that holds for this process; files that were read count as used."""
    lines: list[str] = []
    with suppress(OSError):
        lines = _OWN_CGROUP.read_text().splitlines()
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers in _FILES:
            root, (limit, used) = _CGROUPS / controllers, _FILES[controllers]
            # In a container the path may be the one outside, which is not seen here; the root is the container's then.
            own = Path(path.lstrip("/"))
            for group in {own, *own.parents}:
                yield from _left(root / group / limit, root / group / used)


def _left(limit: Path, used: Path) -> Iterator[int]:
    # There is no such file where there is no such group, and the word `max` in it where there is no limit.
    with suppress(OSError, ValueError):
        yield int(limit.read_text()) - int(used.read_text())
