# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch

from cyclemimic.models.cyclemimic.prompts_cyclemimic import encode_prompt, lay_out

TEMPLATE = "{image}Do this: {instruction}"


def test_images_are_expanded(processor):
    arguments = (processor.tokenizer, processor.image_token, 3)
    ids = encode_prompt(TEMPLATE.replace("{image}", 2 * "{image}"), " Reach ", *arguments)
    assert ids[:6].tolist() == 6 * [processor.image_token_id]
    assert processor.tokenizer.decode(ids[6:]) == "Do this: reach"
    with pytest.raises(ValueError, match="must not hold the image token '<image>'"):
        encode_prompt(TEMPLATE, "<image> reach", *arguments)


def test_a_closing_token_is_left_out(processor):
    arguments = (TEMPLATE, "reach", processor.tokenizer, processor.image_token, 3)
    expected = encode_prompt(*arguments)
    plain = type(processor.tokenizer).__call__
    ending = processor.tokenizer.eos_token_id

    class Closing(type(processor.tokenizer)):
        def __call__(self, *args, **kwargs):
            encoding = plain(self, *args, **kwargs)
            encoding["input_ids"].append(ending)
            return encoding

    processor.tokenizer.__class__ = Closing
    assert torch.equal(encode_prompt(*arguments), expected)


@pytest.mark.parametrize(
    ("side", "input_ids", "attention_mask", "labels"),
    [
        (
            "left",
            [[5, 6, 7, 8, 9], [0, 0, 4, 3, 2]],
            [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]],
            [[-100, -100, -100, 8, 9], [-100, -100, -100, 3, 2]],
        ),
        (
            "right",
            [[5, 6, 7, 8, 9], [4, 3, 2, 0, 0]],
            [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]],
            [[-100, -100, -100, 8, 9], [-100, 3, 2, -100, -100]],
        ),
    ],
)
def test_rows_by_hand(side, input_ids, attention_mask, labels):
    prompts = [torch.tensor([5, 6, 7]), torch.tensor([4])]
    batch = lay_out(prompts, torch.tensor([[8, 9], [3, 2]]), 0, {"padding_side": side})
    assert batch["input_ids"].tolist() == input_ids
    assert batch["attention_mask"].tolist() == attention_mask
    assert batch["labels"].tolist() == labels
    assert sorted(lay_out(prompts, None, 0, {"padding_side": side})) == ["attention_mask", "input_ids"]
