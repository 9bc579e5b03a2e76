# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic.loopback import is_loopback


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("robot.lan", False)],
)
def test_loopback(host, expected):
    assert is_loopback(host) is expected
