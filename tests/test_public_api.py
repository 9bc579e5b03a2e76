# SPDX-License-Identifier: Apache-2.0
"""Every public name says what it is, and of which types."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import cyclemimic
import cyclemimic.data


def public_callables() -> Iterator[tuple[str, Any]]:
    """Classes, functions and methods of ours; what classes inherit from libraries is theirs to describe."""
    for module in (cyclemimic, cyclemimic.data):
        for name in module.__all__:
            value = getattr(module, name)
            if not callable(value):
                continue
            yield name, value
            for attribute, member in vars(value).items() if inspect.isclass(value) else ():
                function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                is_ours = (getattr(function, "__module__", None) or "").startswith("cyclemimic")
                if inspect.isfunction(function) and is_ours and not attribute.startswith("_"):
                    yield f"{name}.{attribute}", function


def is_described_elsewhere(name: str) -> bool:
    """Whether it is a method of torch's or transformers' that we fill in."""
    class_name, _, attribute = name.rpartition(".")
    bases = inspect.getmro(CALLABLES[class_name])[1:] if class_name else ()
    return any(attribute in vars(base) for base in bases if not base.__module__.startswith("cyclemimic"))


CALLABLES = dict(public_callables())
FUNCTIONS = {name: value for name, value in CALLABLES.items() if not inspect.isclass(value)}


@pytest.mark.parametrize("name", [name for name in CALLABLES if not is_described_elsewhere(name)])
def test_says_what_it_is(name):
    assert (CALLABLES[name].__doc__ or "").strip()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_says_of_which_types(name):
    signature = inspect.signature(FUNCTIONS[name])
    untyped = [each.name for each in signature.parameters.values() if each.annotation is each.empty]
    assert [name for name in untyped if name not in ("self", "cls")] == []
    assert signature.return_annotation is not signature.empty
