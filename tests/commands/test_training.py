# SPDX-License-Identifier: Apache-2.0
"""What a training goes on from is a training on the same data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cyclemimic.commands import training
from cyclemimic.commands.training import check_same_data
from cyclemimic.data import Episode, FramePairDataset, InMemorySource, MixtureDataset, WeightedSource


def source(name, num_frames=12, embodiment="arm"):
    frames = np.zeros((num_frames, 8, 8, 3), np.uint8)
    return InMemorySource([Episode.from_arrays(frames, fps=10.0, source=name, embodiment=embodiment)])


@pytest.fixture
def mixture():
    return [WeightedSource(source(name), weight, 0.5, 0.2) for name, weight in (("a", 1.0), ("b", 2.0))]


@pytest.fixture
def checkpoint(tmp_path, mixture):
    settings = {}
    check_same_data(None, settings, MixtureDataset(mixture), mixture)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    return str(tmp_path)


def test_the_same_mixture_goes_on(checkpoint, mixture):
    check_same_data(checkpoint, {}, MixtureDataset(mixture), mixture)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a, b: [a], "data_sets ['a'] instead of ['a', 'b']"),
        (lambda a, b: [a, replace(b, weight=3.0)], "'weight': 3.0"),
        (lambda a, b: [a, replace(b, interval_s=(0.4, 0.5))], "'interval_s': [0.4, 0.5]"),
        (lambda a, b: [a, replace(b, source=source("b", 13))], "'frames': 13"),
        (lambda a, b: [a, replace(b, source=source("b", embodiment="hand"))], "'embodiment': 'hand'"),
    ],
)
def test_another_mixture_of_the_same_file_is_refused(checkpoint, mixture, change, words):
    changed = change(*mixture)
    with pytest.raises(ValueError, match="must be of a training with the same settings") as error:
        check_same_data(checkpoint, {}, MixtureDataset(changed), changed)
    assert words in str(error.value)


def test_data_sets_that_have_grown_are_refused(tmp_path):
    settings = {}
    check_same_data(None, settings, FramePairDataset([source("a")], 0.5, 0.2), [source("a")])
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    grown = [source("a", 20)]
    with pytest.raises(ValueError, match="'frames': 20"):
        check_same_data(str(tmp_path), {}, FramePairDataset(grown, 0.5, 0.2), grown)


def test_processes_that_see_other_data_are_refused(mixture, monkeypatch):
    """One of them has missed a data set."""
    monkeypatch.setattr(training, "gather_object", lambda of_this: [*of_this, of_this[0][:1]])
    with pytest.raises(ValueError, match="`data` must be the same in every process"):
        check_same_data(None, {}, MixtureDataset(mixture), mixture)
