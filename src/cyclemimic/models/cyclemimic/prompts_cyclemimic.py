# SPDX-License-Identifier: Apache-2.0
"""From instructions to rows of token ids: prompts with their image placeholders, padded, with latent actions behind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from .padding_cyclemimic import padded_length

IGNORED_LABEL = -100


def template_of_cameras(template: str, tokenizer: PreTrainedTokenizerBase, num_cameras: int) -> str:
    """
    A prompt's template with the image once a camera, and with it what marks it: tokens added to the vocabulary that touch
    it, and the white space around these.
    """
    if num_cameras == 1:
        return template
    # They open and close the whole text.
    others = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    marks = sorted(tokenizer.get_added_vocab().keys() - others, key=len, reverse=True)
    mark = f"(?:{'|'.join(map(re.escape, marks))})+"
    image = re.search(rf"(\s*{mark})?{{image}}({mark}\s*)?", template)[0]
    return template.replace(image, image * num_cameras)


def encode_prompt(
    template: str, instruction: str, tokenizer: PreTrainedTokenizerBase, image_token: str, num_image_tokens: int
) -> torch.Tensor:
    """
    Token ids of one prompt, each of its images expanded.

    Args:
        template (`str`): With `{image}` once a camera, and `{instruction}`.
        instruction (`str`): What the robot is told.
        tokenizer ([`PreTrainedTokenizerBase`]): The backbone's.
        image_token (`str`): The placeholder.
        num_image_tokens (`int`): Placeholders of an image.

    Returns:
        `torch.LongTensor` of shape `(prompt_length,)`.

    Raises:
        ValueError: an instruction that is empty or holds the placeholder.
    """
    text = template.replace("{image}", image_token).replace("{instruction}", clean_instruction(instruction))
    ids = tokenizer(text)["input_ids"]
    # Some tokenizers close every text; the policy goes on from here.
    ids = ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids
    image_token_id = tokenizer.convert_tokens_to_ids(image_token)
    # LACT and ACT tokens cannot come from an instruction: it is in lower case by now.
    if ids.count(image_token_id) != template.count("{image}"):
        raise ValueError(f"`text` must not hold the image token {image_token!r}, got {instruction!r}.")
    repeats = [num_image_tokens if token == image_token_id else 1 for token in ids]
    return torch.tensor(np.repeat(ids, repeats).tolist())


def lay_out(
    prompts: list[torch.Tensor], latent_tokens: torch.Tensor | None, pad_token_id: int, padding: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """
    Prompts as the rows of a batch.

    Args:
        prompts (`list[torch.LongTensor]`): Token ids of B prompts.
        latent_tokens (`torch.LongTensor` of shape `(B, num_latent_tokens)`, *optional*): Token ids of latent actions, which
            come behind the prompts.
        pad_token_id (`int`): What rows are filled up with.
        padding (`Mapping`): Arguments of [`padded_length`], `padding_side` among them.

    Returns:
        `dict`: `input_ids` and `attention_mask`, and with `latent_tokens` the `labels`, each `(B, length)`.
    """
    num_latent_tokens = 0 if latent_tokens is None else latent_tokens.shape[1]
    prompt_lengths = torch.tensor([len(prompt) for prompt in prompts])
    length = padded_length((prompt_lengths + num_latent_tokens).tolist(), **padding)
    is_left = padding["padding_side"] == "left"
    starts = length - prompt_lengths - num_latent_tokens if is_left else 0 * prompt_lengths
    input_ids = torch.full((len(prompts), length), pad_token_id)
    for row, prompt, start in zip(input_ids, prompts, starts.tolist()):
        row[start : start + len(prompt)] = prompt
    ends = (starts + prompt_lengths)[:, None]
    columns = torch.arange(length)
    attention_mask = (columns >= starts[:, None]) & (columns < ends + num_latent_tokens)
    data = {"input_ids": input_ids, "attention_mask": attention_mask.long()}
    if latent_tokens is not None:
        positions = ends + torch.arange(num_latent_tokens)
        input_ids.scatter_(1, positions, latent_tokens)
        data["labels"] = torch.full_like(input_ids, IGNORED_LABEL).scatter_(1, positions, latent_tokens)
    return data


def clean_instruction(instruction: str) -> str:
    """An instruction as it stands in a prompt; `ValueError` if it is empty."""
    if not isinstance(instruction, str) or not instruction.strip():
        raise ValueError(f"`text` must be an instruction that is not empty, got {instruction!r}.")
    return instruction.strip().lower()


__all__ = ["IGNORED_LABEL", "clean_instruction", "encode_prompt", "lay_out", "template_of_cameras"]
