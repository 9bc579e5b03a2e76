# SPDX-License-Identifier: Apache-2.0
"""How a test of the library's is left out, with the reason why it does not hold for us."""

from __future__ import annotations

import unittest
from collections.abc import Callable


def left_out(reason: str) -> Callable[..., None]:
    @unittest.skip(reason)
    def test(self: unittest.TestCase) -> None:
        raise NotImplementedError

    return test
