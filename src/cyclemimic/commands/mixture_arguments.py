# SPDX-License-Identifier: Apache-2.0
"""The arguments that training verbs name their video by."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclemimic.commands.flags import CAMERA, FPS, LEAVE_OUT_MISSING, ON_THE_HUB, SKIP_BROKEN


@dataclass
class MixtureArguments:
    """Data sets or one mixture of them; the help of each field says what it is."""

    data: list[str] = field(
        metadata={
            "help": f"data sets: LeRobot {ON_THE_HUB}, RLDS, folders of numbered images or of video files; or one "
            "mixture, a YAML file or one that comes with the package (paper, bridge, robot_navigation_human); actions are not "
            "read"
        }
    )
    camera: str | None = field(default=None, metadata={"help": CAMERA})
    fps: float | None = field(default=None, metadata={"help": FPS})
    leave_out_missing: bool = field(default=False, metadata={"help": LEAVE_OUT_MISSING})
    skip_broken: bool = field(default=False, metadata={"help": SKIP_BROKEN})
