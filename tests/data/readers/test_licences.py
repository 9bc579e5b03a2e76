# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from cyclemimic.data import VideoFileSource, encode_video, open_source
from cyclemimic.data.readers.licences import licence_of, read_licence

from .rlds_records import encode_episode, write_rlds


@pytest.mark.parametrize(
    ("front_matter", "licence"),
    [
        ("license: mit", "mit"),
        ("license: [mit, cc-by-4.0]", "mit, cc-by-4.0"),
        ("license: other\nlicense_name: made-up-1.0", "made-up-1.0"),
        ("license: other", "other"),
        ("license: 3", None),
        ("tags: [robotics]", None),
        ("license: [", None),
        ("- license", None),
        ("license: |\n  one\n  two", "one two"),
    ],
)
def test_the_cards_licence(tmp_path, front_matter, licence):
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# Arms\n\nlicense: none\n")
    assert read_licence(tmp_path) == licence


def test_without_a_card_or_with_one_that_is_elsewhere(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    assert read_licence(folder) is None
    (tmp_path / "other.md").write_text("---\nlicense: mit\n---\n")
    (folder / "README.md").symlink_to(tmp_path / "other.md")
    assert read_licence(folder) is None
    assert read_licence(folder, {"license": "apache-2.0"}) == "apache-2.0"


def test_whole_texts_are_cut():
    assert licence_of({"license": "word " * 1000}) == ("word " * 24) + "…"


def test_data_sets_say_theirs(square_data, tmp_path):
    root = shutil.copytree(square_data, tmp_path / "squares")
    assert open_source(root).licence is None
    info = json.loads((root / "meta" / "info.json").read_text())
    (root / "meta" / "info.json").write_text(json.dumps(info | {"license": "cc-by-4.0"}))
    assert open_source(root).licence == "cc-by-4.0"
    (root / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    assert open_source(root).licence == "apache-2.0"


def test_rlds_says_it_in_its_own_metadata(tmp_path):
    root = write_rlds(tmp_path / "arms" / "1.0.0", [[encode_episode(np.zeros((3, 8, 8, 3), np.uint8))]])
    assert open_source(root, fps=5).licence is None
    info = json.loads((root / "dataset_info.json").read_text())
    for said, licence in (({"license": "CC BY 4.0\n"}, "CC BY 4.0"), ({}, None), ("MIT", None)):
        (root / "dataset_info.json").write_text(json.dumps(info | {"redistributionInfo": said}))
        assert open_source(root, fps=5).licence == licence


def test_videos_have_a_card_beside_them(tmp_path):
    encode_video(tmp_path / "a.mp4", np.zeros((4, 32, 32, 3), np.uint8), 10)
    (tmp_path / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    assert VideoFileSource(tmp_path).licence == "cc0-1.0"
    assert VideoFileSource(tmp_path / "a.mp4").licence is None
