# SPDX-License-Identifier: Apache-2.0
"""The policy on every family of backbones, each a tiny random one of transformers' own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import modeling_utils

from cyclemimic.models.cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
)
from cyclemimic.models.cyclemimic.backbone_inputs_cyclemimic import finish_logits

from .backbone_families import FAMILIES, TEXT


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def processor(family, texts):
    tokenizer = CycleMimicProcessor.from_texts(texts, image_size=32).tokenizer
    image = tokenizer.convert_tokens_to_ids("<image>")
    _, image_processor, num_image_tokens = FAMILIES[family](vocabulary_of(tokenizer), image)
    return CycleMimicProcessor(
        image_processor,
        tokenizer,
        num_image_tokens=num_image_tokens,
        chunk_size=5,
        action_dim=4,
        num_act_tokens=2,
        action_statistics={"arm": {"q01": [-1.0] * 4, "q99": [1.0] * 4}},
    )


@pytest.fixture
def config(family, processor):
    torch.manual_seed(0)
    backbone_config, _, _ = FAMILIES[family](vocabulary_of(processor.tokenizer), processor.image_token_id)
    return processor.make_config(backbone_config, action_decoder_hidden_size=32, action_decoder_num_heads=2)


def vocabulary_of(tokenizer):
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    return {"vocab_size": len(tokenizer), **ids}


def overfit(model, batch, goal):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(300):
        optimizer.zero_grad()
        loss = model.train()(**batch).loss
        if loss < goal:
            break
        loss.backward()
        optimizer.step()
    return loss.item()


def enliven(model):
    """Weights as large as training makes them: at their first size, attention hardly tells one mask from another."""
    with torch.no_grad():
        for weight in model.backbone.parameters():
            if not weight.any():
                weight.normal_(std=0.2)
            elif weight.ndim > 1:
                weight.mul_(4)
    return model.eval()


def record_calls(module):
    calls = []
    module.register_forward_pre_hook(lambda _, args: calls.append(args))
    return calls


def test_overfits_saves_and_reloads(config, processor, images, texts, codes, tmp_path):
    model = CycleMimicForLatentActionPrediction(config)
    assert overfit(model, processor(images, texts, codes), goal=0.05) < 0.05
    prompt = processor(images, texts)
    assert model.eval().predict_latent_actions(**prompt).tolist() == codes.tolist()
    model.save_pretrained(tmp_path)
    reloaded, info = CycleMimicForLatentActionPrediction.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    for name, value in model.state_dict().items():
        assert torch.equal(value, reloaded.state_dict()[name]), name
    assert reloaded.eval().predict_latent_actions(**prompt).tolist() == codes.tolist()


def test_overfits_actions_from_the_image(config, processor, images, codes, actions):
    model = CycleMimicForActionPrediction(config)
    same = ["reach"] * 3
    assert overfit(model, processor(images, same, codes, actions), goal=0.15) < 0.15
    predicted = model.eval().predict_action_chunk(**processor(images, same))
    assert np.abs(processor.post_process_actions(predicted, "arm") - actions).mean() < 0.18


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_training_and_prediction_read_the_same_states(config, processor, images, texts, padding_side):
    model = enliven(CycleMimicForActionPrediction(config))
    prompt = processor(images, texts, padding_side=padding_side)
    assert 0 in prompt["attention_mask"]
    codes = model.predict_latent_actions(**prompt)
    calls = record_calls(model.action_decoder)
    predicted = model.predict_action_chunk(**prompt)
    assert calls[0][0].shape == (3, 16, 32) and calls[0][1].shape == (3, 2, 32)
    for side in ("left", "right"):
        output = model(**processor(images, texts, latent_actions=codes, padding_side=side))
        for at_prediction, in_training in zip(calls[0], calls[-1]):
            assert (at_prediction - in_training).abs().max() < 1e-4
        assert torch.allclose(output.actions, predicted, atol=1e-4)
    alone = processor(images[1], texts[1], latent_actions=codes[1:2])
    assert torch.allclose(model(**alone).actions, predicted[1:2], atol=1e-4)
    assert torch.allclose(model.predict_action_chunk(**processor(images[1], texts[1])), predicted[1:2], atol=1e-4)


@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)
def test_images_of_unequal_shapes(processor, texts):
    images = [np.full((32, 32 * wide, 3), 7, np.uint8) for wide in (1, 2, 1)]
    with pytest.raises(ValueError, match="`square_size` must be given for images of unequal shapes, got grids"):
        processor(images, texts)
    arguments = {"num_image_tokens": 16, "square_size": 32}
    squared = CycleMimicProcessor(processor.image_processor, processor.tokenizer, **arguments)
    batch = squared(images, texts)
    assert (
        batch["pixel_values"].shape == (3, 64, 3 * 2 * 4 * 4) and batch["image_grid_thw"].tolist() == [[1, 8, 8]] * 3
    )
    with pytest.raises(ValueError, match="`square_size` must be at least 1, got 0"):
        CycleMimicProcessor(processor.image_processor, processor.tokenizer, square_size=0)


def test_the_future_is_out_of_sight(config, processor, images, texts, codes):
    model = enliven(CycleMimicForActionPrediction(config))
    batch = processor(images, texts, codes, padding_side="left")
    changed = processor(images, texts, np.concatenate([codes[:, :3], 15 - codes[:, 3:]], axis=1), padding_side="left")
    assert torch.allclose(model(**batch).logits, model(**changed).logits, atol=1e-5)
    assert not torch.allclose(model(**batch).actions, model(**changed).actions, atol=1e-5)


def test_loss_equals_that_of_the_backbones_own_logits(config, processor, images, texts, codes):
    model = enliven(CycleMimicForLatentActionPrediction(config))
    losses = []
    for row in range(3):
        batch = processor(images[row], texts[row], codes[row : row + 1])
        labels = batch.pop("labels")
        if "image_grid_thw" in batch:
            batch["pixel_values"] = batch["pixel_values"].flatten(0, 1)
        is_image = (batch["input_ids"] == processor.image_token_id).long()
        kinds = {
            "gemma3": {"token_type_ids": is_image},
            "paligemma": {"token_type_ids": (labels != -100).long()},
            "qwen2_5_vl": {"mm_token_type_ids": is_image},
            "qwen3_vl": {"mm_token_type_ids": is_image},
            "qwen3_5": {"mm_token_type_ids": is_image},
        }
        # As transformers' own processors have it, and positions left to the backbone.
        types = kinds.get(config.backbone_config.model_type, {})
        with torch.no_grad():
            logits = model.backbone(**batch, **types).logits[0, -5:-1]
        losses.append(torch.nn.functional.cross_entropy(logits, labels[0, -4:]))
    output = model(**processor(images, texts, codes))
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), abs=1e-4)


@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)
def test_logits_are_multiplied_as_the_backbones_own(config, processor, images, texts, codes):
    module = pytest.importorskip("transformers.models.hyperclovax_vision_v2")
    backbone_config = module.HyperCLOVAXVisionV2Config(
        vision_config=config.backbone_config.vision_config.to_dict(),
        text_config={
            "model_type": "hyperclovax",
            **TEXT,
            **vocabulary_of(processor.tokenizer),
            "logits_scaling": 0.125,
        },
        image_token_id=processor.image_token_id,
        video_token_id=0,
    )
    model = enliven(CycleMimicForLatentActionPrediction(processor.make_config(backbone_config)))
    batch = processor(images[0], texts[0], codes[:1])
    loss = model(**batch).loss.item()
    labels = batch.pop("labels")
    batch["pixel_values"] = batch["pixel_values"].flatten(0, 1)
    is_image = (batch["input_ids"] == processor.image_token_id).long()
    with torch.no_grad():
        logits = model.backbone(**batch, mm_token_type_ids=is_image).logits[0, -5:-1]
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, labels[0, -4:]).item(), abs=1e-5)
    assert loss != pytest.approx(torch.nn.functional.cross_entropy(8 * logits, labels[0, -4:]).item(), abs=1e-2)


@pytest.mark.parametrize(
    ("model_type", "fields", "expected"),
    [
        ("granite4_vision", {"logits_scaling": 4.0}, [0.5, -1.0]),
        ("granite_docling", {"logits_scaling": 4.0}, [0.5, -1.0]),
        ("hyperclovax_vision_v2", {"logits_scaling": 4.0}, [8.0, -16.0]),
        ("cohere_compass", {"logit_scale": 0.25}, [0.5, -1.0]),
        ("cohere_compass", {"logit_scale": None}, [2.0, -4.0]),
        # Multiplied first, then capped: 2 tanh(1 / 2) and 2 tanh(-2 / 2).
        ("muse_spark", {"output_multiplier": 0.5, "final_logit_softcapping": 2.0}, [0.924234, -1.523188]),
        # Its own forward does not.
        ("llava_next", {"logits_scaling": 4.0}, [2.0, -4.0]),
    ],
)
def test_what_is_done_behind_the_vocabulary_head(model_type, fields, expected):
    config = SimpleNamespace(model_type=model_type, get_text_config=lambda: SimpleNamespace(**fields))
    logits = finish_logits(config, torch.tensor([2.0, -4.0]))
    assert torch.allclose(logits, torch.tensor(expected), atol=1e-6)


def test_prediction_compiles_whole_and_once(config, processor, images, texts):
    model = enliven(CycleMimicForActionPrediction(config))
    prompts = [processor(images, told, pad_to_multiple_of=64) for told in (texts, [texts[1]] * 3)]
    if "image_grid_thw" in prompts[0]:
        pytest.skip("its backbone reads the grids of its images in Python")
    expected = [model.predict_action_chunk(**prompt) for prompt in prompts]
    torch.compiler.reset()
    # The graph is captured as for any other backend, and run as it is.
    predict = torch.compile(model.predict_action_chunk, fullgraph=True, backend="eager")
    for stance, prompt, chunk in zip(("default", "fail_on_recompile"), prompts, expected):
        with torch.compiler.set_stance(stance):
            assert torch.allclose(predict(**prompt), chunk, atol=1e-5)


def test_token_ids_where_weights_come_from_the_first_process(config, tmp_path, monkeypatch):
    """As FSDP loads in all others: without a word, these read token 0 for all of them."""
    CycleMimicForActionPrediction(config).save_pretrained(tmp_path)
    monkeypatch.setattr(modeling_utils, "is_fsdp_enabled", lambda: True)
    monkeypatch.setattr(modeling_utils, "is_local_dist_rank_0", lambda: False)
    model = CycleMimicForActionPrediction.from_pretrained(tmp_path)
    for name in ("latent_token_ids", "act_token_ids", "new_token_ids"):
        assert getattr(model, name).tolist() == getattr(config, name), name


@pytest.mark.parametrize("fill", ["init_weights", "load_state_dict"])
@pytest.mark.parametrize("family", ["llava"], indirect=True)
def test_token_ids_of_a_model_made_without_memory(config, fill):
    with torch.device("meta"):
        model = CycleMimicForActionPrediction(config)
    model.to_empty(device="cpu")
    if fill == "init_weights":
        model.init_weights()
    else:
        model.load_state_dict(CycleMimicForActionPrediction(config).state_dict())
    for name in ("latent_token_ids", "act_token_ids", "new_token_ids"):
        assert getattr(model, name).tolist() == getattr(config, name), name


def test_vision_towers(config):
    model = CycleMimicForLatentActionPrediction(config)
    (tower,) = model.vision_towers()
    names = {name for name, part in model.named_modules() if part is tower}
    assert len(names) == 1 and sum(weight.numel() for weight in tower.parameters()) > 1000
    assert not any(part is model.get_input_embeddings() for part in tower.modules())


def test_what_projects_features_is_no_tower():
    parts = {name: torch.nn.Linear(2, 2) for name in ("vision_tower", "embed_vision", "visual", "language_model")}
    model = SimpleNamespace(backbone=SimpleNamespace(base_model=torch.nn.ModuleDict(parts)))
    assert CycleMimicForActionPrediction.vision_towers(model) == [parts["vision_tower"], parts["visual"]]
