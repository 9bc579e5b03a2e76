# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, GPT2Tokenizer

from cyclemimic.models.cyclemimic import CycleMimicProcessor


def test_inference_batch(processor, images, texts):
    batch = processor(images, texts)
    assert sorted(batch) == ["attention_mask", "input_ids", "pixel_values"]
    assert batch["pixel_values"].shape == (3, 3, 32, 32) and batch["pixel_values"].dtype == torch.float32
    row, mask = batch["input_ids"][0], batch["attention_mask"][0].bool()
    assert row[:16].tolist() == [processor.image_token_id] * 16
    prompt = processor.tokenizer.decode(row[mask][16:])
    assert prompt == "In: What action should the robot take to open the drawer?\nOut:"


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_training_batch(processor, images, texts, codes, actions, padding_side):
    batch = processor(images, texts, codes, actions, padding_side=padding_side)
    lengths = batch["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) == 3
    for row in range(3):
        kept = batch["attention_mask"][row].bool()
        edge = 0 if padding_side == "left" else -1
        assert kept[edge] == (lengths[row] == lengths.max())
        ids, labels = batch["input_ids"][row][kept], batch["labels"][row]
        assert ids[-4:].tolist() == [processor.latent_token_ids[code] for code in codes[row]]
        assert labels[kept][-4:].tolist() == ids[-4:].tolist()
        assert (labels == -100).sum() == labels.numel() - 4
        alone = processor(images[row], texts[row])["input_ids"][0]
        assert ids[:-4].tolist() == alone.tolist()


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_padding_to_a_multiple_adds_padding_alone(processor, images, texts, codes, padding_side):
    batch = processor(images, texts, codes, padding_side=padding_side)
    padded = processor(images, texts, codes, padding_side=padding_side, pad_to_multiple_of=37)
    length = batch["input_ids"].shape[1]
    assert 0 < length % 37 and padded["input_ids"].shape[1] == length - length % 37 + 37
    kept = slice(-length, None) if padding_side == "left" else slice(length)
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(padded[name][:, kept], batch[name])
    assert padded["attention_mask"].sum() == batch["attention_mask"].sum()
    assert processor(images, texts, codes, pad_to_multiple_of=length)["input_ids"].shape[1] == length


def test_padding_as_transformers_names_it(processor, images, texts, codes):
    padded = processor(images, texts, codes, padding="max_length", max_length=60, padding_side="left")
    plain = processor(images, texts, codes, padding_side="left", padding=True)
    length = plain["input_ids"].shape[1]
    assert padded["input_ids"].shape[1] == 60 > length and not padded["attention_mask"][:, :-length].any()
    for name in ("input_ids", "attention_mask", "labels"):
        assert torch.equal(padded[name][:, -length:], plain[name]), name
        assert torch.equal(processor(images, texts, codes, text_kwargs={"padding_side": "left"})[name], plain[name])
    alike = processor(images, ["reach"] * 3, padding="do_not_pad")
    assert alike["attention_mask"].all()
    assert torch.equal(processor(images, ["reach"] * 3)["input_ids"], alike["input_ids"])


def test_arguments_of_the_image_processor(processor, images, texts):
    expected = processor(images, texts)["pixel_values"] / 2 + 0.5
    for arguments in ({"do_normalize": False}, {"images_kwargs": {"do_normalize": False}}):
        assert torch.allclose(processor(images, texts, **arguments)["pixel_values"], expected, atol=1e-6)


def test_tokens_are_added_once(processor):
    vocab = processor.tokenizer.get_vocab()
    assert processor.latent_token_ids == [vocab[f"<LACT_{k}>"] for k in range(16)]
    assert processor.act_token_ids == [vocab["<ACT_0>"], vocab["<ACT_1>"]]
    size = len(processor.tokenizer)
    again = CycleMimicProcessor(processor.image_processor, processor.tokenizer, num_act_tokens=2)
    assert len(again.tokenizer) == size and again.latent_token_ids == processor.latent_token_ids


def test_instruction_case_and_space_do_not_matter(processor, images):
    first, second = (processor(images[0], text)["input_ids"] for text in ("open the drawer", " Open the Drawer "))
    assert torch.equal(first, second)


def test_prompts_are_tokenised_once(processor, images, texts, monkeypatch):
    processor(images, texts)
    monkeypatch.setattr(type(processor.tokenizer), "__call__", lambda *args, **kwargs: pytest.fail("tokenised again"))
    processor(images, texts[::-1])


def test_another_template_is_another_prompt(processor, images, texts):
    before = processor(images[:1], texts[:1])["input_ids"]
    processor.prompt_template = "{image} {instruction}"
    assert not torch.equal(processor(images[:1], texts[:1])["input_ids"], before)


def test_image_forms_agree(processor, images):
    expected = processor(images, ["reach"] * 3)["pixel_values"]
    for form in (np.stack(images), torch.from_numpy(np.stack(images)), [Image.fromarray(image) for image in images]):
        torch.testing.assert_close(processor(form, ["reach"] * 3)["pixel_values"], expected, rtol=0, atol=1e-6)


def test_actions_by_hand(processor, images, codes):
    physical = np.tile(np.array([1.0, -1.0, 9.0, 0.7], np.float32), (3, 5, 1))
    batch = processor(images, ["reach"] * 3, codes, physical)
    # (1+2)/4*2-1; the lower bound; beyond the upper bound, clipped; left alone.
    assert batch["actions"][0, 0].tolist() == pytest.approx([0.5, -1.0, 1.0, 0.7])
    assert batch["actions"].dtype == torch.float32 and batch["actions_mask"].all()
    assert processor.post_process_actions(batch["actions"])[2, 4].tolist() == pytest.approx([1.0, -1.0, 4.0, 0.7])


def test_actions_round_trip(processor, images, codes, actions):
    mask = np.ones((3, 5), bool)
    mask[1, 3:] = False
    batch = processor(images, ["reach"] * 3, codes, actions, actions_mask=mask, dataset="arm")
    assert batch["actions_mask"].tolist() == mask.tolist()
    np.testing.assert_allclose(processor.post_process_actions(batch["actions"], "arm"), actions, atol=1e-6)
    assert processor.post_process_actions(batch["actions"].bfloat16()).dtype == np.float32


def test_what_is_not_to_be_learned_may_be_nan(processor, images, codes, actions):
    mask = np.ones((3, 5), dtype=bool)
    mask[1, 3:] = False
    expected = processor(images, ["reach"] * 3, codes, actions, mask)["actions"]
    actions[1, 3:] = np.nan
    batch = processor(images, ["reach"] * 3, codes, actions, mask)
    assert torch.isfinite(batch["actions"]).all()
    assert torch.equal(batch["actions"][torch.from_numpy(mask)], expected[torch.from_numpy(mask)])
    with pytest.raises(ValueError, match="`actions` must be finite, got 8 values that are not"):
        processor(images, ["reach"] * 3, codes, actions)


def test_lists_of_tensors(processor, images, codes, actions):
    expected = processor(images, ["reach"] * 3, codes, actions)
    for dtype, requires_grad in ((torch.bfloat16, False), (torch.float32, True)):
        rows = [torch.tensor(row, dtype=dtype, requires_grad=requires_grad) for row in actions]
        batch = processor(images, ["reach"] * 3, [torch.tensor(row) for row in codes], rows)
        torch.testing.assert_close(batch["actions"], expected["actions"], rtol=0, atol=0.02)
        assert torch.equal(batch["labels"], expected["labels"])


def test_an_image_processor_that_was_changed_is_heeded(processor, images, tmp_path):
    before = processor(images[0], "reach")["pixel_values"]
    for change in ("fields", "another"):
        if change == "another":
            processor.image_processor = type(processor.image_processor)(size={"height": 32, "width": 32})
        processor.image_processor.image_mean, processor.image_processor.image_std = [0.0] * 3, [0.5] * 3
        now = processor(images[0], "reach")["pixel_values"]
        torch.testing.assert_close(now, before + 1.0)
        processor.save_pretrained(tmp_path)
        assert torch.equal(CycleMimicProcessor.from_pretrained(tmp_path)(images[0], "reach")["pixel_values"], now)


def test_a_dimension_without_width_comes_back(processor, images, codes, actions):
    processor.add_action_statistics("still", {"q01": [0.5] * 4, "q99": [0.5] * 4})
    batch = processor(images, ["reach"] * 3, codes, actions, dataset="still")
    assert (batch["actions"] == 0).all()
    assert (processor.post_process_actions(batch["actions"], "still") == 0.5).all()


def test_data_set_by_name(processor, images, codes, actions):
    processor.add_action_statistics("base", {"q01": [-1] * 4, "q99": [1] * 4, "mean": [0] * 4})
    with pytest.raises(ValueError, match="`dataset` must be one of \\['arm', 'base'\\], got None"):
        processor(images, ["reach"] * 3, codes, actions)
    known = "`dataset` must be one of \\['arm', 'base'\\], got "
    with pytest.raises(ValueError, match=f"{known}'amr' \\(did you mean 'arm'\\?\\)\\.$"):
        processor.post_process_actions(actions, dataset="amr")
    with pytest.raises(ValueError, match=f"{known}'quadruped'\\.$"):
        processor.post_process_actions(actions, dataset=["arm", "quadruped", "base"])
    with pytest.raises(ValueError, match=f"{known}3"):
        processor.resolve_dataset(3)
    assert not np.allclose(
        processor.post_process_actions(actions, "arm"), processor.post_process_actions(actions, "base")
    )


def test_a_data_set_a_sample(processor, images, codes, actions):
    processor.add_action_statistics("base", {"q01": [-0.3] * 4, "q99": [0.7] * 4, "mask": [False, True, True, True]})
    names = ["arm", "base", "arm"]
    batch = processor(images, ["reach"] * 3, codes, actions, dataset=names)
    physical = processor.post_process_actions(batch["actions"], names)
    for row, name in enumerate(names):
        alone = processor(images[row], "reach", codes[[row]], actions[[row]], dataset=name)
        assert torch.equal(batch["actions"][[row]], alone["actions"])
        np.testing.assert_array_equal(physical[[row]], processor.post_process_actions(alone["actions"], name))
    # One action a sample, without chunks.
    np.testing.assert_array_equal(processor.post_process_actions(batch["actions"][:, 2], names), physical[:, 2])
    for given in (["arm"], names * 2, []):
        with pytest.raises(ValueError, match=f"one name, or one a sample of \\(3, 5, 4\\), got {len(given)} names"):
            processor.post_process_actions(batch["actions"], given)
    with pytest.raises(ValueError, match="one name, or one a sample of \\(4,\\), got 4 names"):
        processor.post_process_actions(np.zeros(4), ["arm"] * 4)


@pytest.mark.parametrize("name", ["", None])
def test_statistics_have_a_name(processor, name):
    with pytest.raises(ValueError, match="`dataset` must be the name that `action_statistics` go by, got "):
        processor.add_action_statistics(name, processor.action_statistics["arm"])


def test_other_statistics_of_a_name_replace_it_and_are_logged(processor, caplog):
    known = processor.action_statistics["arm"]
    processor.add_action_statistics("arm", known)
    processor.add_action_statistics("base", {"q01": [-1] * 4, "q99": [1] * 4})
    assert not caplog.records
    processor.add_action_statistics("arm", known | {"q99": [5] * 4})
    assert caplog.messages == ["the action statistics of arm are replaced by others"]
    assert processor.action_statistics["arm"]["q99"] == [5] * 4
    processor.add_action_statistics("base", {"q01": [-1] * 4, "q99": [1] * 4, "mask": [True, True, True, False]})
    assert caplog.messages[1:] == ["the action statistics of base are replaced by others"]


@pytest.mark.parametrize("loader", [CycleMimicProcessor, AutoProcessor])
def test_save_and_load(processor, images, texts, codes, actions, tmp_path, loader):
    bounds = np.sort(np.random.default_rng(2).normal(size=(2, 4)), axis=0)
    processor.add_action_statistics("base", {"q01": bounds[0], "q99": bounds[1], "mask": np.ones(4, bool)})
    processor.save_pretrained(tmp_path)
    reloaded = loader.from_pretrained(tmp_path)
    assert type(reloaded) is CycleMimicProcessor
    assert reloaded.action_statistics == processor.action_statistics
    assert reloaded.to_dict() == processor.to_dict()
    names = ["base", "arm", "base"]
    expected = processor(images, texts, codes, actions, dataset=names)
    for key, value in reloaded(images, texts, codes, actions, dataset=names).items():
        assert torch.equal(value, expected[key]), key
    physical = processor.post_process_actions(expected["actions"], names)
    np.testing.assert_array_equal(reloaded.post_process_actions(expected["actions"], names), physical)


BAD_CALLS = {
    "code too large": (
        {"latent_actions": [[0, 1, 2, 16]] * 3},
        "`latent_actions` must be in \\[0, 16\\), got 0 to 16",
    ),
    "code negative": ({"latent_actions": [[0, 1, 2, -1]] * 3}, "`latent_actions` must be in"),
    "codes too few": ({"latent_actions": [[0, 1, 2]] * 3}, "shape \\(3, 4\\), got \\(3, 3\\)"),
    "codes not integers": ({"latent_actions": np.zeros((3, 4))}, "`latent_actions` must be integers, got .*float64"),
    "codes ragged": ({"latent_actions": [[0], [1, 2]]}, "`latent_actions` must have rows of one shape"),
    "actions too wide": (
        {"actions": np.zeros((3, 5, 7))},
        "`actions` must have shape \\(3, 5, 4\\), got \\(3, 5, 7\\)",
    ),
    "chunk too long": ({"actions": np.zeros((3, 6, 4))}, "`actions` must have shape"),
    "actions not finite": ({"actions": np.full((3, 5, 4), np.nan)}, "`actions` must be finite, got 60 values"),
    "actions no numbers": ({"actions": [["left"]]}, "`actions` must be numbers"),
    "actions alone": ({"latent_actions": None}, "`latent_actions` must come with `actions`"),
    "mask of integers": ({"actions_mask": np.ones((3, 5))}, "`actions_mask` must be bool of shape \\(3, 5\\)"),
    "float image": ({"images": np.full((3, 32, 32, 3), 255.0)}, "got float64 from 255 to 255"),
    "image path": ({"images": ["frame.png"] * 3}, "`images` must hold RGB images.* got str"),
    "nothing": ({"images": None}, "`images` must hold RGB images.* got None"),
    "no image": ({"images": [], "text": []}, "`images` must hold at least one image, got none"),
    "texts too few": ({"text": "reach"}, "`text` must hold one instruction an image \\(3\\), got 1"),
    "text empty": ({"text": ["reach", " ", "reach"]}, "`text` must be an instruction that is not empty, got ' '"),
    "text no string": ({"text": ["reach", None, "reach"]}, "`text` must be an instruction.* got None"),
    "text with an image": ({"text": ["reach <image>"] * 3}, "`text` must not hold the image token '<image>'"),
    "numpy wanted": ({"return_tensors": "np"}, "`return_tensors` must be 'pt', got 'np'"),
    "multiple": ({"pad_to_multiple_of": 0}, "`pad_to_multiple_of` must be at least 1, got 0"),
    "padding": ({"padding": "shortest"}, "`padding` must be True, False, 'longest' or 'max_length', got 'shortest'"),
    "no padding": ({"padding": False}, "`padding` must be True for samples of unequal lengths, .* got False"),
    "no room": ({"padding": "max_length", "max_length": 9}, "`max_length` must be at least [0-9]+, .* got 9"),
    "no length": ({"padding": "max_length"}, "`max_length` must be at least [0-9]+, .* got None"),
    "twice": ({"padding": True, "text_kwargs": {"padding": False}}, "padding was passed two times"),
    "unknown": ({"latent_action": [0]}, "further arguments must be of padding .* got \\['latent_action'\\]"),
    "unknown of text": ({"text_kwargs": {"truncation": True}}, "got \\['truncation'\\]"),
    "numpy wanted of text": ({"text_kwargs": {"return_tensors": "np"}}, "`return_tensors` must be 'pt', got 'np'"),
    "padding side": ({"padding_side": "top"}, "`padding_side` must be 'left' or 'right', got 'top'"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_calls(processor, images, texts, codes, actions, name):
    changes, message = BAD_CALLS[name]
    arguments = {"images": images, "text": texts, "latent_actions": codes, "actions": actions, **changes}
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_image_tokens": 0}, "`num_image_tokens` must be an integer of at least 1, got 0"),
        ({"image_token": "<picture>"}, "must have the image token '<picture>'"),
        ({"prompt_template": "{image}do it"}, "`prompt_template` must hold {instruction} once"),
        (
            {"action_statistics": {"arm": {"q01": [0] * 7}}},
            "action_statistics\\['arm'\\]` must hold 7 .* 'q99', got None",
        ),
        ({"action_statistics": {"arm": None}}, "action_statistics\\['arm'\\]` must be a mapping, got NoneType"),
        (
            {"action_statistics": {"arm": {"q01": ["a"] * 7, "q99": [0] * 7}}},
            "must hold 7 finite values as 'q01', got",
        ),
        ({"action_statistics": {"arm": {"q01": [0] * 6, "q99": [0] * 6}}}, "must hold 7 finite values as 'q01'"),
        ({"action_statistics": {"arm": {"q01": [1] * 7, "q99": [0] * 7}}}, "must have q01 <= q99"),
    ],
)
def test_bad_arguments(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        CycleMimicProcessor(processor.image_processor, processor.tokenizer, **arguments)


def test_missing_statistics_and_padding_token(processor, images, texts, codes, actions):
    bare = CycleMimicProcessor(processor.image_processor, processor.tokenizer, chunk_size=5, action_dim=4)
    with pytest.raises(
        ValueError,
        match="`action_statistics` must hold the statistics of a data set, which fine-tuning adds, got none",
    ):
        bare(images, texts, codes, actions)
    with pytest.raises(ValueError, match="`action_statistics` must hold"):
        bare.post_process_actions(actions)
    tokenizer = GPT2Tokenizer(vocab={"<image>": 0}, merges=[])
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(ValueError, match="padding or an end-of-sequence token"):
        CycleMimicProcessor(processor.image_processor, tokenizer)


@pytest.mark.parametrize(
    ("actions", "message"),
    [(np.zeros((1, 5, 7)), "`actions` must have shape"), (np.full((1, 5, 4), np.inf), "`actions` must be finite")],
)
def test_post_process_checks_its_input(processor, actions, message):
    with pytest.raises(ValueError, match=message):
        processor.post_process_actions(actions)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"texts": []}, "`texts` must be a list"),
        ({"texts": "reach"}, "`texts` must be a list"),
        ({"texts": ["reach"], "image_size": 100}, "`image_size` must be a multiple of `patch_size` \\(16\\), got 100"),
    ],
)
def test_from_texts_checks_its_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        CycleMimicProcessor.from_texts(**arguments)


