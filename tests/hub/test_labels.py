# SPDX-License-Identifier: Apache-2.0
"""Labels by their id, wherever a folder of them would do; here because the Hub is."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from cyclemimic import LatentActionTokenizerImageProcessor, LatentActionTokenizerModel, cli
from cyclemimic.cards.origins import describe_labels
from cyclemimic.data import DataError, LatentLabels, open_labels
from cyclemimic.hub.upload import push_folder
from cyclemimic.labeling import tokenizer_revision

from ..label_files import write_labels


@pytest.fixture
def commits(hub, square_data, tmp_path) -> list[str]:
    """Two commits of the labels of `square_data`: all codes 0, then all codes 1."""
    ids = []
    for code in (0, 1):
        frames, episodes = np.tile(np.arange(9), 4), np.repeat(np.arange(4), 9)
        columns = {"source": ["squares"] * 36, "episode_index": episodes, "frame_index": frames}
        columns |= {"future_index": frames + 3, "instruction": ["go"] * 36, "codes": np.full((36, 4), code)}
        metadata = {"interval_s": 0.3, "min_interval_s": 0.3}
        write_labels(tmp_path / "codes", columns, 16, 4, "me/tokenizer", metadata)
        (tmp_path / "codes" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
        ids.append(push_folder(tmp_path / "codes", "me/codes").oid)
        shutil.rmtree(tmp_path / "codes")
    return ids


def test_an_id_is_as_good_as_a_folder(commits, labels):
    assert open_labels("me/codes").lookup("squares", 0, 0).tolist() == [1] * 4
    first = open_labels("me/codes", commits[0])
    assert first.lookup("squares", 0, 0).tolist() == [0] * 4
    assert describe_labels(first) == "me/codes (licence: cc-by-4.0), made by the tokenizer me/tokenizer"
    assert open_labels(labels).name == "labels"


def test_a_pushed_tokenizer_is_known_for_the_one_that_made_the_labels(hub, tokenizer):
    push_folder(tokenizer, "me/tokenizer")
    parts = (LatentActionTokenizerModel, LatentActionTokenizerImageProcessor)
    here, there = (
        tokenizer_revision(*(part.from_pretrained(path) for part in parts)) for path in (tokenizer, "me/tokenizer")
    )
    assert here == there


def test_a_folder_goes_before_an_id(commits, labels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(labels, tmp_path / "me" / "codes")
    assert len(open_labels("me/codes")) == len(LatentLabels.from_folder(labels)) == 3
    with pytest.raises(DataError, match="me/codes holds no labels on the Hub; leave out their revision, got 'main'"):
        open_labels("me/codes", "main")
    (tmp_path / "me" / "codes").rename(tmp_path / "me" / "codes.partial")
    with pytest.raises(DataError, match="me/codes is not complete yet"):
        open_labels("me/codes")


def test_a_verb_pretrains_on_labels_of_a_commit(commits, square_data, tmp_path, capsys):
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1 --max_steps 1 --save_strategy no"
    flags = ["--data", str(square_data), *tiny.split(), "--use_cpu", "true", "--disable_tqdm", "true"]
    wanted = ["--labels", "me/codes", "--labels_revision", commits[0]]
    assert cli.main(["pretrain", *flags, *wanted, "--output_dir", str(tmp_path / "policy")]) == 0
    card = (tmp_path / "policy" / "README.md").read_text()
    assert "Latent actions: me/codes (licence: cc-by-4.0), made by the tokenizer me/tokenizer." in card
    wanted[-1] = "f" * 40
    assert cli.main(["pretrain", *flags, *wanted, "--output_dir", str(tmp_path / "other")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "me/codes is no folder here, and no data set that the Hub gives at revision 'ffff" in lines[-1]
