# SPDX-License-Identifier: Apache-2.0
"""The policy's processor, made of the processors of the families of backbones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    Gemma3Processor,
    GPT2Tokenizer,
    Idefics3Processor,
    LlavaProcessor,
    PaliGemmaProcessor,
    Qwen2_5_VLProcessor,
)

from cyclemimic import CycleMimicForActionPrediction, CycleMimicForLatentActionPrediction, CycleMimicProcessor
from cyclemimic.data import LatentLabels
from cyclemimic.models.cyclemimic import make_tiny_backbone_config
from cyclemimic.policies import (
    load_for_actions,
    load_policy,
    make_policy_of_backbone,
    make_tiny_policy,
    processor_for_backbone,
)

from .models.cyclemimic.backbone_families import FAMILIES

ASKED = "In: What action should the robot take to {instruction}?\nOut:"
GEMMA = {"boi_token": "<boi>", "eoi_token": "<eoi>", "image_token": "<soft>"}


class QwenProcessor(Qwen2_5_VLProcessor):
    """Without the video processor, which needs torchvision."""

    def check_argument_for_proper_class(self, argument_name, argument):
        return None


CASES = {
    "llava": (
        ["<image>"],
        {},
        lambda parts: LlavaProcessor(
            *parts, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
        ),
        "{image}" + ASKED,
    ),
    "paligemma": (["<image>"], {}, lambda parts: PaliGemmaProcessor(*parts), "{image}<bos>" + ASKED + "\n"),
    "gemma3": (
        [],
        GEMMA,
        lambda parts: Gemma3Processor(*parts, image_seq_length=16),
        "\n\n<boi>{image}<eoi>\n\n" + ASKED,
    ),
    "idefics3": (
        ["<image>", "<fake_token_around_image>", "<global-img>"],
        {},
        lambda parts: Idefics3Processor(*parts, image_seq_len=16),
        "<fake_token_around_image><global-img>{image}<fake_token_around_image>" + ASKED,
    ),
    "qwen2_5_vl": (
        ["<|image_pad|>", "<|video_pad|>", "<start>", "<end>"],
        {},
        lambda parts: QwenProcessor(*parts),
        "<start>{image}<end>" + ASKED,
    ),
}


@pytest.fixture(params=CASES)
def backbone(request):
    """Name, configuration and processor of a family, with a tokenizer made here."""
    specials, named, make_processor, _ = CASES[request.param]
    tokenizer = GPT2Tokenizer(vocab={}, merges=[]).train_new_from_iterator(
        ["what action"], 400, new_special_tokens=["<pad>", "<bos>", *specials, *named.values()], show_progress=False
    )
    tokenizer.pad_token, tokenizer.bos_token = "<pad>", "<bos>"
    tokenizer._set_model_specific_special_tokens(named)
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    vocabulary = {"vocab_size": len(tokenizer)} | {name: getattr(tokenizer, name) for name in names}
    image = tokenizer.convert_tokens_to_ids(named.get("image_token", specials[0] if specials else ""))
    config, image_processor, _ = FAMILIES[request.param](vocabulary, image)
    if request.param == "qwen2_5_vl":
        config.vision_start_token_id, config.vision_end_token_id = image + 2, image + 3
    if request.param == "idefics3":
        image_processor.do_image_splitting = True
    return request.param, config, make_processor((image_processor, tokenizer))


def test_prompt_is_the_backbones_own(backbone, tmp_path):
    name, config, source = backbone
    processor = processor_for_backbone(config, source, codebook_size=16, num_latent_tokens=4)
    assert processor.prompt_template == CASES[name][3]
    assert processor.num_image_tokens == (
        16 if name != "qwen2_5_vl" else 16 * 16
    )  # of an image processor for at most 128 pixels
    processor.save_pretrained(tmp_path)
    reloaded = CycleMimicProcessor.from_pretrained(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    for key, value in processor(image, "reach").items():
        assert torch.equal(value, reloaded(image, "reach")[key]), key
    # Data sets keep what `resize_images` gives: it must come to the same.
    for key, value in processor(processor.resize_images([image])[0], "reach").items():
        assert torch.allclose(value, processor(image, "reach")[key], atol=1e-5), key


def test_a_backbone_that_reads_more_of_an_image_is_refused(backbone, monkeypatch):
    name, config, source = backbone
    monkeypatch.setattr("cyclemimic.policies.IMAGE_INPUTS", ("image_grid_thw",))
    with pytest.raises(ValueError, match=f"got {config.model_type}, which reads .*'pixel_values'"):
        processor_for_backbone(config, source, codebook_size=16, num_latent_tokens=4)


def test_policy_of_it_acts(backbone, tmp_path):
    _, config, source = backbone
    processor = processor_for_backbone(config, source, codebook_size=16, num_latent_tokens=4)
    model = AutoModelForImageTextToText.from_config(config)
    policy = CycleMimicForActionPrediction.from_backbone(model, processor, action_decoder_hidden_size=64).eval()
    images = list(np.random.default_rng(0).integers(0, 256, (2, 48, 32, 3), dtype=np.uint8))
    chunk = policy.predict_action_chunk(**processor(images, ["reach", "open the drawer"]))
    assert chunk.shape == (2, 12, 7) and torch.isfinite(chunk).all()
    policy.save_pretrained(tmp_path)
    reloaded = CycleMimicForActionPrediction.from_pretrained(tmp_path).eval()
    assert torch.equal(reloaded.predict_action_chunk(**processor(images, ["reach", "open the drawer"])), chunk)


def test_made_of_a_checkpoint(backbone, tmp_path):
    name, config, source = backbone
    if name == "qwen2_5_vl":
        pytest.skip("its processor needs torchvision to be loaded, for video")
    AutoModelForImageTextToText.from_config(config).save_pretrained(tmp_path)
    source.save_pretrained(tmp_path)
    columns = {"source": ["a"], "episode_index": [0], "frame_index": [0], "future_index": [1], "codes": [[0, 1, 2, 3]]}
    labels = LatentLabels(columns, {"codebook_size": 16, "num_latent_tokens": 4})
    policy, processor = make_policy_of_backbone(str(tmp_path), labels)
    assert processor.prompt_template == CASES[name][3]
    assert processor.tokenizer.padding_side == "left"
    policy.save_pretrained(tmp_path / "saved")
    assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text(), "a path of this machine"
    blank = np.zeros((32, 32, 3), np.uint8)
    assert policy.eval().predict_latent_actions(**processor(blank, "reach")).shape == (1, 4)


@pytest.fixture
def in_bfloat16(tmp_path):
    """A policy saved in half precision."""
    processor = CycleMimicProcessor.from_texts(["reach"], image_size=32, patch_size=8)
    config = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=32)
    policy = CycleMimicForLatentActionPrediction(processor.make_config(config, action_decoder_hidden_size=32))
    policy.to(torch.bfloat16).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return str(tmp_path)


def test_what_is_to_be_trained_is_in_full_precision(in_bfloat16):
    sizes = {"chunk_size": 12, "action_dim": 7}
    models = [load_policy(in_bfloat16)[0], load_for_actions(in_bfloat16, sizes, {})[0]]
    models.append(load_for_actions(in_bfloat16, sizes | {"num_action_bins": 8}, {"action_decoding": "discrete"})[0])
    for model in models:
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    kept, _ = load_for_actions(in_bfloat16, sizes, {}, dtype="auto")
    assert {weight.dtype for weight in kept.parameters()} == {torch.bfloat16}


def test_an_image_in_pieces_is_refused(backbone):
    name, config, source = backbone
    config.image_token_id = source.tokenizer.pad_token_id
    with pytest.raises(ValueError, match=f"as one run of placeholder tokens, got {config.model_type}"):
        processor_for_backbone(config, source, codebook_size=16, num_latent_tokens=4)


def test_prompt_of_two_cameras_is_the_backbones_own(backbone):
    name, config, source = backbone
    processor = processor_for_backbone(config, source, 16, 4, camera_names=["front", "wrist"])
    blank = np.zeros((224, 224, 3), np.uint8)
    ids = processor([blank, blank], "open the drawer")["input_ids"][0].tolist()
    mark = {"qwen2_5_vl": "<start>{}<end>"}.get(name, "{}").format(source.image_token)
    text = f"{mark}{mark}{ASKED}".format(instruction="open the drawer")
    own = np.asarray(source(images=[[blank, blank]], text=[text])["input_ids"][0]).tolist()
    assert ids == own


def test_pretraining_further_forgets_the_robot_that_a_policy_was_fine_tuned_on(in_bfloat16, tmp_path):
    sizes = {"chunk_size": 4, "action_dim": 2}
    learned = {
        "n_action_steps": 4,
        "latent_action_loss_weight": 0.0,
        "action_loss_weight": 3.0,
        "action_decoding": "latent",
    }
    model, processor = load_for_actions(in_bfloat16, sizes, learned)
    processor.add_action_statistics("kitchen", {"q01": [-1.0, -1.0], "q99": [1.0, 1.0], "mask": [True, True]})
    for each in (model, processor):
        each.save_pretrained(tmp_path / "finetuned")
    model, processor = load_policy(str(tmp_path / "finetuned"))
    assert processor.action_statistics == {} and model.config.n_action_steps is None
    assert model.config.latent_action_loss_weight == model.config.action_loss_weight == 1
    assert model.config.action_decoding == "act"
    for each in (model, processor):
        each.save_pretrained(tmp_path / "further")
    # Another robot's actions are of another size, and fewer.
    model, processor = load_for_actions(str(tmp_path / "further"), {"chunk_size": 2, "action_dim": 3}, {})
    assert (model.config.action_dim, model.config.num_executed_steps) == (3, 1)


def test_statistics_of_a_robot_that_was_not_learnt_are_no_ones(in_bfloat16, tmp_path):
    processor = CycleMimicProcessor.from_pretrained(in_bfloat16, action_dim=2, chunk_size=4, state_dim=1)
    processor.add_action_statistics("kitchen", {"q01": [-1.0] * 2, "q99": [1.0] * 2})
    processor.add_state_statistics("kitchen", {"q01": [-1.0], "q99": [1.0]})
    processor.save_pretrained(in_bfloat16)
    _, processor = load_for_actions(in_bfloat16, {"chunk_size": 4, "action_dim": 3, "state_dim": 5}, {})
    assert processor.action_dim == 3 and processor.action_statistics == processor.state_statistics == {}


def test_the_name_of_the_one_camera_changes_nothing(tmp_path):
    sizes = {"chunk_size": 2, "action_dim": 3, "camera_names": None}
    processor = CycleMimicProcessor.from_texts(["reach"], image_size=32, patch_size=8, camera_names=["front"])
    config = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=32)
    policy = CycleMimicForLatentActionPrediction(processor.make_config(config, action_decoder_hidden_size=32))
    for folder in ("pretrained", "first", "again"):
        for each in (policy, processor):
            each.save_pretrained(tmp_path / folder)
        policy, processor = load_for_actions(str(tmp_path / folder), sizes, {})
        assert policy.config.camera_names == processor.camera_names == ["front"]
        processor.add_action_statistics("kitchen", {"q01": [-1.0] * 3, "q99": [1.0] * 3})


@pytest.mark.parametrize(("before", "after"), [(["front", "wrist"], None), (["front"], ["front"]), (None, None)])
def test_pretraining_further_with_one_camera(before, after, tmp_path):
    processor = CycleMimicProcessor.from_texts(["reach"], image_size=32, patch_size=8, camera_names=before)
    config = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=32)
    policy = CycleMimicForLatentActionPrediction(processor.make_config(config, action_decoder_hidden_size=32))
    for each in (policy, processor):
        each.save_pretrained(tmp_path)
    model, processor = load_policy(str(tmp_path))
    assert model.config.camera_names == processor.camera_names == after
    inputs = processor(np.zeros((32, 32, 3), np.uint8), "reach", latent_actions=[[0, 1, 2, 3]])
    assert model(**inputs).loss.isfinite()


def test_query_tokens_of_a_small_policy_start_as_new_words_do():
    torch.manual_seed(0)
    labels = SimpleNamespace(codebook_size=16, num_latent_tokens=4)
    model, processor = make_tiny_policy(["open the drawer"], labels, 32, 64, 1, num_act_tokens=4)
    assert processor.act_token_ids == model.act_token_ids.tolist() and len(processor.act_token_ids) == 4
    weight = model.get_input_embeddings().weight.detach()
    is_act = torch.zeros(len(weight), dtype=torch.bool).index_fill_(0, model.act_token_ids, True)
    spread, mean = torch.std_mean(weight[~is_act], dim=0)
    near = (weight[is_act] - mean) / spread
    assert near.std().item() == pytest.approx(0.1, rel=0.2) and near.mean().abs() < 0.03
    assert len(set(map(tuple, weight[is_act].tolist()))) == 4
