# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import huggingface_hub
import pytest
from httpx import RemoteProtocolError

from cyclemimic.cards.origins import describe_checkpoint, describe_labels, id_on_the_hub
from cyclemimic.data import LatentLabels

from ..label_files import write_labels

CARD = "---\nlicense: apache-2.0\n---\n"


def test_a_checkpoint_is_named_without_its_path(tmp_path):
    folder = tmp_path / "prismatic"
    folder.mkdir()
    assert describe_checkpoint(folder) == "prismatic (licence unknown)"
    (folder / "README.md").write_text(CARD)
    assert describe_checkpoint(str(folder)) == "prismatic (licence: apache-2.0)"


def test_a_checkpoint_of_the_hub_is_asked_for_its_card(tmp_path, monkeypatch):
    asked = []

    def download(repository, name, revision=None):
        asked.append((repository, name, revision))
        if repository == "me/none":
            raise RemoteProtocolError("peer closed connection without sending complete message body")
        (tmp_path / name).write_text(CARD)
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert describe_checkpoint("me/prismatic") == "me/prismatic (licence: apache-2.0)"
    assert describe_checkpoint("me/none") == "me/none (licence unknown)"
    assert describe_checkpoint("me/prismatic@v1.0") == "me/prismatic (licence: apache-2.0)"
    assert asked == [
        ("me/prismatic", "README.md", None),
        ("me/none", "README.md", None),
        ("me/prismatic", "README.md", "v1.0"),
    ]
    assert (id_on_the_hub("me/prismatic@v1.0"), id_on_the_hub("outputs")) == ("me/prismatic", None)


@pytest.mark.parametrize(
    ("tokenizer", "named"), [("me/tokenizer", "me/tokenizer"), ("/home/me/outputs/tokenizer", "tokenizer")]
)
def test_labels_are_named_with_their_tokenizer(tmp_path, tokenizer, named):
    columns = {"source": ["a"], "episode_index": [0], "frame_index": [0], "future_index": [1], "instruction": [None]}
    sizes = {"codebook_size": 16, "num_latent_tokens": 1, "metadata": {"tokenizer_revision": "abc"}}
    write_labels(tmp_path / "codes", columns | {"codes": [[3]]}, **sizes, tokenizer=tokenizer)
    labels = LatentLabels.from_folder(tmp_path / "codes")
    assert describe_labels(labels) == f"codes (licence unknown), made by the tokenizer {named} at abc"
    (tmp_path / "codes" / "README.md").write_text(CARD)
    assert describe_labels(labels).startswith("codes (licence: apache-2.0), made by")
    labels.name = None
    assert describe_labels(labels) == f"made by the tokenizer {named} at abc"
