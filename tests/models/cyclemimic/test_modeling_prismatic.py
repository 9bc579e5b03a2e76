# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
)

from cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    PrismaticConfig,
    PrismaticForConditionalGeneration,
    PrismaticModel,
)
from cyclemimic.models.cyclemimic.processing_prismatic import make_prismatic_processor

from .prismatic_checkpoints import TEXT, VISION, save_tokenizer

IMAGE = 5
LLAMA = LlamaConfig(**TEXT, vocab_size=64)
TEXT_CONFIGS = [
    pytest.param(LLAMA, id="llama"),
    pytest.param(LlamaConfig(**TEXT, vocab_size=64, tie_word_embeddings=True), id="llama-tied"),
    pytest.param(Qwen2Config(**TEXT, vocab_size=64), id="qwen2"),
    # Calls its embeddings by another name than the others, and ties them.
    pytest.param(
        GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, bos_token_id=1, eos_token_id=2), id="gpt2-tied"
    ),
]


def make_model(text_config=LLAMA):
    torch.manual_seed(0)
    config = PrismaticConfig(**VISION, text_config=text_config.to_dict(), image_token_id=IMAGE)
    return AutoModelForImageTextToText.from_config(config).eval()


@pytest.fixture
def inputs():
    torch.manual_seed(1)
    input_ids = torch.tensor([[1, *[IMAGE] * 4, 9, 10, 11], [1, *[IMAGE] * 4, 12, 13, 14]])
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "pixel_values": torch.rand(2, 3, 28, 28) * 2 - 1,
    }


def test_features_of_both_towers_take_the_placeholders(inputs):
    model = make_model()
    body = model.model
    assert type(model) is PrismaticForConditionalGeneration and type(body) is PrismaticModel
    images = inputs["pixel_values"]
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    features = [
        # Behind one class token and four registers.
        body.vision_tower(((images + 1) / 2 - mean) / std).last_hidden_state[:, 5:],
        body.fused_vision_tower(images).last_hidden_state,
    ]
    output = model.get_image_features(images)
    assert torch.allclose(output.last_hidden_state, torch.cat(features, dim=-1), atol=1e-5)
    embeddings = model.get_input_embeddings()(inputs["input_ids"]).clone()
    embeddings[:, 1:5] = body.projector(torch.cat(features, dim=-1))
    expected = body.language_model(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"])
    result = model(**inputs)
    assert torch.allclose(result.logits, model.lm_head(expected.last_hidden_state), atol=1e-4)
    assert torch.equal(result.image_hidden_states, output.pooler_output)


@pytest.mark.parametrize("tower", ["vision_tower", "fused_vision_tower"])
def test_towers_end_behind_the_second_to_last_layer_without_a_norm(tower):
    built = getattr(make_model().model, tower)
    full = AutoModel.from_config(getattr(PrismaticConfig(**VISION), tower.replace("tower", "config"))).eval()
    full.load_state_dict(built.state_dict(), strict=False)
    images = torch.rand(2, 3, 28, 28)
    hidden_states = full(images, output_hidden_states=True).hidden_states
    assert torch.allclose(built(images).last_hidden_state, hidden_states[-2], atol=1e-6)
    assert not torch.allclose(full(images).last_hidden_state, hidden_states[-2], atol=1e-2)


@pytest.mark.parametrize("text_config", TEXT_CONFIGS)
def test_save_load_and_generate(text_config, inputs, tmp_path):
    model = make_model(text_config)
    tied = model.config.tie_word_embeddings
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tied
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == tied
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)
    generated = loaded.generate(**inputs, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0)
    # Token by token, without a cache.
    step = dict(inputs)
    for _ in range(4):
        following = model(**step).logits[:, -1].argmax(-1, keepdim=True)
        step["input_ids"] = torch.cat([step["input_ids"], following], dim=1)
        step["attention_mask"] = torch.ones_like(step["input_ids"])
    assert torch.equal(generated, step["input_ids"])


def test_loss_equals_one_worked_out_from_logits(inputs):
    model = make_model()
    labels = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    output = model(**inputs, labels=labels)
    log_probabilities = torch.log_softmax(output.logits[:, 4:-1], dim=-1)
    expected = -log_probabilities.gather(-1, inputs["input_ids"][:, 5:, None]).mean()
    assert output.loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert torch.allclose(model(**inputs, logits_to_keep=1).logits, output.logits[:, -1:], atol=1e-6)


def test_images_go_where_the_whole_embedding_is_the_placeholders(inputs):
    """In bfloat16, single numbers of two embeddings often are the same."""
    model = make_model()
    embeddings = model.get_input_embeddings()
    with torch.no_grad():
        embeddings.weight[9, 0] = embeddings.weight[IMAGE, 0]
    given = {name: value for name, value in inputs.items() if name != "input_ids"}
    logits = model(inputs_embeds=embeddings(inputs["input_ids"]), **given).logits
    torch.testing.assert_close(logits, model(**inputs).logits)


