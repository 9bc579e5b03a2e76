# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from huggingface_hub import DatasetCard, ModelCard

from cyclemimic import CycleMimicConfig, LatentActionTokenizerConfig
from cyclemimic.cards.card import CardData, render_label_card, render_model_card
from cyclemimic.data import (
    DemonstrationDataset,
    Episode,
    FramePairDataset,
    InMemorySource,
    LabelledMixture,
    LatentLabels,
    MixtureDataset,
    WeightedSource,
)
from cyclemimic.data.checking import BrokenEpisode

FACTS = {"steps": "4, of 8 samples", "seed": "3"}
INSTRUCTION = 'say "hello"\n```'


@pytest.fixture
def data() -> CardData:
    episodes = [
        Episode.from_arrays(np.zeros((length, 8, 8, 3), np.uint8), 10.0, INSTRUCTION, source="a|<b>", index=index)
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
        auto_class="AutoModel",
        backbone="some/<backbone>",
    )
    assert ('text="say \\"hello\\"\\n```")' in text) and ("and of \\<backbone\\> (licence unknown) bind" in text)
    assert ("(1, 5, 3), physical units" in text) == acts
    code = text.split("```python\n")[1].split("\n```\n")[0]
    compile(code, "card", "exec")


def test_a_label_sets_card(data):
    metadata = {"num_latent_tokens": 4, "codebook_size": 16, "interval_s": 0.5, "min_interval_s": 0.25}
    text = render_label_card("my_labels", data=data, metadata=metadata | {"tokenizer": "t"}, num_pairs=7)
    assert "Latent actions of 7 pairs" in text and "0.5 s later" in text
    assert "configs" not in text


def test_metadata_names_what_is_on_the_hub(data, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: pytest.fail("a card is asked for once"))
    monkeypatch.setattr("cyclemimic.cards.card.describe_checkpoint", lambda name: f"{name} (licence: mit)")
    known = dataclasses.replace(data, hub_ids=("me/arms", "me/codes"))
    common = {"data": known, "facts": FACTS, "config": LatentActionTokenizerConfig()}
    found = ModelCard(render_model_card("tokenizer", "t", backbone="me/eyes", **common)).data
    assert (found.base_model, found.datasets, found.library_name) == (
        "me/eyes",
        ["me/arms", "me/codes"],
        "transformers",
    )
    common |= {"sizes": {"chunk_size": 3}, "architecture": "CycleMimicForActionPrediction"}
    text = render_model_card("adapter", "t", backbone="me/arm", **common)
    assert (ModelCard(text).data.library_name, ModelCard(text).data.base_model) == ("peft", "me/arm")
    assert (
        'base_model = "me/arm"\ncheckpoint = "t/adapter"' in text
        and "from_pretrained(base_model, chunk_size=3)" in text
    )
    metadata = {
        "num_latent_tokens": 4,
        "codebook_size": 16,
        "interval_s": 0.5,
        "min_interval_s": 0.25,
        "tokenizer": "t",
    }
    text = render_label_card("l", data=known, metadata=metadata, num_pairs=7)
    assert DatasetCard(text).data.source_datasets == ["me/arms", "me/codes"]


def test_labels_of_the_hub_are_named_beside_its_data_sets():
    source = InMemorySource([Episode.from_arrays(np.zeros((6, 8, 8, 3), np.uint8), 10.0, source="a")])
    columns = {"source": ["a"], "episode_index": [0], "frame_index": [0], "future_index": [5], "codes": [[0]]}
    labels = LatentLabels(columns, {"codebook_size": 2, "num_latent_tokens": 1})
    assert CardData.of_sources([source], labels=labels).hub_ids == ()
    labels.name = "me/codes"
    assert CardData.of_sources([source], labels=labels).hub_ids == ("me/codes",)


@pytest.mark.parametrize(("count", "named"), [(20, "19)"), (21, "19, …)")])
def test_episodes_left_out_are_named_up_to_twenty(count, named):
    source = InMemorySource([Episode.from_arrays(np.zeros((6, 8, 8, 3), np.uint8), 10.0, source="a")])
    broken = {"a": [BrokenEpisode(index, "is damaged") for index in range(count)]}
    cell = CardData.of_sources([source], broken=broken).rows[0][7]
    assert cell.startswith(f"{count} (0, 1, ") and cell.endswith(f", 18, {named}")


def test_data_of_each_kind_of_data_set():
    sources = [
        InMemorySource([Episode.from_arrays(np.zeros((12, 8, 8, 3), np.uint8), 10.0, words, source=name)])
        for name, words in (("a", None), ("b", "go"))
    ]
    weighted = [WeightedSource(source, weight, 0.5, 0.5) for source, weight in zip(sources, (1, 3), strict=True)]
    columns = {"source": ["a"] * 7 + ["b"] * 7, "episode_index": [0] * 14, "frame_index": [*range(7)] * 2}
    columns |= {"future_index": np.array(columns["frame_index"]) + 5, "codes": np.zeros((14, 1))}
    labels = LatentLabels(columns, {"codebook_size": 2, "num_latent_tokens": 1, "tokenizer": "me/eyes"})
    mixture = MixtureDataset(weighted)
    shares = {
        "pairs": (FramePairDataset(sources, 0.5, 0.5), ["50.00%", "50.00%"], None),
        "demonstrations": (
            DemonstrationDataset(sources, labels),
            ["50.00%", "50.00%"],
            "made by the tokenizer me/eyes",
        ),
        "mixture": (mixture, ["25.00%", "75.00%"], None),
        "labelled": (LabelledMixture(mixture, labels), ["25.00%", "75.00%"], "made by the tokenizer me/eyes"),
    }
    for name, (dataset, expected, described) in shares.items():
        found = CardData.of_dataset(dataset)
        assert ([row[1] for row in found.rows], found.labels, found.instruction) == (expected, described, "go"), name
        # A process that loads data is not sent what only cards tell of.
        pickle.loads(pickle.dumps(dataset))[0]
    assert CardData.of_dataset([1, 2]) == CardData([], [])
