# SPDX-License-Identifier: Apache-2.0
"""The card as it is to be on the Hub: its code loads from there, not from a folder of whoever published it."""

from __future__ import annotations

import json
import re

# Lines of the code that the package's cards show, and no others: what people wrote themselves stays as it is.
_LOADED = re.compile(r"^(checkpoint|dataset) = .*$", flags=re.MULTILINE)
_BASE = re.compile(r"^base_model = .*$", flags=re.MULTILINE)


def publish_card(text: str, repo_id: str | None, base_model: str | None = None, base_folder: str | None = None) -> str:
    """
    Returns a card with ids on the Hub where it named folders.

    Args:
        text (`str`): The card as training or labelling has written it.
        repo_id (`str` or `None`): Where it goes, if that is known.
        base_model (`str`, *optional*): Of an adapter: the id of the model that it belongs to.
        base_folder (`str`, *optional*): What the adapter's own files call that model, where it is not by the id.
    """
    if repo_id is not None:
        text = _LOADED.sub(lambda found: f"{found[1]} = {json.dumps(repo_id)}", text)
        text = text.replace("LatentLabels.from_folder(dataset)", "LatentLabels.from_hub(dataset)")
    if base_model is None:
        return text
    if _BASE.search(text):
        text = _BASE.sub(lambda found: f"base_model = {json.dumps(base_model)}", text)
    elif base_folder:
        # PEFT's own card names it all over. One word may stand in the prose, too, where it means something else.
        name = re.escape(base_folder)
        name = rf"(?<=[:'\"`])(\s?){name}(?=['\"`\s])" if re.fullmatch(r"[\w.-]+", base_folder) else f"(){name}"
        text = re.sub(name, lambda found: f"{found[1]}{base_model}", text)
    return _with_base_model(text, base_model)


def _with_base_model(text: str, base_model: str) -> str:
    from huggingface_hub import ModelCard

    card = ModelCard(text, ignore_metadata_errors=True)
    card.data["base_model"] = base_model
    return str(card)
