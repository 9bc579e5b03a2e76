# SPDX-License-Identifier: Apache-2.0
"""The LeRobot bridge of vla-eval, which knows LeRobot's own policy types: with the plug-in's beside them."""

from vla_eval.model_servers.lerobot import LeRobotModelServer
from vla_eval.model_servers.serve import run_server

import lerobot_policy_cyclemimic  # noqa: F401  # registers `cyclemimic`

if __name__ == "__main__":
    run_server(LeRobotModelServer)
