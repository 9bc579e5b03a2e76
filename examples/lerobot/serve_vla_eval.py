# SPDX-License-Identifier: Apache-2.0
"""The LeRobot bridge of vla-eval, which knows LeRobot's own policy types: with the plug-in's beside them."""

import numpy as np
from vla_eval.model_servers.lerobot import LeRobotModelServer
from vla_eval.model_servers.serve import run_server

import lerobot_policy_cyclemimic  # noqa: F401  # registers `cyclemimic`


class Server(LeRobotModelServer):
    """Hands frames on as they come: the policy's own processor resizes them, as in training, and puts no bars around them."""

    def _resize_to_declared(self, img: np.ndarray, policy_key: str) -> np.ndarray:
        return img


if __name__ == "__main__":
    run_server(Server)
