# SPDX-License-Identifier: Apache-2.0
"""YAML as every file of settings is read: plain values, each key once, and 1e-6 a number."""

from __future__ import annotations

import re
from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """
    The one document of a YAML text, of plain values.

    Raises:
        ValueError: It is no YAML, asks for an object of Python's, or has a key twice, of which the last would silently hold.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        # Its own account takes several lines.
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # `<<` takes over another mapping's keys, before which one's own go.
        own = (key for key, _ in node.value if not key.tag.endswith(":merge"))
        keys = [self.construct_object(key, deep=True) for key in own]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"{key!r} stands in it more than once")
        return super().construct_mapping(node, deep)


# As in YAML 1.2 and JSON; by YAML 1.1, without a point and a sign, such a number is text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)[eE][-+]?\d+$"), "-+.0123456789"
)
