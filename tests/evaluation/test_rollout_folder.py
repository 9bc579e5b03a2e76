# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np

from cyclemimic.evaluation.rollout import Trial, TrialResult
from cyclemimic.evaluation.rollout_folder import RolloutFolder


def test_films_of_odd_frames_lose_the_odd_row_and_column(tmp_path):
    folder = RolloutFolder(tmp_path / "rollouts", {"episodes": 1}, fps=10)
    folder.start()
    trial = Trial("go", 3, filmed=True)
    result = TrialResult(trial)
    result.frames.extend(np.full((3, 17, 33, 3), 200, np.uint8))
    folder.save(result)
    described = folder.finished([trial])[trial]
    clip = folder.load_clip(described)
    assert clip.frames.shape == (3, 16, 32, 3) and abs(int(clip.frames.mean()) - 200) < 5
    assert [path.name for path in (tmp_path / "rollouts/clips").iterdir()] == ["go_3.mp4"]
