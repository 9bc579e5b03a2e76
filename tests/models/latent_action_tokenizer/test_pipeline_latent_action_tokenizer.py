# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from transformers import BertConfig, BertModel, pipeline

from cyclemimic import LatentActionTokenizerForPreTraining, LatentActionTokenizerImageProcessor


@pytest.fixture
def folder(make_config, tmp_path):
    model = LatentActionTokenizerForPreTraining(make_config())
    # Words far apart: frames of another content come to other codes.
    model.tokenizer.quantizer.codebook.data.normal_()
    model.save_pretrained(tmp_path / "tokenizer")
    LatentActionTokenizerImageProcessor(size=16).save_pretrained(tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


@pytest.fixture
def frames():
    return list(np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), dtype=np.uint8))


def test_codes_are_those_of_the_model_in_the_order_of_the_pairs(folder, frames):
    read = pipeline("latent-actions", model=str(folder))
    answers = read(list(zip(frames[::2], frames[1::2])), batch_size=2)
    expected = read.model.encode(**read.image_processor(frames[::2], frames[1::2])).codes
    assert [answer["codes"] for answer in answers] == expected.tolist()
    assert read((frames[0], frames[1])) == answers[0]


def test_frames_by_their_paths(folder, frames, tmp_path):
    read = pipeline("latent-actions", model=str(folder))
    paths = [str(tmp_path / f"{index}.png") for index in range(2)]
    for path, frame in zip(paths, frames):
        Image.fromarray(frame).save(path)
    assert read(tuple(paths)) == read(tuple(frames[:2]))


@pytest.mark.parametrize(("pair", "got"), [(np.zeros((4, 4, 3), np.uint8), "ndarray"), (("a", "b", "c"), "of 3")])
def test_what_is_no_pair(folder, pair, got):
    with pytest.raises(ValueError, match=f"must be a tuple of two frames, current and future, got .*{got}"):
        pipeline("latent-actions", model=str(folder))(pair)


def test_a_model_of_another_kind(folder):
    bert = BertModel(BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    image_processor = LatentActionTokenizerImageProcessor.from_pretrained(folder)
    with pytest.raises(ValueError, match="`model` must be a latent action tokenizer, got BertModel"):
        pipeline("latent-actions", model=bert, image_processor=image_processor)


def test_a_parameter(folder, frames):
    with pytest.raises(ValueError, match=r"takes no parameters, got \['top_k'\]"):
        pipeline("latent-actions", model=str(folder))(tuple(frames[:2]), top_k=3)


@pytest.mark.parametrize(
    "imports",
    [
        "import cyclemimic; from transformers import pipeline",
        "from transformers import pipeline; import cyclemimic",
        "from transformers import pipeline; import cyclemimic.models.latent_action_tokenizer."
        "pipeline_latent_action_tokenizer",
    ],
)
def test_task_is_known_whatever_is_imported_first(run_python, imports):
    program = f"{imports}\nfrom transformers.pipelines import PIPELINE_REGISTRY as r\nprint('latent-actions' in r.supported_tasks)"
    process = run_python(program)
    assert process.stdout.split() == ["True"]
    assert "already registered" not in process.stderr


def test_nobody_is_asked_to_trust_code(folder, frames, monkeypatch):
    def ask(*_):
        raise AssertionError("asked")

    monkeypatch.setattr("builtins.input", ask)
    assert pipeline("latent-actions", model=str(folder))((frames[0], frames[1]))["codes"]
