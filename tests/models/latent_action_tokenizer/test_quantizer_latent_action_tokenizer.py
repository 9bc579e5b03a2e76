# SPDX-License-Identifier: Apache-2.0
"""Words that nothing uses are brought back."""

from __future__ import annotations

import pytest
import torch

from cyclemimic import LatentActionTokenizerForPreTraining
from cyclemimic.models.latent_action_tokenizer.quantizer_latent_action_tokenizer import LatentActionTokenizerQuantizer

from .conftest import assert_same_state, moving_squares, state_of


def test_first_batch_places_every_word(make_config):
    quantizer = LatentActionTokenizerQuantizer(make_config(codebook_size=4, normalize_codebook=False)).train()
    embeddings = torch.randn(8, 2, 4)
    quantizer(embeddings)
    distance = torch.cdist(quantizer.words, embeddings.flatten(0, 1)).amin(-1)
    assert distance.max() < 1e-6
    assert len(quantizer.words.unique(dim=0)) == 4


def test_dead_words_are_revived_and_others_stay(make_config):
    config = make_config(codebook_size=3, dead_code_steps=3, normalize_codebook=False)
    quantizer = LatentActionTokenizerQuantizer(config).train()
    near, middle, far = torch.eye(4)[:3]
    quantizer.codebook.data = torch.stack((near, middle, 100 * far))
    quantizer.idle_steps.zero_()
    batch = torch.stack((near, middle + 0.1)).expand(4, 2, 4)
    for step in range(1, 4):
        assert quantizer(batch)[0].unique().tolist() == [0, 1]
        assert quantizer.idle_steps.tolist() == [0, 0, step]
    codes, words = quantizer(batch)
    # Word 2 stands now where the codebook served worst, takes over, and its neighbour starts to idle.
    torch.testing.assert_close(quantizer.words[2], middle + 0.1)
    assert torch.equal(quantizer.words[:2], torch.stack((near, middle)))
    assert codes.unique().tolist() == [0, 2] and quantizer.idle_steps.tolist() == [0, 1, 0]
    torch.testing.assert_close(words, batch)


def test_a_batch_with_an_overflowing_frame_says_nothing_of_the_words(make_config):
    quantizer = LatentActionTokenizerQuantizer(make_config(dead_code_steps=1)).train()
    before = state_of(quantizer)
    for overflowed in (torch.nan, torch.inf):
        embeddings = torch.randn(8, 2, 4)
        embeddings[3] = overflowed
        quantizer(embeddings)
        assert_same_state(state_of(quantizer), before)
    quantizer(torch.randn(8, 2, 4))
    assert quantizer.codebook_shift.any()


def test_a_batch_of_one_pair_many_times_over_says_nothing_of_the_words(make_config):
    """Standardised, its embeddings are zero."""
    quantizer = LatentActionTokenizerQuantizer(make_config(dead_code_steps=1)).train()
    before = state_of(quantizer)
    quantizer(torch.zeros(8, 2, 4))
    assert_same_state(state_of(quantizer), before)


@pytest.mark.parametrize(("mode", "steps"), [(False, 50), (True, 0)])
def test_no_revival_in_evaluation_or_when_off(mode, steps, make_config):
    quantizer = LatentActionTokenizerQuantizer(make_config(dead_code_steps=steps)).train(mode)
    before = state_of(quantizer)
    for _ in range(3):
        quantizer(torch.randn(4, 2, 4))
    assert_same_state(state_of(quantizer), before)


def test_codebook_larger_than_the_actions_of_a_batch(make_config):
    model = LatentActionTokenizerForPreTraining(make_config(codebook_size=16, num_latent_tokens=1, dead_code_steps=2))
    for seed in range(5):
        output = model.train()(*moving_squares(1, first=seed))
        assert torch.isfinite(output.loss) and output.codes.shape == (1, 1)


def test_a_revived_word_has_all_its_steps_again(make_config):
    config = make_config(codebook_size=2, dead_code_steps=3, normalize_codebook=False)
    quantizer = LatentActionTokenizerQuantizer(config).train()
    quantizer.codebook.data = torch.eye(4)[:2]
    quantizer.idle_steps.copy_(torch.tensor([0, 3]))
    # All there is is the first word already: the second comes to stand there too, and is not taken.
    quantizer(torch.eye(4)[0].expand(4, 2, 4))
    assert torch.equal(quantizer.words[1], torch.eye(4)[0]) and quantizer.idle_steps.tolist() == [0, 1]
