# SPDX-License-Identifier: Apache-2.0
"""Codes as features, and how evenly a tokenizer uses its words."""

from __future__ import annotations

from typing import Any

import numpy as np


def one_hot(codes: np.ndarray, codebook_size: int) -> np.ndarray:
    """Codes `(n, num_latent_tokens)` → float32 features `(n, num_latent_tokens * codebook_size)`: for each token a one
    in its word's place."""
    return np.eye(codebook_size, dtype=np.float32)[codes].reshape(len(codes), -1)


def codebook_use(codes: np.ndarray, codebook_size: int) -> dict[str, Any]:
    """
    How a tokenizer spends its words.

    Args:
        codes (`np.ndarray` of shape `(n, num_latent_tokens)`): Codes of some pairs.
        codebook_size (`int`): Words there are.

    Returns:
        `dict`:
        - **used_share**: share of the words that occur at all.
        - **perplexity**: of the words over all tokens, in `[1, codebook_size]`; the size of an evenly used codebook
          that would say as much.
        - **perplexity_per_token**: the same for each token's own words.
        - **word_shares**: share of each word, for each token.
        - **distinct_actions**, **possible_actions**: codes that occur, and that there could be.
        - **action_perplexity**: of whole actions, in `[1, n]`.
    """
    num_tokens = codes.shape[1]
    counts = np.stack([np.bincount(codes[:, token], minlength=codebook_size) for token in range(num_tokens)])
    actions, occurrences = np.unique(codes, axis=0, return_counts=True)
    return {
        "used_share": float((counts.sum(axis=0) > 0).mean()),
        "perplexity": _perplexity(counts.sum(axis=0)),
        "perplexity_per_token": [_perplexity(row) for row in counts],
        "word_shares": (counts / len(codes)).tolist(),
        "distinct_actions": len(actions),
        "possible_actions": codebook_size**num_tokens,
        "action_perplexity": _perplexity(occurrences),
    }


def _perplexity(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))
