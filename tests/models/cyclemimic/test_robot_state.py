# SPDX-License-Identifier: Apache-2.0
"""The robot's state as an input of the policy, from physical units to what the action decoder reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cyclemimic.models.cyclemimic import (
    CycleMimicForActionPrediction,
    CycleMimicForLatentActionPrediction,
    CycleMimicProcessor,
)

# The last dimension never moved.
STATE_STATISTICS = {"arm": {"q01": [-1.0, 0.0, 5.0], "q99": [1.0, 4.0, 5.0]}}
STATES = np.array([[0.5, 1.0, 5.0], [-1.0, 4.0, 5.0], [3.0, -2.0, 9.0]])


@pytest.fixture
def processor(processor) -> CycleMimicProcessor:
    return CycleMimicProcessor(
        processor.image_processor,
        processor.tokenizer,
        num_image_tokens=16,
        num_act_tokens=2,
        chunk_size=5,
        action_dim=4,
        action_statistics=processor.action_statistics,
        state_dim=3,
        state_statistics=STATE_STATISTICS,
    )


@pytest.fixture
def model(config) -> CycleMimicForActionPrediction:
    torch.manual_seed(0)
    return CycleMimicForActionPrediction(config).eval()


def test_normalised_by_hand_and_clipped(processor, images, texts):
    state = processor(images, texts, robot_state=STATES)["robot_state"]
    alone = processor(images[0], texts[0], robot_state=STATES[0])["robot_state"]
    assert torch.equal(alone, state[:1]), "of one sample as it is, as image and text"
    assert state.dtype == torch.float32
    assert state.tolist() == [[0.5, -0.5, 0.0], [-1.0, 1.0, 0.0], [1.0, -1.0, 0.0]]


def test_each_sample_by_its_own_data_set(processor, images, texts):
    processor.add_state_statistics("slow", {"q01": [-10.0, 0.0, 0.0], "q99": [10.0, 10.0, 10.0]})
    names = ["arm", "slow", "slow"]
    state = processor(images, texts, robot_state=STATES, dataset=names)["robot_state"]
    np.testing.assert_allclose(state, [[0.5, -0.5, 0.0], [-0.1, -0.2, 0.0], [0.3, -1.0, 0.8]], atol=1e-6)
    with pytest.raises(ValueError, match=r"`dataset` must be one of \['arm', 'slow'\], got 'slwo' \(did you mean"):
        processor(images, texts, robot_state=STATES, dataset="slwo")


def test_processor_and_policy_are_saved_and_loaded(processor, config, images, texts, tmp_path):
    model = CycleMimicForActionPrediction(config).eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    reloaded = CycleMimicProcessor.from_pretrained(tmp_path)
    assert (reloaded.state_dim, reloaded.state_statistics) == (3, processor.state_statistics)
    again = CycleMimicForActionPrediction.from_pretrained(tmp_path).eval()
    batch = reloaded(images, texts, robot_state=STATES)
    assert torch.equal(model.predict_action_chunk(**batch), again.predict_action_chunk(**batch))


@pytest.mark.parametrize("context", ["image-act", "act"])
@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_training_and_prediction_agree(config, processor, images, texts, padding_side, context):
    config.action_decoder_context = context
    model = CycleMimicForActionPrediction(config).eval()
    prompt = processor(images, texts, robot_state=STATES, padding_side=padding_side)
    codes = model.predict_latent_actions(**prompt)
    predicted = model.predict_action_chunk(**prompt)
    for side in ("left", "right"):
        batch = processor(images, texts, codes, robot_state=STATES, padding_side=side)
        assert torch.allclose(model(**batch).actions, predicted, atol=1e-4)
    assert torch.allclose(model.select_action(**prompt), predicted[:, 0])


def test_only_the_actions_depend_on_it(model, processor, images, texts, codes):
    outputs = [model(**processor(images, texts, codes, robot_state=states)) for states in (STATES, STATES[[1, 1, 2]])]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    changed = (outputs[0].actions - outputs[1].actions).abs().amax(dim=(1, 2)) > 1e-5
    assert changed.tolist() == [True, False, False]


def test_actions_that_only_the_state_tells_are_learned(model, processor, images, codes, actions):
    """Image, instruction and latent action are the same: without the state, the best is the mean."""
    torch.manual_seed(0)
    one = [images[0]] * 3, ["reach"] * 3, codes[[0, 0, 0]]
    spread = np.stack([np.full((5, 4), value) for value in (0.1, 0.5, 0.9)])
    batch = processor(*one, spread, robot_state=STATES)
    optimizer = torch.optim.AdamW(model.action_decoder.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(**batch).action_loss
        loss.backward()
        optimizer.step()
    mean = (batch["actions"] - batch["actions"].mean(0)).abs().mean().item()
    assert loss.item() < 0.2 * mean
    assert all(parameter.grad.any() for parameter in model.action_decoder.state_proj.parameters())


def test_pretraining_does_not_read_it(config, processor, images, texts, codes):
    model = CycleMimicForLatentActionPrediction(config).eval()
    with_state = model(**processor(images, texts, codes, robot_state=STATES))
    assert torch.equal(with_state.logits, model(**processor(images, texts, codes)).logits)


def test_a_policy_that_wants_a_state_gets_one(model, processor, images, texts, codes):
    message = r"`robot_state` must be given, of shape \(3, 3\), for a policy of `state_dim` 3, got "
    with pytest.raises(ValueError, match=message + "None"):
        model(**processor(images, texts, codes))
    with pytest.raises(ValueError, match=message + "None"):
        model.predict_action_chunk(**processor(images, texts))
    batch = processor(images, texts, robot_state=STATES)
    batch["robot_state"] = batch["robot_state"][:, :2]
    with pytest.raises(ValueError, match=message + r"\(3, 2\)"):
        model.predict_action_chunk(**batch)


def test_a_policy_without_gets_none(config, processor, images, texts):
    config.state_dim = None
    model = CycleMimicForActionPrediction(config)
    with pytest.raises(ValueError, match=r"`robot_state` must be left out for a policy .* None, got \(3, 3\)"):
        model.predict_action_chunk(**processor(images, texts, robot_state=STATES))


@pytest.mark.parametrize(
    ("states", "message"),
    [
        (STATES[:, :2], r"`robot_state` must have shape \(3, 3\), got \(3, 2\)"),
        (STATES[:2], r"`robot_state` must have shape \(3, 3\), got \(2, 3\)"),
        (STATES * np.nan, "`robot_state` must be finite, got 9 values"),
        ("here", "`robot_state` must be numbers"),
    ],
)
def test_bad_states(processor, images, texts, states, message):
    with pytest.raises(ValueError, match=message):
        processor(images, texts, robot_state=states)


def test_bad_settings(processor, config, images, texts):
    parts = processor.image_processor, processor.tokenizer
    with pytest.raises(ValueError, match="`state_dim` must be an integer of at least 1, got 0"):
        CycleMimicProcessor(*parts, state_dim=0)
    with pytest.raises(ValueError, match=r"`state_statistics\['arm'\]` must hold 2 finite values as 'q01', got"):
        CycleMimicProcessor(*parts, state_dim=2, state_statistics=STATE_STATISTICS)
    with pytest.raises(ValueError, match="`state_dim` must be given for statistics of robot states"):
        CycleMimicProcessor(*parts, state_statistics=STATE_STATISTICS)
    with pytest.raises(ValueError, match="`robot_state` must be left out of a processor whose `state_dim` is None"):
        CycleMimicProcessor(*parts)(images, texts, robot_state=STATES)
    with pytest.raises(
        ValueError, match="`state_statistics` must hold the statistics of a data set, which fine-tuning adds, got none"
    ):
        CycleMimicProcessor(*parts, state_dim=3)(images, texts, robot_state=STATES)
    with pytest.raises(ValueError, match="`state_dim` must be at least 1, got 0"):
        processor.make_config(config.backbone_config, state_dim=0)
