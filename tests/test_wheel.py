# SPDX-License-Identifier: Apache-2.0
"""What `python -m build` makes: a source distribution, a wheel of it, and the package as users have it installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path

import pytest

import cyclemimic

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "cyclemimic"
PLUGIN = ROOT / "src" / "lerobot_policy_cyclemimic"
# What a build leaves behind, and what it must not take for sources.
LEFTOVERS = shutil.ignore_patterns("__pycache__", "build", "dist", "*.egg-info")

SMOKE = """
import importlib.metadata, json, sys
from pathlib import Path

import cyclemimic

assert Path(cyclemimic.__file__).is_relative_to(sys.prefix), cyclemimic.__file__
assert importlib.metadata.version("cyclemimic") == cyclemimic.__version__

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModel

from cyclemimic import LatentActionTokenizerConfig, LatentActionTokenizerImageProcessor, LatentActionTokenizerModel
from cyclemimic.cards.card import CardData, render_model_card

folder = Path("tokenizer")
sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_encoder_layers": 1, "num_decoder_layers": 1}
config = LatentActionTokenizerConfig(image_size=16, patch_size=8, vision_config=None, codebook_dim=4, **sizes)
LatentActionTokenizerModel(config).save_pretrained(folder)
LatentActionTokenizerImageProcessor(size=16).save_pretrained(folder)
tokenizer = AutoModel.from_pretrained(folder).eval()
frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
inputs = AutoImageProcessor.from_pretrained(folder)(frames[:1], frames[1:])
with torch.no_grad():
    codes = tokenizer.encode(**inputs).codes
    decoded = tokenizer.decode(inputs["pixel_values"], codes=codes).pixel_values
card = render_model_card("tokenizer", "tokenizer", data=CardData([], []), facts={}, config=config)
(folder / "README.md").write_text(card)
Path("quality.json").write_text(json.dumps({"summary": {"perplexity": 14.5}, "data": {"bodies": {}}}))
# Not to standard output: libraries that are loaded on the way may have something to say there.
found = {"codes": codes.shape, "decoded": decoded.shape, "files": [path.name for path in folder.iterdir()]}
Path("found.json").write_text(json.dumps(found))
"""


def build(folder: Path, output: Path, *flags: str) -> Path:
    """Builds a copy of the distribution in `folder`, with what is installed here; returns the wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), *flags, str(folder)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stdout + process.stderr
    (wheel,) = output.glob("*.whl")
    return wheel


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_string(archive.read(name).decode())


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> Path:
    """Folder of what `python -m build` makes: a source distribution of the clone, and a wheel of that."""
    clone, output = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("dist")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(SOURCE.parent, clone / "src", ignore=LEFTOVERS)
    build(clone, output)
    return output


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory) -> Path:
    """
    An environment with the wheel and what it needs: as pip resolves that where CLEAN_TORCH says which torch to install first,
    otherwise of the environment that runs the tests, without its editable install.
    """
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, symlinks=True)
    (wheel,) = distributions.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    torch = os.environ.get("CLEAN_TORCH")
    if torch:
        subprocess.run([*pip, *torch.split()], check=True, timeout=1200)
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True, timeout=1200)
        return environment / "bin"
    (packages,) = environment.glob("lib/python*/site-packages")
    dependencies = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # Lines of a .pth file are put on the path; .pth files that lie there are not read.
    (packages / "dependencies.pth").write_text("\n".join(dependencies) + "\n", encoding="utf-8")
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True, timeout=300)
    return environment / "bin"


def test_the_wheel_has_every_file(distributions):
    """`package_data` counts from packages: folders that are none must be named."""
    (wheel,) = distributions.glob("*.whl")
    paths = [path for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert files_of(wheel) == {str(path.relative_to(SOURCE.parent)): path.read_bytes() for path in paths}
    metadata = metadata_of(wheel)
    assert (metadata["Version"], metadata["License"]) == (cyclemimic.__version__, "Apache-2.0")
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def test_the_source_distribution_can_be_built_and_read(distributions):
    """The wheel was made of it; here, that it has what a reader wants beside the code."""
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"README.md", "LICENSE", "setup.py", "pyproject.toml", "src/cyclemimic/py.typed"} <= names
    assert not any(name.startswith("src/lerobot_policy") for name in names)


def test_the_plugin_of_lerobot_is_a_wheel_of_its_own(tmp_path):
    wheel = build(shutil.copytree(PLUGIN, tmp_path / "plugin", ignore=LEFTOVERS), tmp_path, "--wheel")
    metadata = metadata_of(wheel)
    assert (metadata["Name"], metadata["Version"]) == ("lerobot_policy_cyclemimic", cyclemimic.__version__)
    assert {"cyclemimic", "lerobot>=0.6"} == set(metadata.get_all("Requires-Dist"))
    assert set(files_of(wheel)) == {f"lerobot_policy_cyclemimic/{path.name}" for path in PLUGIN.glob("*.py")}


def test_the_installed_package_works(installed, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str) -> str:
        process = subprocess.run(
            [installed / command[0], *command[1:]], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    assert run("cyclemimic", "--version").split() == ["cyclemimic", cyclemimic.__version__]
    assert "train-tokenizer" in run("cyclemimic", "--help")
    run("python", "-c", SMOKE)
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["codes"], found["decoded"]) == ([1, 4], [1, 3, 16, 16])
    assert {"modeling_latent_action_tokenizer.py", "quantizer_latent_action_tokenizer.py"} <= set(found["files"])
    run("cyclemimic", "card", "--model", "tokenizer", "--quality", "quality.json")
    assert "| perplexity of the codebook | 14.5 |" in (tmp_path / "tokenizer" / "README.md").read_text()
