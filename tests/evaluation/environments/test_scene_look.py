# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cyclemimic.evaluation.environments.scene_look import SceneLook


@pytest.fixture
def model() -> SimpleNamespace:
    """What a model of MuJoCo holds, as far as looks go."""
    return SimpleNamespace(
        mat_rgba=np.array([[1.0, 0.5, 0.2, 0.7], [0.3, 0.3, 0.3, 1.0]]), light_diffuse=np.full((3, 3), 0.3)
    )


def test_a_look_depends_on_the_draw_alone(model):
    look, looks = SceneLook(model), []
    for seed in (0, 1, 0):
        look.draw(np.random.default_rng(seed))
        looks.append(np.concatenate([model.mat_rgba[:, :3].ravel(), model.light_diffuse.ravel()]))
    # Not darker with every draw, as tints upon tints would be.
    np.testing.assert_array_equal(looks[0], looks[2])
    assert (looks[0] != looks[1]).all()


def test_looks_stay_near_how_the_scene_came(model):
    colors, lights = model.mat_rgba.copy(), model.light_diffuse.copy()
    look, tints, brightness = SceneLook(model), [], []
    for seed in range(200):
        look.draw(np.random.default_rng(seed))
        assert (model.mat_rgba[:, 3] == colors[:, 3]).all()
        tints.append(model.mat_rgba[:, :3] / colors[:, :3])
        # One brightness for all lights.
        assert np.ptp(model.light_diffuse / lights) < 1e-12
        brightness.append(model.light_diffuse[0, 0] / lights[0, 0])
    assert 0.5 <= np.min(tints) < 0.52 and 0.98 < np.max(tints) <= 1
    assert 0.7 <= min(brightness) < 0.72 and 1.28 < max(brightness) <= 1.3
