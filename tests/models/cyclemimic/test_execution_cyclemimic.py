# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest
import torch

from cyclemimic import CycleMimicForActionPrediction
from cyclemimic.models.cyclemimic.execution_cyclemimic import ActionChunkQueue


def chunk(*values: float, batch_size: int = 2) -> torch.Tensor:
    return torch.tensor(values).view(1, -1, 1).expand(batch_size, -1, 3)


def test_a_part_of_each_chunk_is_executed():
    queue = ActionChunkQueue(n_action_steps=2)
    executed = []
    for step in range(5):
        if queue.needs_chunk:
            queue.push(chunk(10.0 * step, 10.0 * step + 1, 10.0 * step + 2))
        executed.append(queue.pop(2)[0, 0].item())
    assert executed == [0, 1, 20, 21, 40]


def test_ensembling_by_hand():
    queue = ActionChunkQueue(n_action_steps=1, temporal_ensemble_coeff=math.log(2))
    executed = []
    for values in ((1.0, 2.0), (4.0, 8.0), (16.0, 32.0)):
        assert queue.needs_chunk
        queue.push(chunk(*values))
        executed.append(queue.pop(2)[1, 2].item())
    # Weights 1 and 1/2, the older chunk first; the first chunk is used up after two steps.
    assert executed == pytest.approx([1.0, (2.0 + 4.0 / 2) / 1.5, (8.0 + 16.0 / 2) / 1.5])


def test_ensembling_without_decay_is_the_mean():
    queue = ActionChunkQueue(n_action_steps=1, temporal_ensemble_coeff=0.0)
    for value in (0.0, 3.0, 6.0):
        queue.push(chunk(*[value] * 4))
        last = queue.pop(2)
    torch.testing.assert_close(last, torch.full((2, 3), 3.0))


def test_another_batch_size_needs_a_reset():
    queue = ActionChunkQueue(n_action_steps=1, temporal_ensemble_coeff=0.1)
    queue.push(chunk(1.0, 2.0))
    queue.pop(2)
    with pytest.raises(ValueError, match="`reset` must come before another batch size.* 2 robots .* got one of 4"):
        queue.push(chunk(1.0, 2.0, batch_size=4))
    with pytest.raises(ValueError, match="`reset` must come before another batch size.* 2 robots .* got one of 3"):
        queue.pop(3)


@pytest.fixture
def model(config) -> CycleMimicForActionPrediction:
    config.n_action_steps = 2
    torch.manual_seed(0)
    return CycleMimicForActionPrediction(config).eval()


def test_the_policy_looks_only_where_a_chunk_is_due(model, processor, images, texts):
    first, second = processor(images, texts), processor(images[::-1], texts)
    chunks = [model.predict_action_chunk(**inputs) for inputs in (first, second)]
    executed = [model.select_action(**inputs) for inputs in (first, second, second)]
    expected = [chunks[0][:, 0], chunks[0][:, 1], chunks[1][:, 0]]
    assert all(torch.equal(action, value) for action, value in zip(executed, expected, strict=True))
    model.reset()
    assert torch.equal(model.select_action(**first), chunks[0][:, 0])
    model.reset()
    assert model.select_action(**processor(images[:1], texts[:1])).shape == (1, 4)


def test_settings_are_saved_and_what_is_under_way_is_not(model, processor, images, texts, tmp_path):
    inputs = processor(images, texts)
    action = model.select_action(**inputs)
    model.save_pretrained(tmp_path)
    reloaded = CycleMimicForActionPrediction.from_pretrained(tmp_path).eval()
    assert reloaded.config.n_action_steps == 2
    assert torch.equal(reloaded.select_action(**inputs), action)


@pytest.mark.parametrize(
    ("fields", "number"),
    [({}, 2), ({"chunk_size": 1}, 1), ({"n_action_steps": 4}, 4), ({"temporal_ensemble_coeff": 0.0}, 1)],
)
def test_how_many_actions_until_the_policy_looks_again(config, fields, number):
    assert type(config)(**{**config.to_dict(), **fields}).num_executed_steps == number


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_action_steps": 6}, r"`n_action_steps` must be in \[1, 5\], the actions of a chunk, got 6"),
        ({"n_action_steps": 0}, r"`n_action_steps` must be in \[1, 5\]"),
        ({"temporal_ensemble_coeff": -1.0}, "`temporal_ensemble_coeff` must be at least 0, got -1.0"),
        ({"temporal_ensemble_coeff": 0.1, "n_action_steps": 2}, "`n_action_steps` must be 1 or left out"),
    ],
)
def test_bad_settings(config, fields, message):
    with pytest.raises(ValueError, match=message):
        type(config)(**{**config.to_dict(), **fields})
