# SPDX-License-Identifier: Apache-2.0
"""Which episodes of a demo's data serve which stage."""

from __future__ import annotations

from dataclasses import dataclass

from cyclemimic.data import DataError, EpisodeSource, open_source
from cyclemimic.demo.settings import DemoConfig, DemoSettings


@dataclass(frozen=True)
class DemoData:
    """The parts of a data set: `videos` to learn latent actions from, a few `demonstrations` with their actions, and
    episodes that nothing learns from, `held_out`, where there is no simulator to evaluate in."""

    name: str
    videos: EpisodeSource
    demonstrations: EpisodeSource
    held_out: EpisodeSource | None


def open_demo_data(config: DemoConfig, episodes: list[int] | None = None) -> EpisodeSource:
    """The demo's data set, filmed or given, or some of its episodes."""
    if config.data is None:
        return open_source(config.output / "data", episodes=episodes, name="demo")
    source = open_source(config.data, camera=config.camera, episodes=episodes)
    if episodes is None and len(source) < 3:
        raise DataError(f"{config.data} has {len(source)} episodes; the demo needs 3, one of them to evaluate on")
    return source


def split_demo_data(config: DemoConfig, settings: DemoSettings) -> DemoData:
    """
    Filmed experts: all episodes are video, those marked so are demonstrations. Recorded data: the last fifth is held
    out, and of the rest up to half, and `demonstrations_per_task` at most, are demonstrations.
    """
    everything = open_demo_data(config)
    indices = [episode.index for episode in everything]
    if config.data is None:
        labelled = [episode.index for episode in everything if episode.attributes["labelled"]]
        return DemoData(everything.name, everything, open_demo_data(config, labelled), None)
    num_held_out = max(1, len(indices) // 5)
    training, held_out = indices[:-num_held_out], indices[-num_held_out:]
    demonstrations = training[: min(settings.demonstrations_per_task, max(1, len(training) // 2))]
    parts = [open_demo_data(config, part) for part in (training, demonstrations, held_out)]
    return DemoData(everything.name, *parts)
