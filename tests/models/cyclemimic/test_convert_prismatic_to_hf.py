# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor, LlamaConfig

from cyclemimic.models.cyclemimic import convert_prismatic_to_hf
from cyclemimic.models.cyclemimic.convert_prismatic_to_hf import plan_conversion
from cyclemimic.models.cyclemimic.timm_names_prismatic import make_weight

from .prismatic_checkpoints import (
    TIMM,
    VISION,
    make_language_model,
    make_tower,
    openvla_weights,
    random_array,
    run_parts,
    save_language_model,
    save_openvla,
    save_run,
)

LEFT_OUT = [("featurizer", ["blocks.2", "norm"]), ("fused_featurizer", ["attn_pool", "blocks.2", "norm"])]


@pytest.fixture(autouse=True)
def _tiny_towers(monkeypatch):
    monkeypatch.setitem(convert_prismatic_to_hf.VISION_BACKBONES, "tiny", VISION)


def convert(folder, *arguments, **keywords):
    conversion = plan_conversion(*arguments, **keywords)
    conversion.save(folder)
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), conversion


def save_towers(folder):
    """timm's own files of the towers, single precision, DINOv2's for images of another size."""
    files = {}
    for part in ("dino", "siglip"):
        weights = {name: value.float() for name, value in make_tower(part).items()}
        if part == "dino":
            weights["pos_embed"] = random_array(5, [1, 25, 32]).float()
        save_file(weights, folder / f"{part}.safetensors")
        files[part] = folder / f"{part}.safetensors"
    return files


def test_features_are_those_of_timm(tmp_path):
    model, _ = convert(tmp_path / "out", save_openvla(tmp_path / "openvla"))
    assert model.dtype == torch.float64
    image = random_array(TIMM["image_seed"], TIMM["image_shape"])
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    # What the model turns into `image` for DINOv2; SigLIP reads it as it is.
    before = (image * std + mean) * 2 - 1
    with torch.no_grad():
        dino = model.get_image_features(before).last_hidden_state[..., :32]
        siglip = model.get_image_features(image).last_hidden_state[..., 32:]
    for part, features in (("dino", dino), ("siglip", siglip)):
        expected = torch.tensor(TIMM["towers"][part]["features"], dtype=torch.float64)
        # Within the digits of the file.
        assert torch.allclose(features[0], expected, atol=1e-6, rtol=1e-6), part


def test_projector_and_language_model_are_those_of_openvla(tmp_path):
    model, conversion = convert(tmp_path / "out", save_openvla(tmp_path / "openvla"))
    weights = openvla_weights()
    features = random_array(6, [2, 4, 80])
    hidden = features
    for layer in (1, 2, 3):
        hidden = hidden @ weights[f"projector.fc{layer}.weight"].T + weights[f"projector.fc{layer}.bias"]
        hidden = torch.nn.functional.gelu(hidden) if layer < 3 else hidden
    assert torch.allclose(model.model.projector(features), hidden)
    input_ids = torch.tensor([[1, 2, 3, 4]])
    assert torch.allclose(model(input_ids=input_ids).logits, make_language_model()(input_ids=input_ids).logits)
    expected = {f"vision_backbone.{part}.{name}" for part, names in LEFT_OUT for name in names}
    assert set(conversion.left_out) == expected
    written = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    assert conversion.num_bytes == written


def test_processor_fits_the_model(tmp_path):
    model, _ = convert(tmp_path / "out", save_openvla(tmp_path / "openvla"))
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    image = torch.zeros(50, 40, 3, dtype=torch.uint8).numpy()
    batch = processor(images=[image], text=["<image>open the drawer"], return_tensors="pt")
    assert model.config.image_token_id == processor.image_token_id
    assert model.config.text_config.pad_token_id == processor.tokenizer.pad_token_id
    assert model.generate(**batch.to(dtype=torch.float64), max_new_tokens=2).shape[0] == 1


@pytest.mark.parametrize("with_towers", [True, False])
def test_a_run_of_tri_ml_gives_the_same_model(with_towers, tmp_path):
    reference, _ = convert(tmp_path / "reference", save_openvla(tmp_path / "openvla"))
    run = save_run(tmp_path / "run", run_parts(with_towers))
    towers = {} if with_towers else save_towers(tmp_path)
    language_model = str(save_language_model(tmp_path / "llama"))
    model, conversion = convert(tmp_path / "out", run, language_model, **towers)
    assert model.config.text_config.vocab_size == 320
    for name, value in reference.state_dict().items():
        same = torch.allclose(model.state_dict()[name], value, atol=0 if with_towers else 1e-6)
        assert same == (with_towers or not name.endswith("position_embeddings")), name
    # The file itself may be given as well.
    file = run / "checkpoints" / "latest-checkpoint.pt"
    assert plan_conversion(file, language_model, **towers).sources.keys() == conversion.sources.keys()


def test_positions_are_resampled_as_timm_does():
    positions = random_array(TIMM["resampled"]["seed"], TIMM["resampled"]["shape"])
    table = make_weight("x.embeddings.position_embeddings", positions, None, 4)
    assert table.shape == (1, 5, 3) and not table[:, 0].any()
    expected = torch.tensor(TIMM["resampled"]["positions"], dtype=torch.float64)
    assert torch.allclose(table[0, 1:], expected, atol=1e-6)


