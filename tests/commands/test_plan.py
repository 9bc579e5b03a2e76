# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest


def test_a_table_a_model(verb, tokenizer, pretrained, tmp_path, capsys):
    output = tmp_path / "plans" / "plan.md"
    flags = ["--model", tokenizer, pretrained, "--gpus", 2, "--step_time", 0.5, "--output", output]
    assert verb("plan", *flags) == 0
    assert output.read_text().rstrip() == capsys.readouterr().out.rstrip()
    assert output.read_text().count("| 2 |") == 2 and output.read_text().count("Measured by you") == 2


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--model tokenizer --gpus 0", "`gpus` must be at least 1, got 0"),
        ("--model tokenizer --batch_size 0", "`batch_size` must be at least 1, got 0"),
        ("--model policy-7b --lora_rank 0", "`lora_rank` must be at least 1, got 0"),
        ("--model tokenizer --step_time 0", "`step_time` must be above 0 seconds, got 0.0"),
        ("--model tokenizer --output {tmp}", "`output` must be a file, got the folder"),
        ("--model {tmp}/absent", "absent"),
    ],
)
def test_bad_input(refuses, tmp_path, flags, message):
    assert message in refuses("plan", *flags.format(tmp=tmp_path).split())
