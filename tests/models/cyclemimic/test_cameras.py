# SPDX-License-Identifier: Apache-2.0
"""Several cameras as inputs of the policy, on every family of backbones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cyclemimic.models.cyclemimic import (
    CycleMimicConfig,
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
    make_tiny_backbone_config,
)
from cyclemimic.models.cyclemimic.processing_cyclemimic import DEFAULT_PROMPT_TEMPLATE

from .backbone_families import FAMILIES

CAMERAS = ["front", "wrist"]
MARKED_TEMPLATE = DEFAULT_PROMPT_TEMPLATE.replace("{image}", "Look:<start>{image}<end>\n")
STATISTICS = {"arm": {"q01": [-1.0] * 4, "q99": [1.0] * 4}}


@pytest.fixture
def views() -> list[list[np.ndarray]]:
    """Images of two cameras, a pair a sample."""
    return [list(pair) for pair in np.random.default_rng(3).integers(0, 256, (3, 2, 32, 32, 3), dtype=np.uint8)]


def make_processor(processor, **changes) -> CycleMimicProcessor:
    processor.tokenizer.add_tokens(["<start>", "<end>"], special_tokens=True)
    settings = {
        "num_image_tokens": 16,
        "num_act_tokens": 2,
        "chunk_size": 5,
        "action_dim": 4,
        "action_statistics": STATISTICS,
        "prompt_template": MARKED_TEMPLATE,
        "camera_names": CAMERAS,
    }
    return CycleMimicProcessor(processor.image_processor, processor.tokenizer, **{**settings, **changes})


def make_config(processor, **changes) -> CycleMimicConfig:
    torch.manual_seed(0)
    backbone = make_tiny_backbone_config(processor, image_size=32, patch_size=8, hidden_size=32, num_text_layers=2)
    decoder = {"action_decoder_hidden_size": 32, "action_decoder_num_heads": 2}
    return processor.make_config(backbone, **decoder, **changes)


def make_family(family, tokenizer) -> tuple[CycleMimicProcessor, CycleMimicConfig]:
    tokenizer.add_tokens(["<start>", "<end>", *[f"<LACT_{k}>" for k in range(16)], "<ACT_0>", "<ACT_1>"])
    vocabulary = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    image = tokenizer.convert_tokens_to_ids("<image>")
    backbone, image_processor, _ = FAMILIES[family]({"vocab_size": len(tokenizer), **vocabulary}, image)
    processor = make_processor(CycleMimicProcessor(image_processor, tokenizer))
    torch.manual_seed(0)
    return processor, processor.make_config(backbone, action_decoder_hidden_size=32, action_decoder_num_heads=2)


@pytest.fixture(params=["tiny", *FAMILIES])
def parts(request, processor) -> tuple[CycleMimicProcessor, CycleMimicForActionPrediction]:
    if request.param == "tiny":
        processor = make_processor(processor)
        config = make_config(processor)
    else:
        processor, config = make_family(request.param, processor.tokenizer)
    model = CycleMimicForActionPrediction(config).eval()
    with torch.no_grad():
        # As large as training makes them: at their first size, attention hardly tells one thing from another.
        for weight in model.backbone.parameters():
            if not weight.any():
                weight.normal_(std=0.2)
            elif weight.ndim > 1:
                weight.mul_(2)
    return processor, model


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_training_and_prediction_agree(parts, views, texts, padding_side):
    processor, model = parts
    prompt = processor(views, texts, padding_side=padding_side)
    assert prompt["pixel_values"].shape[:2] == (3, 2) and 0 in prompt["attention_mask"]
    codes = model.predict_latent_actions(**prompt)
    predicted = model.predict_action_chunk(**prompt)
    for side in ("left", "right"):
        output = model(**processor(views, texts, codes, padding_side=side))
        assert torch.allclose(output.actions, predicted, atol=1e-4)
    alone = processor(views[1], texts[1])
    assert torch.allclose(model.predict_action_chunk(**alone), predicted[1:2], atol=1e-4)
    assert torch.allclose(model.select_action(**prompt), predicted[:, 0], atol=1e-4)


def test_each_camera_is_read_in_its_place(parts, views, texts, codes):
    """The action decoder reads, sample by sample, the states of the first camera and then those of the second."""
    processor, model = parts
    calls = []
    model.action_decoder.register_forward_pre_hook(lambda _, args: calls.append(args[0]))
    model(**processor(views, texts, codes))
    assert calls[0].shape == (3, 32, 32)
    # Of the last sample, only what the first camera sees: its states change, and the other samples' do not.
    changed = [*views[:2], [255 - views[2][0], views[2][1]]]
    model(**processor(changed, texts, codes))
    differs = (calls[0] - calls[1]).abs().amax(dim=-1) > 1e-4
    assert not differs[:2].any() and differs[2, :16].all()
    model(**processor([views[0], views[1], views[2][::-1]], texts, codes))
    assert ((calls[0] - calls[2]).abs().amax(dim=-1) > 1e-4)[2].any()


def test_prompt_and_pixels(processor, images, views, texts):
    two, one = make_processor(processor), make_processor(processor, camera_names=None)
    batch, single = two(views, texts, padding_side="right"), one(images, texts, padding_side="right")
    text = two.tokenizer.decode(batch["input_ids"][0]).replace("<image>" * 16, "{image}")
    assert text.startswith("Look:<start>{image}<end>\n<start>{image}<end>\nIn: What action")
    assert batch["input_ids"].shape[1] == single["input_ids"].shape[1] + 16 + 3
    assert batch["pixel_values"].shape == (3, 2, 3, 32, 32)
    for camera in range(2):
        alone = one([pair[camera] for pair in views], texts)["pixel_values"]
        assert torch.equal(batch["pixel_values"][:, camera], alone)


def test_an_image_without_marks_stands_alone(processor, views, texts):
    plain = make_processor(processor, prompt_template=" {image} In: {instruction} ")
    text = plain.tokenizer.decode(plain(views, texts)["input_ids"][-1]).replace("<image>" * 16, "{image}")
    assert text.replace("<pad>", "") == " {image}{image} In: reach "


def test_forms_of_images_agree(processor, views, texts):
    processor = make_processor(processor)
    expected = processor(views, texts)["pixel_values"]
    for form in (
        np.stack([np.stack(pair) for pair in views]),
        torch.from_numpy(np.stack(views)),
        [tuple(Image.fromarray(image) for image in pair) for pair in views],
    ):
        assert torch.allclose(processor(form, texts)["pixel_values"], expected, atol=1e-5)
    for one in (views[0], np.stack(views[0]), [views[0]]):
        assert torch.equal(processor(one, "reach")["pixel_values"], expected[:1])
    # Cameras of different sizes.
    wide = np.zeros((48, 64, 3), np.uint8)
    assert processor([[pair[0], wide] for pair in views], texts)["pixel_values"].shape == (3, 2, 3, 32, 32)


def test_images_by_the_names_of_their_cameras(processor, views, texts):
    processor = make_processor(processor)
    expected = processor(views, texts)["pixel_values"]
    named = [{"wrist": wrist, "front": front} for front, wrist in views]
    assert torch.equal(processor(named, texts)["pixel_values"], expected)
    assert torch.equal(processor(named[0], "reach")["pixel_values"], expected[:1])
    assert torch.equal(processor([named[0], *views[1:]], texts)["pixel_values"], expected)
    message = r"`images` must be of the cameras \['front', 'wrist'\], got \['top', 'front'\]"
    with pytest.raises(ValueError, match=message):
        processor({"top": views[0][0], "front": views[0][1]}, "reach")
    with pytest.raises(ValueError, match=r"`images` must be of the cameras .*, got \['front'\]"):
        processor([named[0], {"front": views[1][0]}, named[2]], texts)


def test_one_name_is_one_camera(processor, images, texts, codes):
    named, unnamed = (make_processor(processor, camera_names=names) for names in (["front"], None))
    batches = [each(images, texts, codes) for each in (named, unnamed)]
    assert all(torch.equal(value, batches[1][name]) for name, value in batches[0].items())
    models = [CycleMimicForActionPrediction(make_config(each)).eval() for each in (named, unnamed)]
    assert models[0].config.camera_names == ["front"]
    assert torch.equal(models[0](**batches[0]).actions, models[1](**batches[1]).actions)


def test_the_second_camera_teaches_actions(processor, views, codes):
    """Only the second camera tells the samples apart."""
    processor = make_processor(processor)
    seen = [[views[0][0], pair[1]] for pair in views]
    actions = np.stack([np.full((5, 4), value) for value in (-0.8, 0.0, 0.8)])
    batch = processor(seen, ["reach"] * 3, codes[[0, 0, 0]], actions)
    model = CycleMimicForActionPrediction(make_config(processor))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(**batch).action_loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_places_of_cameras_start_apart(processor):
    config = make_config(make_processor(processor))
    positions = CycleMimicForActionPrediction(config).action_decoder.context_positions
    first, second = positions[:32].unflatten(0, (2, 16))
    offset = second - first
    assert torch.allclose(offset, offset[:1].expand(16, -1), atol=1e-6) and offset.abs().mean() > 0.3
    config.camera_names = None
    torch.manual_seed(1)
    assert torch.equal(CycleMimicForActionPrediction(config).action_decoder.context_positions[:16], first)


def test_saves_loads_and_goes_on_from_one_camera(processor, views, images, texts, codes, tmp_path):
    one = make_processor(processor, camera_names=None)
    pretrained = CycleMimicForLatentActionPrediction(make_config(one)).eval()
    logits = pretrained(**one(images, texts, codes)).logits
    pretrained.save_pretrained(tmp_path / "one")
    one.save_pretrained(tmp_path / "one")
    assert torch.equal(
        CycleMimicForLatentActionPrediction.from_pretrained(tmp_path / "one")(**one(images, texts, codes)).logits,
        logits,
    )
    two = CycleMimicProcessor.from_pretrained(tmp_path / "one", camera_names=CAMERAS)
    model, info = CycleMimicForActionPrediction.from_pretrained(
        tmp_path / "one", camera_names=CAMERAS, output_loading_info=True
    )
    assert all(name.startswith("action_decoder.") for name in info["missing_keys"])
    chunk = model.eval().predict_action_chunk(**two(views, texts))
    model.save_pretrained(tmp_path / "two")
    two.save_pretrained(tmp_path / "two")
    again = CycleMimicForActionPrediction.from_pretrained(tmp_path / "two").eval()
    processor = CycleMimicProcessor.from_pretrained(tmp_path / "two")
    assert processor.camera_names == again.config.camera_names == CAMERAS
    assert torch.equal(again.predict_action_chunk(**processor(views, texts)), chunk)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda views: [pair[:1] for pair in views], r"`images` must hold 2 a sample, of the cameras .*, got 1\."),
        (lambda views: views[0][0], r"`images` must hold 2 a sample, of the cameras \['front', 'wrist'\], got 1\."),
        (lambda views: [view for pair in views for view in pair], r"`images` must hold 2 a sample, .* got 1\."),
        (lambda views: [*views[:2], [*views[2], views[0][0]]], r"`images` must hold 2 a sample, .* got 3\."),
        (lambda views: ["a.png"] * 3, r"`images` must hold 2 a sample, .* got str\."),
        (lambda views: [["a.png"] * 2] * 3, "`images` must hold RGB images.* got str"),
        (lambda views: [], "`images` must hold at least one image, got none"),
        (lambda views: views[:2], r"`text` must hold one instruction an image \(2\), got 3"),
    ],
)
def test_bad_images(processor, views, texts, change, message):
    with pytest.raises(ValueError, match=message):
        make_processor(processor)(change(views), texts)


@pytest.mark.parametrize("names", [[], ["front", "front"], ["front", ""]])
def test_bad_names(processor, names):
    with pytest.raises(ValueError, match="`camera_names` must be distinct names, at least one, or left out, got"):
        make_processor(processor, camera_names=names)
    with pytest.raises(ValueError, match="`camera_names` must be distinct names, at least one, or left out, got"):
        CycleMimicConfig(camera_names=names)


def test_images_of_fewer_cameras_than_the_policys(processor, views, images, texts):
    two, one = make_processor(processor), make_processor(processor, camera_names=None)
    model = CycleMimicForActionPrediction(make_config(two))
    message = r"`pixel_values` must have shape \(batch, 2, ...\), an image of each camera of .*, got \(3, 3, 32, 32\)"
    with pytest.raises(ValueError, match=message):
        model.predict_action_chunk(**one(images, texts))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_images_that_nothing_keeps_apart(processor, views, texts, family):
    processor, config = make_family(family, processor.tokenizer)
    side_by_side = make_processor(processor, prompt_template=DEFAULT_PROMPT_TEMPLATE)
    with pytest.raises(ValueError, match="`prompt_template` must have a mark .* got 3 runs of image tokens for 6"):
        CycleMimicForActionPrediction(config).predict_action_chunk(**side_by_side(views, texts))