def test_a_new_projector_keeps_the_spread_of_the_features():
    """Not transformers' 0.02, of which three layers leave next to nothing."""
    projector = make_model().model.projector
    for layer in (projector.fc1, projector.fc2, projector.fc3):
        spread = (2 / (layer.in_features + layer.out_features)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(spread, rel=0.1)


def test_gradients_reach_every_weight(inputs):
    model = make_model().train()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    plain = model.model.vision_tower.embeddings.cls_token.grad.clone()
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    assert torch.allclose(model.model.vision_tower.embeddings.cls_token.grad, plain, atol=1e-6)


def test_compiles_into_one_graph(inputs):
    model = make_model()
    compiled = torch.compile(model, backend="eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    assert torch.allclose(compiled(**inputs, use_cache=False).logits, model(**inputs).logits, atol=1e-5)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


def test_embeddings_can_grow(inputs):
    model = make_model()
    before = model(**inputs).logits
    model.resize_token_embeddings(70, mean_resizing=False)
    assert model.config.text_config.vocab_size == 70
    assert torch.allclose(model(**inputs).logits[..., :64], before, atol=1e-6)


def test_bad_inputs(inputs):
    model = make_model()
    with pytest.raises(ValueError, match=r"must hold 8 image placeholders \(id 5\), one a patch, got 7"):
        input_ids = inputs["input_ids"].clone()
        input_ids[0, 1] = 9
        model(**{**inputs, "input_ids": input_ids})
    with pytest.raises(ValueError, match=r"must hold 8 image placeholders \(id 5\), one a patch, got 7"):
        model(inputs_embeds=model.get_input_embeddings()(input_ids), pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match="Exactly one of `input_ids` and `inputs_embeds`"):
        model(attention_mask=inputs["attention_mask"])


@pytest.fixture
def policy_parts(tmp_path):
    """A pretrained Prismatic of another width of vocabulary, and the policy's processor made of Prismatic's."""
    save_tokenizer(tmp_path / "text")
    own = make_prismatic_processor(
        AutoTokenizer.from_pretrained(tmp_path / "text"), PrismaticConfig(**VISION).vision_config
    )
    text_config = LlamaConfig(**TEXT, vocab_size=len(own.tokenizer))
    torch.manual_seed(0)
    config = PrismaticConfig(**VISION, text_config=text_config, image_token_id=own.image_token_id)
    PrismaticForConditionalGeneration(config).save_pretrained(tmp_path / "backbone")
    processor = CycleMimicProcessor(
        own.image_processor, own.tokenizer, num_image_tokens=config.num_image_tokens, chunk_size=5, action_dim=4
    )
    return str(tmp_path / "backbone"), processor


def overfit(model, batch, steps):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.train()(**batch).loss
        loss.backward()
        optimizer.step()
    return loss.item()


def test_policy_learns_a_batch_on_prismatic(policy_parts, images, codes, tmp_path):
    backbone, processor = policy_parts
    model = CycleMimicForLatentActionPrediction.from_backbone(
        backbone, processor, action_decoder_hidden_size=32, action_decoder_num_heads=2
    )
    texts = ["reach"] * 3  # only the image tells the samples apart
    assert overfit(model, processor(images, texts, codes), steps=150) < 0.05
    assert model.eval().predict_latent_actions(**processor(images, texts)).tolist() == codes.tolist()
    model.save_pretrained(tmp_path / "policy")
    loaded, info = CycleMimicForLatentActionPrediction.from_pretrained(tmp_path / "policy", output_loading_info=True)
    assert not any(info.values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert loaded.eval().predict_latent_actions(**processor(images, texts)).tolist() == codes.tolist()
    inputs = processor(images, texts)
    generated = loaded.backbone.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)
    length = inputs["input_ids"].shape[1]
    assert generated[:, length:].tolist() == np.array(processor.latent_token_ids)[codes].tolist()
    acting = CycleMimicForActionPrediction.from_pretrained(tmp_path / "policy").eval()
    chunk = acting.predict_action_chunk(**inputs)
    assert torch.allclose(acting(**processor(images, texts, codes)).actions, chunk, atol=1e-4)


def test_two_cameras_on_prismatic(policy_parts, images, texts, codes):
    backbone, one = policy_parts
    processor = CycleMimicProcessor(
        one.image_processor, one.tokenizer, num_image_tokens=one.num_image_tokens, camera_names=["front", "wrist"]
    )
    model = CycleMimicForActionPrediction.from_backbone(
        backbone, processor, action_decoder_hidden_size=32, action_decoder_num_heads=2
    ).eval()
    pairs = [[image, images[0]] for image in images]
    prompt = processor(pairs, texts)
    chunk = model.predict_action_chunk(**prompt)
    codes = model.predict_latent_actions(**prompt)
    assert torch.allclose(model(**processor(pairs, texts, codes)).actions, chunk, atol=1e-4)
    swapped = model.predict_action_chunk(**processor([pair[::-1] for pair in pairs], texts))
    changed = (swapped - chunk).abs().amax(dim=(1, 2)) > 1e-6
    assert changed.tolist() == [False, True, True]
