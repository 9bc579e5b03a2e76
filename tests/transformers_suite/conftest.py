# SPDX-License-Identifier: Apache-2.0
"""
The library's own tests of models and processors, on ours. They are no part of an installed transformers: `make test-transformers` fetches
those of its version; without them these tests are skipped.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = os.environ.get("TRANSFORMERS_TESTS")

# What the common tests import of folders that a source distribution leaves out. What those of generation document is
# tested in `tests/models/cyclemimic/test_generation.py`, what those of Trainer do in `tests/trainers/test_plain_trainer.py`.
ABSENT = {"generation.test_utils": "GenerationTesterMixin", "exporters.test_export": "ExportTesterMixin"}
PACKAGE = "tests_of_transformers"


class _Skipped(pytest.Module):
    """A file of tests that is not even imported, as it imports what is not here."""

    def collect(self):
        pytest.skip("transformers' own tests are not in TRANSFORMERS_TESTS: make test-transformers")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return None if FOLDER else _Skipped.from_parent(parent, path=module_path)


def _place_package(name: str, path: list[str]) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = path
    sys.modules[name] = module
    return module


if FOLDER:
    # How those of processors would find the pictures of the Hub, which no test here asks for.
    sys.modules["fetch_hub_objects_for_ci"] = ModuleType("fetch_hub_objects_for_ci")
    sys.modules["fetch_hub_objects_for_ci"].url_to_local_path = str
    _place_package(PACKAGE, [str(Path(FOLDER).resolve())])
    for name, mixin in ABSENT.items():
        try:
            importlib.import_module(f"{PACKAGE}.{name}")
        except ModuleNotFoundError:
            _place_package(f"{PACKAGE}.{name.split('.')[0]}", [])
            setattr(_place_package(f"{PACKAGE}.{name}", []), mixin, type(mixin, (), {}))
