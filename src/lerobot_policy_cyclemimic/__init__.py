# SPDX-License-Identifier: Apache-2.0
"""CycleMimic as a policy type of LeRobot: importing this registers `cyclemimic` there, as LeRobot's commands do."""

from .configuration_cyclemimic import CycleMimicConfig

__all__ = ["CycleMimicConfig"]
