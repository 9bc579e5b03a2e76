# SPDX-License-Identifier: Apache-2.0
"""The example Space: metadata that the Hub wants, and an app that asks for a command line that there is."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import yaml

import cyclemimic
from cyclemimic.commands import gallery

SPACE = Path(__file__).resolve().parents[1] / "examples" / "space"


def test_metadata():
    text = (SPACE / "README.md").read_text(encoding="utf-8")
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert metadata["sdk"] == "gradio" and (SPACE / metadata["app_file"]).is_file()
    assert len(metadata["short_description"]) <= 60
    assert isinstance(metadata["sdk_version"], str) and int(metadata["sdk_version"].split(".")[0]) >= 6
    assert f"cyclemimic-{cyclemimic.__version__}-py3-none-any.whl" in (SPACE / "requirements.txt").read_text()


def test_app_serves_what_the_variables_name():
    flags = runpy.run_path(str(SPACE / "app.py"))["flags"]
    verb, *argv = flags({"TOKENIZER": "me/tokenizer", "DATA": "me/a me/b", "INTERVAL_S": "0.5"})
    arguments = gallery.parse(argv, "cyclemimic gallery")
    assert verb == "gallery" and arguments.serve and arguments.host == "0.0.0.0"
    assert (arguments.tokenizer, arguments.data) == ("me/tokenizer", ["me/a", "me/b"])
    assert (arguments.interval_s, arguments.min_interval_s, arguments.max_pairs) == (0.5, 0.25, 200)
    unset = {
        "TOKENIZER": " me/tokenizer ",
        "DATA": "me/a",
        "INTERVAL_S": "",
        "MAX_PAIRS": " ",
        "GRADIO_SERVER_PORT": "",
    }
    arguments = gallery.parse(flags(unset)[1:], "cyclemimic gallery")
    assert (arguments.tokenizer, arguments.interval_s, arguments.max_pairs) == ("me/tokenizer", None, 200)
    with pytest.raises(SystemExit, match="INTERVAL_S must be seconds, got a second"):
        flags(unset | {"INTERVAL_S": "a second"})
    with pytest.raises(SystemExit, match="set DATA in the variables of the Space"):
        flags({"TOKENIZER": "me/tokenizer", "DATA": " "})
