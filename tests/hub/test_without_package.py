# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in a process of their own that has transformers, and cannot import this package."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from cyclemimic import CycleMimicForActionPrediction, CycleMimicProcessor, LatentActionTokenizerModel
from cyclemimic.hub.upload import push_folder

PROGRAM = """
import json, sys

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "cyclemimic":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoPackage())
import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageTextToText, AutoModelForPreTraining
from transformers import AutoProcessor

FRAMES = np.arange(2 * 16 * 16 * 3).astype(np.uint8).reshape(2, 16, 16, 3)

def check(tokenizer, policy):
    options = {"trust_remote_code": True}
    processor = AutoProcessor.from_pretrained(policy, **options)
    model = AutoModel.from_pretrained(tokenizer, **options).eval()
    pairs = AutoImageProcessor.from_pretrained(tokenizer, **options)(FRAMES[:1], FRAMES[1:])
    trained = AutoModelForPreTraining.from_pretrained(tokenizer, **options)
    assert type(trained).__name__ == "LatentActionTokenizerForPreTraining"
    acting = AutoModel.from_pretrained(policy, **options).eval()
    with torch.no_grad():
        embeddings = model.encode(**pairs).embeddings
        actions = acting.predict_action_chunk(**processor(np.zeros((32, 32, 3), np.uint8), "open the drawer"))
    actions = processor.post_process_actions(actions, "arm")
    return [embeddings.tolist(), np.asarray(actions).tolist()]

tokenizer, policy, prismatic, commit = sys.argv[1:]
found = [check(tokenizer, policy), check("me/tokenizer", "me/policy")]
pinned = AutoModel.from_pretrained("me/tokenizer", revision=commit, trust_remote_code=True)
assert commit in type(pinned).__module__
# What is saved again carries its code again.
pinned.save_pretrained("again")
AutoModel.from_pretrained("again", trust_remote_code=True)
acting = AutoModel.from_pretrained(prismatic, trust_remote_code=True)
assert type(acting.backbone).__module__.startswith("transformers_modules.")
alone = AutoModelForImageTextToText.from_pretrained(prismatic + "/backbone", trust_remote_code=True)
assert type(alone).__name__ == type(acting.backbone).__name__ == "PrismaticForConditionalGeneration"
assert "cyclemimic" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture
def expected(tokenizer, policy):
    from transformers import AutoImageProcessor

    frames = np.arange(2 * 16 * 16 * 3).astype(np.uint8).reshape(2, 16, 16, 3)
    pairs = AutoImageProcessor.from_pretrained(tokenizer)(frames[:1], frames[1:])
    processor = CycleMimicProcessor.from_pretrained(policy)
    acting = CycleMimicForActionPrediction.from_pretrained(policy).eval()
    with torch.no_grad():
        embeddings = LatentActionTokenizerModel.from_pretrained(tokenizer).eval().encode(**pairs).embeddings
        actions = acting.predict_action_chunk(**processor(np.zeros((32, 32, 3), np.uint8), "open the drawer"))
    return [embeddings.numpy(), np.asarray(processor.post_process_actions(actions, "arm"))]


def test_folder_and_hub_load_with_transformers_alone(hub, tokenizer, policy, prismatic, expected, tmp_path):
    commit = push_folder(tokenizer, "me/tokenizer", private=True)
    push_folder(policy, "me/policy", private=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        **{"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"},
        **{"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": hub.token},
    }
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, (tokenizer, policy, prismatic)), commit.oid],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert hub.token not in process.stdout + process.stderr
    for embeddings, actions in json.loads(process.stdout.splitlines()[-1]):
        np.testing.assert_allclose(embeddings, expected[0], atol=1e-6)
        np.testing.assert_allclose(actions, expected[1], atol=1e-6)
