# SPDX-License-Identifier: Apache-2.0
"""`cyclemimic convert-prismatic`: a checkpoint of TRI-ML's Prismatic or of OpenVLA → a backbone of this package."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cyclemimic.verb_parser import VerbParser


def parse(argv: Sequence[str], prog: str) -> argparse.Namespace:
    """Parses the flags of the verb."""
    parser = VerbParser(
        prog=prog,
        description="Turns a checkpoint of TRI-ML's Prismatic (prism-dinosiglip-224px+7b) or of OpenVLA (openvla-7b), from "
        "local files, into a backbone of this package: `pretrain --backbone OUTPUT`.",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        help="folder of an OpenVLA checkpoint or of a TRI-ML run, or a .pt file in such a run's `checkpoints`",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--language_model",
        help="folder or Hub id of the language model that a TRI-ML run started with, for its config and tokenizer, which "
        "the run has not (meta-llama/Llama-2-7b-hf); an OpenVLA checkpoint has both",
    )
    for tower, name in (
        ("dino", "vit_large_patch14_reg4_dinov2.lvd142m"),
        ("siglip", "vit_so400m_patch14_siglip_224"),
    ):
        parser.add_argument(
            f"--{tower}",
            type=Path,
            help=f"timm's model.safetensors of {name}, for a TRI-ML run that did not train its vision towers",
        )
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Converts the checkpoint; says what of it was not needed."""
    from cyclemimic.data.atomic import AtomicFolder
    from cyclemimic.models.cyclemimic.convert_prismatic_to_hf import plan_conversion

    conversion = plan_conversion(arguments.checkpoint, arguments.language_model, arguments.dino, arguments.siglip)
    with AtomicFolder(arguments.output).writing(conversion.num_bytes) as folder:
        conversion.save(folder)
    left_out = ", ".join(conversion.left_out) or "nothing"
    return f"Saved: {arguments.output}; left out, because nothing reads it: {left_out}"
