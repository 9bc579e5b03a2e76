# SPDX-License-Identifier: Apache-2.0
"""The page of a run of rollouts: success rates with intervals, and the films."""

from __future__ import annotations

import datetime
from typing import Any

from cyclemimic.evaluation.report import DemoReport, Provenance, write_report
from cyclemimic.evaluation.rollout_folder import Films, RolloutFolder
from cyclemimic.evaluation.success_table import SuccessRow, SuccessTable
from cyclemimic.machine import PACKAGES, hardware, versions


def write_rollout_report(folder: RolloutFolder, results: dict[str, Any]) -> None:
    """
    Writes `report.html` into the folder.

    Args:
        folder ([`RolloutFolder`]): Where the films are.
        results (`dict`): `success`, rates a task, `trials` and `seconds`, as `results.json` has them.
    """
    settings = folder.settings
    row = SuccessRow.of_rates(settings["policy"], results["success"])
    clips = Films(folder, [trial for trial in results["trials"] if "film" in trial])
    report = DemoReport(
        title=f"Rollouts in {settings['env']}",
        provenance=Provenance(
            date=datetime.date.today().isoformat(),
            seed=settings["seed"],
            hardware=hardware(),
            seconds=results["seconds"],
            versions=versions(PACKAGES),
        ),
        success=SuccessTable(tuple(row.cells), (row,)),
        clips=clips,
        missing={} if clips else {"clips": "No episode was filmed."},
    )
    write_report(folder.root / "report.html", report)
