# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cyclemimic.trainers.sample_grid import GAP, draw_sample_grid, read_pairs, write_picture

from .small_trainers import make_tokenizer_trainer


def tiles(grid: np.ndarray, size: int) -> np.ndarray:
    """`(rows, columns, size, size, 3)`."""
    height, width = (length // (size + GAP) for length in grid.shape[:2])
    return grid.reshape(height, size + GAP, width, size + GAP, 3).swapaxes(1, 2)[:, :, :size, :size]


def test_rows_of_the_grid(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path)
    tokenizer, image_processor = trainer.model.tokenizer, trainer.processing_class
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    pairs = image_processor(list(frames[0]), list(frames[1]))
    tokenizer.train()
    drawn = tiles(draw_sample_grid(tokenizer, image_processor, **pairs), 16)
    assert tokenizer.training and drawn.shape == (5, 3, 16, 16, 3)
    assert np.array_equal(drawn[:2], frames) and np.array_equal(drawn[3], frames[0][[1, 2, 0]])
    tokenizer.eval()
    codes = tokenizer.encode(**pairs).codes
    for row, current in ((2, pairs["pixel_values"]), (4, pairs["pixel_values"][[1, 2, 0]])):
        expected = image_processor.post_process(tokenizer.decode(current, codes=codes).pixel_values)
        assert np.abs(drawn[row].astype(int) - expected).max() <= 1


def test_the_pairs_of_a_picture_are_read_back(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8)
    pairs = trainer.processing_class(list(frames[0]), list(frames[1]))
    write_picture(
        draw_sample_grid(trainer.model.tokenizer, trainer.processing_class, **pairs), tmp_path / "picture.png"
    )
    read = read_pairs(tmp_path / "picture.png", trainer.processing_class)
    assert read.keys() == pairs.keys()
    for name, values in pairs.items():
        assert torch.equal(read[name], values)


def test_another_picture_is_no_pairs(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path)
    path = tmp_path / "picture.png"
    for picture in (Image.new("RGB", (36, 80)), Image.new("RGBA", (36, 90)), Image.new("RGB", (35, 90))):
        picture.save(path)
        assert read_pairs(path, trainer.processing_class) is None
    path.write_bytes(b"no picture")
    assert read_pairs(path, trainer.processing_class) is None


@pytest.mark.parametrize("changes", [{"sample_steps": 0}, {"sample_steps": 3}])
def test_a_training_resumes_beside_pictures_that_are_not_its_own(changes, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 2}
    make_tokenizer_trainer(tmp_path, sample_steps=2, **settings).train()
    for path in (tmp_path / "samples").iterdir():
        path.write_bytes(b"no picture")
    trainer = make_tokenizer_trainer(tmp_path, **settings, **changes)
    assert trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2")).global_step == 4


def test_a_resumed_training_draws_the_pairs_that_it_drew_before(tmp_path):
    settings = {"sample_steps": 2, "save_strategy": "steps", "save_steps": 2}
    make_tokenizer_trainer(tmp_path, **settings).train()
    whole = {path.name: np.asarray(Image.open(path)) for path in sorted((tmp_path / "samples").iterdir())}
    (tmp_path / "samples" / "step-000004.png").unlink()
    make_tokenizer_trainer(tmp_path, **settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    resumed = {path.name: np.asarray(Image.open(path)) for path in sorted((tmp_path / "samples").iterdir())}
    assert resumed.keys() == whole.keys() == {"step-000002.png", "step-000004.png"}
    # A frame that was augmented is not one of eight bits, so what is drawn of it may differ a little.
    assert all(np.abs(resumed[name].astype(int) - picture).max() <= 2 for name, picture in whole.items())


def test_an_evaluation_is_not_what_is_drawn(tmp_path):
    trainer = make_tokenizer_trainer(tmp_path, sample_steps=2)
    trainer.evaluate(trainer.train_dataset)
    assert trainer._samples is None
    trainer.train()
    assert trainer._samples is not None


def test_a_training_draws_the_same_pairs_again_and_is_not_changed(tmp_path):
    states = []
    for sample_steps in (0, 2):
        output_dir = tmp_path / str(sample_steps)
        trainer = make_tokenizer_trainer(output_dir, sample_steps=sample_steps, save_strategy="no")
        trainer.train()
        states.append(trainer.model.state_dict())
    assert not (tmp_path / "0" / "samples").exists()
    pictures = sorted((tmp_path / "2" / "samples").iterdir())
    assert [path.name for path in pictures] == ["step-000002.png", "step-000004.png"]
    first, last = (tiles(np.asarray(Image.open(path)), 16) for path in pictures)
    assert np.array_equal(first[:2], last[:2]) and not np.array_equal(first[2], last[2])
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
