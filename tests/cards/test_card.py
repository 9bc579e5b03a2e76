# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from huggingface_hub import ModelCard

from cyclemimic import CycleMimicConfig, LatentActionTokenizerConfig
from cyclemimic.cards.card import CardData, render_label_card, render_model_card
from cyclemimic.data import Episode, InMemorySource

FACTS = {"steps": "4, of 8 samples", "seed": "3"}


@pytest.fixture
def data() -> CardData:
    episodes = [
        Episode.from_arrays(np.zeros((length, 8, 8, 3), np.uint8), 10.0, "push", source="a|<b>", index=index)
        for index, length in enumerate((6, 10))
    ]
    return CardData.of_sources([InMemorySource(episodes)], left_out=["lo*st"])


def test_a_tokenizers_card(data):
    text = render_model_card("tokenizer", "my_tokenizer", data=data, facts=FACTS, config=LatentActionTokenizerConfig())
    card = ModelCard(text)
    assert card.data.library_name == "transformers" and "latent-actions" in card.data.tags
    assert "4 words out of 16" in card.text and "consistency (AC3)" in card.text
    assert (
        "| a\\|\\<b\\> | 100.00% | 2 | 16 | 10 | unknown | image | 0 | unknown |" in card.text
        and "left out: lo\\*st." in card.text
    )
    assert "| steps | 4, of 8 samples |" in card.text
    assert "Nothing has been measured" in card.text and "@inproceedings" in card.text
    config = LatentActionTokenizerConfig(cycle_weight=0, adversarial_weight=0)
    assert "Genie objective" in render_model_card("tokenizer", "t", data=data, facts=FACTS, config=config)


@pytest.mark.parametrize("acts", [True, False])
def test_a_policys_card(data, acts):
    text = render_model_card(
        *("policy", "my_policy"),
        data=data,
        facts=FACTS,
        config=CycleMimicConfig(chunk_size=5, action_dim=3),
        architecture="CycleMimicForActionPrediction",
        kind="A policy.",
        acts=acts,
        backbone="some/<backbone>",
        instruction='say "hello"\n```',
    )
    assert ('text="say \\"hello\\"\\n```")' in text) and ("and of \\<backbone\\> (licence unknown) bind" in text)
    assert ("(1, 5, 3), physical units" in text) == acts
    code = text.split("```python\n")[1].split("\n```\n")[0]
    compile(code, "card", "exec")


def test_a_label_sets_card(data):
    metadata = {"num_latent_tokens": 4, "codebook_size": 16, "interval_s": 0.5, "min_interval_s": 0.25}
    text = render_label_card("my_labels", data=data, metadata=metadata | {"tokenizer": "t"}, num_pairs=7)
    assert "Latent actions of 7 pairs" in text and "0.5 s later" in text
    assert "data_files: '*.parquet'" in text or 'data_files: "*.parquet"' in text
