# SPDX-License-Identifier: Apache-2.0
"""Imports point one way: cli -> commands -> demo, planning, serving -> trainers, evaluation, labeling -> cards -> models,
data -> hub.

A model folder imports torch, transformers (with what it is built on) and its own siblings only, so that
`save_pretrained` can ship its code to the Hub. `data` never imports `models`. Nothing imports `cli`.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "cyclemimic"
SOURCE = Path(__file__).resolve().parents[1] / "src" / PACKAGE

MIDDLE = {"trainers", "evaluation", "labeling"}
# Room (a module or folder right under the package) -> rooms it may import. "" is the package's own `__init__`.
ALLOWED = {
    "": {"auto_registration"},
    "auto_registration": set(),
    "cli": {"", "commands", "hub", "verb_parser"},
    "commands": {
        "",
        "training_arguments",
        "strict_yaml",
        "checkpoints",
        "machine",
        "verb_parser",
        "loopback",
        "cards",
        "demo",
        "hub",
        "planning",
        "policies",
        "serving",
        "models",
        "data",
    }
    | MIDDLE,
    "checkpoints": {"", "data", "hub"},
    "policies": {"", "checkpoints", "data", "hub", "models"},
    "machine": set(),
    "cards": {"data", "machine", "hub"},
    "training_arguments": {"strict_yaml", "verb_parser"},
    "strict_yaml": set(),
    "verb_parser": set(),
    "loopback": set(),
    "demo": {"", "checkpoints", "models", "data", "machine"} | MIDDLE,
    "planning": {"trainers", "models", "hub"},
    "serving": {"", "models", "strict_yaml"},
    "trainers": {"cards", "evaluation_mode", "hub", "models", "data"},
    "evaluation": {"evaluation_mode", "models", "data", "loopback"},
    "labeling": {"cards", "evaluation_mode", "models", "data", "hub"},
    "evaluation_mode": set(),
    "models": set(),
    "data": {"hub", "strict_yaml"},
    "hub": set(),
}
MODEL_LIBRARIES = {"torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "numpy", "PIL"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


class Import(NamedTuple):
    """One import of a module: `target` is absolute, e.g. `cyclemimic.data.episode`."""

    path: Path
    line: int
    target: str


def read_imports(path: Path, root: Path) -> list[Import]:
    """All imports of a file, at any depth, except what only type checkers read in the package's `__init__`."""
    package = [PACKAGE, *path.relative_to(root).parent.parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    if path == root / "__init__.py":
        blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        skipped = {child for block in blocks for child in ast.walk(block)}
    found = []
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [Import(path, node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from . import x` and `from cyclemimic import x` may name a module: keep the name.
            names = [alias.name for alias in node.names] if module == PACKAGE or not node.module else []
            found += [
                Import(path, node.lineno, target) for target in ([f"{module}.{name}" for name in names] or [module])
            ]
    return found


def room_of_file(path: Path, root: Path) -> str:
    first = path.relative_to(root).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def room_of_target(target: str, root: Path) -> str | None:
    """The room that an imported module lies in; `None` outside the package."""
    parts = target.split(".")
    if parts[0] != PACKAGE:
        return None
    first = parts[1] if len(parts) > 1 else ""
    is_room = (root / first).is_dir() or (root / f"{first}.py").is_file()
    return first if is_room else ""


def find_violations(root: Path) -> list[str]:
    """One line a violation, `file:line: what`."""
    violations, graph = [], {}
    for path in sorted(root.rglob("*.py")):
        where, room = path.relative_to(root), room_of_file(path, root)
        violations += [
            f"{where}: a module named {part}" for part in where.with_suffix("").parts if part in FORBIDDEN_NAMES
        ]
        for item in read_imports(path, root):
            target_room = room_of_target(item.target, root)
            if target_room is not None and target_room != room:
                graph.setdefault(room, set()).add(target_room)
                if target_room not in ALLOWED.get(room, set()):
                    violations.append(f"{where}:{item.line}: {room or '__init__'} imports {item.target}")
            if room == "models" and len(where.parts) > 2 and not is_model_import(item.target, where.parts[1]):
                violations.append(f"{where}:{item.line}: a model folder imports {item.target}")
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        violations.append(f"import cycle: {' -> '.join(room or '__init__' for room in error.args[1])}")
    return violations


def is_model_import(target: str, folder: str) -> bool:
    top = target.split(".")[0]
    is_sibling = f"{target}.".startswith(f"{PACKAGE}.models.{folder}.")
    return is_sibling or top in MODEL_LIBRARIES or top in sys.stdlib_module_names


def test_imports_point_one_way():
    assert find_violations(SOURCE) == []


def test_every_room_has_a_rule():
    rooms = {room_of_file(path, SOURCE) for path in SOURCE.rglob("*.py")}
    assert rooms - set(ALLOWED) == set()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"data/a.py": "from ..models.m import modeling_m"}, "data/a.py:1: data imports cyclemimic.models.m"),
        ({"data/a.py": "def f():\n    import cyclemimic.models.m"}, "data/a.py:2: data imports cyclemimic.models.m"),
        ({"data/a.py": "from cyclemimic import labeling"}, "data/a.py:1: data imports cyclemimic.labeling"),
        ({"labeling.py": "from . import evaluation"}, "labeling.py:1: labeling imports cyclemimic.evaluation"),
        ({"evaluation/a.py": "from ..cli import main"}, "evaluation/a.py:1: evaluation imports cyclemimic.cli"),
        (
            {"trainers/a.py": "from ..demo.pipeline import x"},
            "trainers/a.py:1: trainers imports cyclemimic.demo.pipeline",
        ),
        (
            {"models/m/modeling_m.py": "from ..n.modeling_n import N"},
            "models/m/modeling_m.py:1: a model folder imports cyclemimic.models.n.modeling_n",
        ),
        (
            {"models/m/modeling_m.py": "from .. import shared"},
            "models/m/modeling_m.py:1: a model folder imports cyclemimic.models.shared",
        ),
        ({"models/m/modeling_m.py": "import pandas as pd"}, "models/m/modeling_m.py:1: a model folder imports pandas"),
        ({"data/utils.py": ""}, "data/utils.py: a module named utils"),
        ({"data/common/a.py": ""}, "data/common/a.py: a module named common"),
        (
            {"data/a.py": "import cyclemimic.labeling", "labeling.py": "import cyclemimic.data.a"},
            "import cycle: data -> labeling -> data",
        ),
    ],
)
def test_checker_catches_a_violation(tmp_path, files, expected):
    rooms = {f"{room}.py": "" for room in ("cli", "labeling")} | {
        f"{room}/__init__.py": "" for room in ("models", "demo")
    }
    write_tree(tmp_path, rooms | {"evaluation/__init__.py": "", "data/__init__.py": ""} | files)
    violations = find_violations(tmp_path)
    if expected.startswith("import cycle"):
        assert any(line.startswith("import cycle") for line in violations)
    else:
        assert violations == [expected]


def test_checker_accepts_what_is_allowed(tmp_path):
    write_tree(
        tmp_path,
        {
            "__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .models.m.modeling_m import M",
            "cli.py": "from cyclemimic import __version__\nfrom .commands.demo import run",
            "commands/demo.py": "from ..demo.pipeline import run",
            "demo/pipeline.py": "from ..labeling import label\nfrom ..data import episode",
            "labeling.py": "from .models.m.modeling_m import M\nfrom .data.episode import Episode",
            "models/m/modeling_m.py": "import torch\nfrom transformers import AutoModel\nfrom .loss_m import loss",
            "models/m/loss_m.py": "import math",
            "data/episode.py": "import pandas\nfrom . import video",
            "data/video.py": "import av",
        },
    )
    assert find_violations(tmp_path) == []


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
