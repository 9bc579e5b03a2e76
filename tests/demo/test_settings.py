# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

from cyclemimic import LatentActionTokenizerConfig
from cyclemimic.demo.settings import DemoConfig, DemoSettings, settings_for

OUTPUT = Path("output")


def test_filmed_experts_take_the_defaults():
    settings = settings_for(DemoConfig(OUTPUT))
    assert settings == DemoSettings() and len(settings.tasks) >= 3 and settings.rollouts_per_task == 20


def test_recorded_data_has_no_simulator():
    settings = settings_for(DemoConfig(OUTPUT, data=Path("real")))
    assert settings.tasks == () and settings.interval_s == 1.0


def test_quick_is_smaller_in_every_count_and_of_the_same_models():
    for data in (None, Path("real")):
        full, quick = settings_for(DemoConfig(OUTPUT, data)), settings_for(DemoConfig(OUTPUT, data, quick=True))
        for name in ("videos_per_task", "rollouts_per_task", "tokenizer_steps", "pretraining_steps"):
            assert getattr(quick, name) < getattr(full, name)
        assert (quick.tasks, quick.tokenizer, quick.backbone) == (full.tasks, full.tokenizer, full.backbone)


def test_sizes_make_a_tokenizer():
    settings = DemoSettings()
    config = LatentActionTokenizerConfig(image_size=settings.tokenizer_image_size, **settings.tokenizer)
    assert config.uses_ac3
