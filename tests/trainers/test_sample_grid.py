# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from cyclemimic.trainers.sample_grid import GAP, draw_sample_grid

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
