# SPDX-License-Identifier: Apache-2.0
"""The arguments that training verbs name their video by."""

from __future__ import annotations

from dataclasses import dataclass, field

from cyclemimic.commands.tokenizer_flags import ON_THE_HUB


@dataclass
class MixtureArguments:
    """Data sets or one mixture of them; the help of each field says what it is."""

    data: list[str] = field(
        metadata={
            "help": f"Data sets: LeRobot {ON_THE_HUB}, RLDS, folders of numbered images or of video files; or one "
            "mixture, a YAML file or one that comes with the package (paper, bridge, robot_navigation_human). Actions are not "
            "read."
        }
    )
    camera: str | None = field(default=None, metadata={"help": "Camera to read, by default one that sees the scene."})
    fps: float | None = field(
        default=None, metadata={"help": "Frames per second of RLDS and of images, which do not tell."}
    )
    leave_out_missing: bool = field(
        default=False, metadata={"help": "Go on without the data sets of a mixture that cannot be opened."}
    )
    skip_broken: bool = field(
        default=False,
        metadata={
            "help": "Decode everything once before training, and go on without the episodes that cannot be used, each "
            "named in the log."
        },
    )