def test_what_old_transformers_saved_is_left_out(tmp_path):
    weights = openvla_weights()
    weights["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    weights["language_model.model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    _, conversion = convert(tmp_path / "out", save_openvla(tmp_path / "openvla", weights))
    assert "language_model.model.layers.*.self_attn.rotary_emb.inv_freq" in conversion.left_out


def without(name):
    return {key: value for key, value in openvla_weights().items() if key != name}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"action_head.weight": torch.ones(1), "vision_backbone.featurizer.blocks.1.extra": torch.ones(1)},
            "no part of the model is made of action_head.weight, vision_backbone.featurizer.blocks.1.extra.",
        ),
        (
            {"vision_backbone.featurizer.blocks.0.ls1.gamma": torch.ones(32)},
            "some weights are there twice, vision_backbone.featurizer.blocks.0.ls1.scale_factor",
        ),
        (without("projector.fc3.bias"), "nothing is there to make model.projector.fc3.bias of."),
        (
            without("vision_backbone.fused_featurizer.blocks.1.attn.qkv.bias"),
            r"nothing is there to make model.fused_vision_tower.encoder.layers.1.self_attn.k_proj.bias, .*q_proj.bias of\.$",
        ),
        (
            {"projector.fc1.weight": torch.ones(320, 79)},
            r"projector.fc1.weight of shape \(320, 79\) does not make model.projector.fc1.weight of shape \(320, 80\)",
        ),
        (
            {"vision_backbone.featurizer.blocks.0.attn.qkv.weight": torch.ones(95, 32)},
            r"blocks.0.attn.qkv.weight of shape \(95, 32\) does not make",
        ),
        ({"vision_backbone.featurizer.blocks.0.attn.qkv.bias": torch.tensor(1.0)}, r"of shape \(\) does not make"),
        ({"vision_backbone.featurizer.pos_embed": torch.ones(1, 5, 32)}, r"pos_embed of shape \(1, 5, 32\) does not"),
    ],
)
def test_every_tensor_and_every_weight_is_accounted_for(weights, message, tmp_path):
    weights = weights if len(weights) > 2 else openvla_weights() | weights
    with pytest.raises(ValueError, match=message) as error:
        plan_conversion(save_openvla(tmp_path / "openvla", weights))
    assert "\n" not in str(error.value) and str(tmp_path / "openvla") in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_backbone_id": "clip-vit-l"}, r"`vision_backbone_id` must be one of \['dinosiglip-vit-so-224px', "),
        ({"image_resize_strategy": "letterbox"}, r"`image_resize_strategy` must be one of \['resize-naive'\]"),
        ({"text_config": None}, "`text_config` must have a `model_type` that transformers knows, got None"),
    ],
)
def test_config_of_another_model(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        plan_conversion(save_openvla(tmp_path / "openvla", **change))


def test_broken_openvla_folders(tmp_path):
    folder = tmp_path / "openvla"
    with pytest.raises(ValueError, match="config.json: must be a JSON file of the checkpoint, No such file"):
        plan_conversion(folder)
    save_openvla(folder)
    shard = folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match="model-00002-of-00002.safetensors: must be a safetensors file"):
        plan_conversion(folder)
    shard.unlink()
    with pytest.raises(ValueError, match="model-00002-of-00002.safetensors: must be a safetensors file, No such file"):
        plan_conversion(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(ValueError, match="names a file outside of its folder, ../outside.safetensors"):
        plan_conversion(folder)
    index.write_text("{}")
    with pytest.raises(ValueError, match="must hold a `weight_map` from tensors to files, got NoneType"):
        plan_conversion(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: must be a JSON file of the checkpoint, Expecting"):
        plan_conversion(folder)


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("code_was_run",)


def test_a_run_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = save_run(tmp_path / "run", {"projector": {"projector.0.weight": Code()}})
    with pytest.raises(ValueError, match="must be a PyTorch file of tensors and nothing else") as error:
        plan_conversion(run, str(save_language_model(tmp_path / "llama")))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "code_was_run").exists()


def test_broken_runs(tmp_path):
    run = save_run(tmp_path / "run", run_parts(with_towers=False))
    language_model = str(save_language_model(tmp_path / "llama"))
    with pytest.raises(ValueError, match="`language_model` must be given with a TRI-ML run.*llama2-7b-pure"):
        plan_conversion(run)
    with pytest.raises(ValueError, match="give timm's files of the towers, which were not trained, as `dino` and"):
        plan_conversion(run, language_model)
    with pytest.raises(ValueError, match="`language_model` must be a folder or a Hub id with config and tokenizer"):
        plan_conversion(run, str(tmp_path / "absent"))
    LlamaConfig().save_pretrained(tmp_path / "no_tokenizer")
    with pytest.raises(ValueError, match="`language_model` must be a folder or a Hub id with config and tokenizer"):
        plan_conversion(run, str(tmp_path / "no_tokenizer"))
    parts = run_parts(with_towers=True)
    parts["llm_backbone"]["llm.model.embed_tokens.weight"] = torch.ones(200, 32)
    small = save_run(tmp_path / "small", parts)
    with pytest.raises(ValueError, match="the embeddings have 200 rows, but the tokenizer of .* has "):
        plan_conversion(small, language_model)
    for name, content in (("list", [1]), ("flat", {"model": {"projector": torch.ones(1)}})):
        torch.save(content, save_run(tmp_path / name, {}) / "checkpoints" / "latest-checkpoint.pt")
        with pytest.raises(ValueError, match="must hold a `model` with a dictionary of tensors a part"):
            plan_conversion(tmp_path / name, language_model)
    file = run / "checkpoints" / "latest-checkpoint.pt"
    for content in (b"", b"no archive", file.read_bytes()[:-1000]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="latest-checkpoint.pt: must be a PyTorch file of tensors") as error:
            plan_conversion(run, language_model)
        assert "\n" not in str(error.value)
    file.unlink()
    with pytest.raises(ValueError, match="latest-checkpoint.pt: must be a PyTorch file of tensors.*No such file"):
        plan_conversion(run, language_model)
