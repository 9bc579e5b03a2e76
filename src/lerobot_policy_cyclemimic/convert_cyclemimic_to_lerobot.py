# SPDX-License-Identifier: Apache-2.0
"""CycleMimic checkpoint → LeRobot checkpoint, for commands that take a policy by `--policy.path` alone."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cyclemimic.data.atomic import AtomicFolder

from .configuration_cyclemimic import CycleMimicConfig
from .modeling_cyclemimic import CycleMimicPolicy
from .processor_cyclemimic import make_cyclemimic_pre_post_processors


def convert(
    checkpoint_path: str, output: str | Path, cameras: list[str] | None = None, dataset: str | None = None
) -> None:
    """
    Args:
        checkpoint_path, cameras, dataset: As in [`CycleMimicConfig`]; `cameras` as the robot or simulator names them,
            by default those that the checkpoint names, or `observation.images.image`.
        output (`str` or `Path`): Folder to make.

    Raises:
        DataError: `output` exists.
        ValueError: the checkpoint cannot act, or not by these settings.
    """
    config = CycleMimicConfig(checkpoint_path=checkpoint_path, cameras=cameras, dataset=dataset)
    policy = CycleMimicPolicy(config)
    with AtomicFolder(output).writing() as folder:
        policy.save_pretrained(folder)
        for pipeline in make_cyclemimic_pre_post_processors(config):
            pipeline.save_pretrained(folder)


def main(argv: Sequence[str] | None = None) -> None:
    """Converts what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--checkpoint_path", required=True, metavar="PATH", help="fine-tuned CycleMimic checkpoint")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--cameras", nargs="+", metavar="KEY", help="image features, e.g. observation.images.front")
    parser.add_argument("--dataset", help="data set whose action statistics to use, where the policy has several")
    convert(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
