# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
import inspect

import pytest

import cyclemimic.data


def test_import_needs_neither_pyarrow_nor_datasets(run_python):
    """Machines that only train may lack both."""
    run_python(
        "import sys\n"
        "for name in ('pyarrow', 'datasets', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "import cyclemimic.data\n"
    )


@pytest.mark.parametrize("name", ["Episode", "FramePairDataset", "LeRobotWriter", "write_labels"])
def test_examples_of_the_docstrings_run(name):
    text = inspect.getdoc(getattr(cyclemimic.data, name)).replace("```python", "").replace("```", "")
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0


def test_every_public_name_exists_and_is_documented():
    for name in cyclemimic.data.__all__:
        assert getattr(cyclemimic.data, name).__doc__, name
