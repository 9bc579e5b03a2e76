# SPDX-License-Identifier: Apache-2.0
"""Labels that no tokenizer has made, on disk as `cyclemimic label` leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyclemimic.data import LabelFolder


def write_labels(
    folder: Path,
    columns: Mapping[str, Any],
    codebook_size: int,
    num_latent_tokens: int,
    tokenizer: str,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """One shard; `metadata` are settings beside those that all labels have."""
    own = {"tokenizer": tokenizer, "codebook_size": codebook_size, "num_latent_tokens": num_latent_tokens}
    labels = LabelFolder(folder, {**own, **(metadata or {})}, 1)
    labels.start()
    labels.write(0, columns)
    assert labels.finish()
