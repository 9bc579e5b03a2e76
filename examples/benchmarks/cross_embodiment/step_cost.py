# SPDX-License-Identifier: Apache-2.0
"""What a training step of AC3 costs, in steps of the Genie objective: operations of the paper's model.

python step_cost.py
python step_cost.py --generated_share 0.25
python step_cost.py --config '{"cycle_trains_decoder": false, "adversarial_weight": 0}'
"""

from __future__ import annotations

import argparse
import json
from fractions import Fraction

import torch
from torch.utils.flop_counter import FlopCounterMode

from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerForPreTraining


def step_operations(config: LatentActionTokenizerConfig, ac3: bool) -> int:
    """Floating-point operations of a training step a pair, by torch's own counter."""
    # So many that the share of them that is played is a whole number.
    num_pairs = Fraction(config.generated_share).limit_denominator(64).denominator
    model = LatentActionTokenizerForPreTraining(config)
    if ac3:
        model.buffer.add(torch.zeros(1, config.num_latent_tokens, dtype=torch.long), torch.zeros(1, dtype=torch.long))
        model.ac3_steps.fill_(1)
    frames = torch.randn(2, num_pairs, 3, config.image_size, config.image_size)
    with FlopCounterMode(display=False) as counter:
        model(*frames).loss.backward()
    return counter.get_total_flops() // num_pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generated_share", type=float, default=1.0, help="of the frames (default: 1)")
    parser.add_argument("--config", type=json.loads, default={}, metavar="JSON", help="fields of the configuration")
    arguments = parser.parse_args()
    fields = {"generated_share": arguments.generated_share} | arguments.config
    without = fields | {"cycle_weight": 0, "adversarial_weight": 0}
    genie = step_operations(LatentActionTokenizerConfig(**without), ac3=False)
    ac3 = step_operations(LatentActionTokenizerConfig(**fields), ac3=True)
    print(f"a pair: Genie {genie / 1e9:.0f} G, AC3 {ac3 / 1e9:.0f} G, ratio {ac3 / genie:.3f}")


if __name__ == "__main__":
    main()
