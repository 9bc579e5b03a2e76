# SPDX-License-Identifier: Apache-2.0
"""Every public name says what it is, and of which types."""

from __future__ import annotations

import dataclasses
import inspect
import re
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


def own_parameters(name: str) -> list[str]:
    """Parameters that its own docstring must name: all but those that a library says itself what they are."""
    value, class_name, attribute = CALLABLES[name], *name.rpartition(".")[::2]
    if not inspect.isclass(value):
        inherited = of_libraries(CALLABLES[class_name], attribute) if class_name else []
        known = {each for function in inherited for each in inspect.signature(function).parameters}
        passed_on = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD) if inherited else ()
        parameters = inspect.signature(value).parameters.values()
        return [
            each.name for each in parameters if each.name not in {"self", "cls"} | known and each.kind not in passed_on
        ]
    if getattr(value, "_is_protocol", False):
        return []
    if dataclasses.is_dataclass(value):
        fields = [field for field in dataclasses.fields(value) if field.init and "help" not in field.metadata]
        own = {
            name for base in inspect.getmro(value) if is_ours(base) for name in vars(base).get("__annotations__", {})
        }
        library = {
            name for base in inspect.getmro(value) if not is_ours(base) for name in inspect.get_annotations(base)
        }
        return [field.name for field in fields if field.name in own - library]
    # Where it has no constructor, it has that of a base.
    constructor = vars(value).get("__init__")
    return (
        [] if constructor is None else [each for each in inspect.signature(constructor).parameters if each != "self"]
    )


def of_libraries(value: type, attribute: str) -> list[Any]:
    """The methods of this name that its bases out of libraries have."""
    bases = [base for base in inspect.getmro(value)[1:] if not is_ours(base) and attribute in vars(base)]
    return [vars(base)[attribute] for base in bases if inspect.isfunction(vars(base)[attribute])]


def is_ours(base: type) -> bool:
    return base.__module__.startswith("cyclemimic")


@pytest.mark.parametrize("name", CALLABLES)
def test_says_what_every_parameter_is(name):
    said = CALLABLES[name].__doc__ or ""
    assert [each for each in own_parameters(name) if not re.search(rf"\b{each}\b", said)] == []
