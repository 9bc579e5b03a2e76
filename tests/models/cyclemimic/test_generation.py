# SPDX-License-Identifier: Apache-2.0
"""
What transformers documents of `generate`, on the models that generate: the backbones. The policy itself does not: what follows
a prompt is as many latent actions as there are, chosen among them alone (`predict_latent_actions`).
"""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig

from cyclemimic import CycleMimicForLatentActionPrediction, PrismaticConfig, PrismaticForConditionalGeneration

from .prismatic_checkpoints import TEXT, VISION

IMAGE, PAD, NUM_NEW = 5, 0, 5
GREEDY = {"do_sample": False, "pad_token_id": PAD, "max_new_tokens": NUM_NEW, "min_new_tokens": NUM_NEW}
# A placeholder among the words would want an image.
GREEDY["suppress_tokens"] = [IMAGE]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    text_config = LlamaConfig(**TEXT, vocab_size=64, initializer_range=0.3)
    config = PrismaticConfig(**VISION, text_config=text_config, image_token_id=IMAGE)
    return PrismaticForConditionalGeneration(config).eval()


@pytest.fixture(scope="module")
def inputs():
    """Two prompts, the first of them shorter."""
    pixel_values = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    rows = [[PAD, PAD, 1, *[IMAGE] * 4, 9, 10], [1, *[IMAGE] * 4, 12, 13, 14, 15]]
    mask = [[0, 0, *[1] * 7], [1] * 9]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(mask), "pixel_values": pixel_values}


@pytest.fixture(scope="module")
def greedy(model, inputs):
    return model.generate(**inputs, **GREEDY)


@pytest.mark.parametrize(
    "how",
    [
        {"use_cache": False},
        {"cache_implementation": "static", "disable_compile": True},
        {"do_sample": True, "top_k": 1},
        {"num_beams": 1, "return_dict_in_generate": True},
    ],
)
def test_greedy_search_by_other_ways(model, inputs, greedy, how):
    generated = model.generate(**inputs, **{**GREEDY, **how})
    assert torch.equal(generated if isinstance(generated, torch.Tensor) else generated.sequences, greedy)


def test_padding_changes_nothing(model, inputs, greedy):
    alone = {name: values[:1] for name, values in inputs.items()}
    for name in ("input_ids", "attention_mask"):
        alone[name] = alone[name][:, 2:]
    assert torch.equal(model.generate(**alone, **GREEDY), greedy[:1, 2:])


def test_prompt_lookup_guesses_change_nothing(model, inputs, greedy):
    alone = {name: values[1:] for name, values in inputs.items()}
    assert torch.equal(model.generate(**alone, **GREEDY, prompt_lookup_num_tokens=2), greedy[1:])


def test_embeddings_in_place_of_tokens(model, inputs, greedy):
    embeddings = model.get_input_embeddings()(inputs["input_ids"])
    others = {name: inputs[name] for name in ("attention_mask", "pixel_values")}
    assert torch.equal(model.generate(inputs_embeds=embeddings, **others, **GREEDY), greedy[:, -NUM_NEW:])


def test_goes_on_from_a_cache(model, inputs, greedy):
    half = model.generate(
        **inputs, **{**GREEDY, "max_new_tokens": 2, "min_new_tokens": 2}, return_dict_in_generate=True
    )
    mask = torch.cat([inputs["attention_mask"], torch.ones(2, 2, dtype=torch.long)], dim=1)
    rest = {**GREEDY, "max_new_tokens": NUM_NEW - 2, "min_new_tokens": NUM_NEW - 2}
    # The image is in the cache.
    whole = model.generate(half.sequences, attention_mask=mask, past_key_values=half.past_key_values, **rest)
    assert torch.equal(whole, greedy)


def test_returns_what_is_asked_for(model, inputs, greedy):
    asked = ("output_scores", "output_logits", "output_hidden_states", "output_attentions")
    model.set_attn_implementation("eager")  # the only one that has attentions to show
    try:
        output = model.generate(**inputs, **GREEDY, return_dict_in_generate=True, **dict.fromkeys(asked, True))
    finally:
        model.set_attn_implementation("sdpa")
    length = inputs["input_ids"].shape[1]
    assert [tuple(logits.shape) for logits in output.logits] == [(2, 64)] * NUM_NEW
    assert torch.equal(torch.stack(output.scores, dim=1).argmax(-1), greedy[:, length:])
    layers = TEXT["num_hidden_layers"]
    for step, (states, attentions) in enumerate(zip(output.hidden_states, output.attentions)):
        read = 1 if step else length
        assert [tuple(state.shape) for state in states] == [(2, read, 32)] * (layers + 1)
        assert [tuple(attention.shape) for attention in attentions] == [(2, 2, read, length + step)] * layers
    assert output.past_key_values.get_seq_length() == length + NUM_NEW - 1


def log_probability(model, inputs, sequences):
    """Of what was generated, from one reading of the whole."""
    length = inputs["input_ids"].shape[1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, sequences.shape[1] - length), value=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(sequences, inputs["pixel_values"], mask, position_ids=positions).logits
    chosen = logits[:, length - 1 : -1].log_softmax(-1).gather(-1, sequences[:, length:, None])
    return chosen.sum((1, 2))


def test_beams_find_what_is_as_likely_or_likelier(model, inputs, greedy):
    beams = {"num_beams": 8, "num_return_sequences": 2, "length_penalty": 0.0}
    output = model.generate(**inputs, **GREEDY, **beams, return_dict_in_generate=True, output_scores=True)
    best, second = output.sequences[::2], output.sequences[1::2]
    assert not torch.equal(best, second)
    scores = log_probability(model, inputs, best)
    assert torch.allclose(scores, output.sequences_scores[::2], atol=1e-4)
    assert (scores >= log_probability(model, inputs, greedy) - 1e-4).all()
    assert (scores >= log_probability(model, inputs, second) - 1e-4).all()


def test_sampling_is_the_seeds(model, inputs):
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(model.generate(**inputs, **{**GREEDY, "do_sample": True}, num_return_sequences=4))
    assert drawn[0].shape[0] == 8 and torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_stops_at_the_end_of_a_text(model, inputs, greedy):
    end = int(greedy[0, -NUM_NEW + 1])
    settings = {**GREEDY, "min_new_tokens": 0, "eos_token_id": end}
    alone = {name: values[:1] for name, values in inputs.items()}
    assert int(model.generate(**alone, **settings)[0, -1]) == end


def test_the_policy_reads_as_its_backbone_would_generate(config, processor, images, texts):
    model = CycleMimicForLatentActionPrediction(config).eval()
    assert not model.can_generate()
    inputs = processor(images, texts, padding_side="left")
    latent_ids = processor.latent_token_ids
    words = model.backbone.generate(
        **inputs, max_new_tokens=4, do_sample=False, prefix_allowed_tokens_fn=lambda row, ids: latent_ids
    )[:, inputs["input_ids"].shape[1] :]
    assert torch.equal(words, torch.tensor(latent_ids)[model.predict_latent_actions(**inputs)])
