# SPDX-License-Identifier: Apache-2.0
"""How a verb ends that looked for faults in its input, and found some."""

from __future__ import annotations


class FaultsFound(ValueError):
    """The verb did its work, and its input has faults: exit code 2, but everything found is printed.

    Args:
        message (`str`): One line: how many, and what to do about them.
        report (`str`): What the verb would have returned without the faults, with a list of them; printed before.
    """

    def __init__(self, message: str, report: str) -> None:
        super().__init__(message)
        self.report = report
