# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from cyclemimic import CycleMimicConfig
from cyclemimic.commands.inputs import choose_action_steps


@pytest.mark.parametrize(
    ("wanted", "configured", "chunk_size", "expected"),
    [(3, 2, 10, 3), (None, 2, 10, 2), (None, None, 11, 5), (None, None, 1, 1), (10, None, 10, 10)],
)
def test_actions_before_the_next_look(wanted, configured, chunk_size, expected):
    config = CycleMimicConfig(chunk_size=chunk_size, n_action_steps=configured)
    assert choose_action_steps(wanted, config) == expected


@pytest.mark.parametrize("wanted", [0, 11])
def test_no_more_actions_than_a_chunk_has(wanted):
    with pytest.raises(
        ValueError, match=rf"`num_action_steps` must be in \[1, 10\], the policy's chunk, got {wanted}"
    ):
        choose_action_steps(wanted, CycleMimicConfig(chunk_size=10))


def test_a_policy_that_averages_looks_before_every_action():
    config = CycleMimicConfig(chunk_size=10, n_action_steps=1, temporal_ensemble_coeff=0.1)
    assert choose_action_steps(None, config) == 1
    message = r"`num_action_steps` must be left out .*\(`temporal_ensemble_coeff`\), got 3"
    with pytest.raises(ValueError, match=message):
        choose_action_steps(3, config)
