# SPDX-License-Identifier: Apache-2.0
"""One process of `test_zero3.py`: a training verb, its flags after the first, under ZeRO-3 on the processor."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cyclemimic import cli

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "trainers"))


def main() -> None:
    from parity_runs import deepspeed_config, prepare_deepspeed

    prepare_deepspeed()
    config, *verb = sys.argv[1:]
    Path(config).write_text(json.dumps(deepspeed_config(3)), encoding="utf-8")
    sys.exit(cli.main([*verb, "--deepspeed", config]))


if __name__ == "__main__":
    main()