def test_from_texts_spells_unknown_words(processor, images):
    ids = processor(images[0], "fürchte den Roboter")["input_ids"][0]
    assert "fürchte den roboter?" in processor.tokenizer.decode(ids)


def test_a_prompt_is_that_of_todays_settings(processor, images, texts):
    before = processor(images, texts)["input_ids"]
    processor.num_image_tokens += 3
    after = processor(images, texts)["input_ids"]
    placeholders = [(ids == processor.image_token_id).sum(dim=1).tolist() for ids in (before, after)]
    assert placeholders[1] == [count + 3 for count in placeholders[0]]


def test_texts_may_stand_in_an_array(processor, images, texts):
    expected = processor(images, texts)["input_ids"]
    assert torch.equal(processor(images, np.array(texts, dtype=object))["input_ids"], expected)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
def test_codes_of_any_kind_of_integer(processor, images, texts, codes, dtype):
    expected = processor(images, texts, codes)["labels"]
    assert torch.equal(processor(images, texts, codes.astype(dtype))["labels"], expected)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "one instruction an image"), ([["a"], ["b"], ["c"]], "an instruction")]
)
def test_what_is_no_instruction_is_refused(processor, images, text, message):
    with pytest.raises(ValueError, match=f"`text` must .*{message}"):
        processor(images, text)
