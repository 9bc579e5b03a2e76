# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest

from cyclemimic.data import free_memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 1,000 bytes available, on which groups of processes have limits: path of a group → (limit, used)."""

    def make(own: str, **groups: tuple[str, str]) -> int:
        (tmp_path / "own").write_text(own)
        for name, (limit, used) in groups.items():
            folder = tmp_path / "cgroup" / name.replace("_", "/").strip("/")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "memory.max").write_text(f"{limit}\n")
            (folder / "memory.current").write_text(f"{used}\n")
        return free_memory.free_memory()

    monkeypatch.setattr(free_memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(free_memory, "_OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(free_memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    return make


def test_without_groups_it_is_the_machines(machine):
    assert machine("") == 1000


def test_a_container_has_its_own_limit(machine):
    assert machine("0::/\n", _=("500", "200")) == 300
    assert machine("0::/\n", _=("max", "200")) == 1000


def test_limits_of_the_groups_around_hold_too(machine):
    assert machine("0::/job/step\n", job_step=("max", "1"), job=("700", "650")) == 50
    assert machine("0::/job/step\n", job_step=("20", "30")) == 0


def test_version_1(machine, tmp_path):
    folder = tmp_path / "cgroup" / "memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text("400\n")
    (folder / "memory.usage_in_bytes").write_text("150\n")
    lines = "6:cpu,cpuacct:/\n5:memory:/outside/the/container\n"
    assert machine(lines) == 250


def test_here():
    assert free_memory.free_memory() > 0
