# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import json

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from cyclemimic import LatentActionTokenizerConfig, cli
from cyclemimic.cards.card import CardData, render_model_card

QUALITY = {
    "summary": {
        "linear_r2_within": {"value": 0.5, "low": 0.4, "high": 0.6},
        "perplexity": 14.5,
        "linear_r2_across": None,
    },
    "data": {"bodies": {"arm": {"sources": ["b", "a"]}}},
}
ROLLOUT = {
    "success": {
        "push": {"successes": 3, "trials": 4, "rate": 0.75, "low": 0.3, "high": 0.95},
        "mean": {"successes": 3, "trials": 4, "rate": 0.75, "low": 0.3, "high": 0.95},
    }
}

ERRORS = {
    "errors": {"policy": 0.25, "mean_action": 0.5, "last_action": 1.0, "dimensions": [0]},
    "episodes": 2,
    "frames": 30,
    "arguments": {"data": "videos/arm"},
}


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "my_model"
    folder.mkdir()
    data, facts = CardData([["a", "100.00%"]], []), {"seed": "0"}
    card = render_model_card("tokenizer", "my_model", data=data, facts=facts, config=LatentActionTokenizerConfig())
    (folder / "README.md").write_text(card, encoding="utf-8")
    return folder


def write(path, value) -> str:
    path.write_text(json.dumps(value))
    return str(path)


def test_figures_go_into_the_card(model, tmp_path, capsys):
    quality, rollout = write(tmp_path / "quality.json", QUALITY), write(tmp_path / "results.json", ROLLOUT)
    before = ModelCard.load(model / "README.md")
    assert cli.main(["card", "--model", str(model), "--quality", quality]) == 0
    assert cli.main(["card", "--model", str(model), "--quality", quality, "--rollout", rollout]) == 0
    card = ModelCard.load(model / "README.md")
    assert "Nothing has been measured" in before.text and "Nothing has been measured" not in card.text
    assert card.text.count("| perplexity of the codebook | 14.5 |") == 1
    assert "| push, 4 trials | success rate (95 %: 0.30 to 0.95) | 0.75 |" in card.text
    name, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "my_model"
    assert {(result.dataset_name, result.metric_type): result.metric_value for result in results} == {
        ("a, b", "linear_r2_within"): 0.5,
        ("a, b", "perplexity"): 14.5,
        ("push, 4 trials", "success_rate"): 0.75,
        ("all tasks, 4 trials", "success_rate"): 0.75,
    }
    assert card.data.tags == before.data.tags
    assert cli.main(["card", "--model", str(model), "--errors", write(tmp_path / "errors.json", ERRORS)]) == 0
    card = ModelCard.load(model / "README.md")
    data = "arm, 30 frames of 2 episodes"
    assert f"| {data} | error of recorded actions, in half ranges from 1 % to 99 % | 0.25 |" in card.text
    assert [row["value"] for row in card.data.to_dict()["model-index"][0]["results"][0]["metrics"]] == [0.25, 0.5, 1.0]
    assert [path.name for path in model.iterdir()] == ["README.md"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "`quality`, `rollout` and `errors` must hold at least one figure, got none."),
        (["--quality", "missing.json"], "`quality` must be a JSON file, got missing.json"),
        (["--rollout", "{quality}"], "`rollout` must be a file with `success`"),
        (["--quality", "{bare}"], "`quality` must be as `cyclemimic` has written it, got"),
        (["--errors", "{quality}"], "`errors` must be a file with `errors`"),
        (["--rollout", "{rateless}"], "`rollout` must be as `cyclemimic` has written it, got"),
    ],
)
def test_bad_files(model, tmp_path, capsys, flags, message):
    quality = write(tmp_path / "quality.json", QUALITY)
    rate = {"rate": None, "low": 0.1, "high": 0.2, "trials": 3}
    files = {
        "quality": quality,
        "bare": write(tmp_path / "bare.json", {"summary": {"psnr": 3.0}}),
        "rateless": write(tmp_path / "rateless.json", {"success": {"push": rate}}),
    }
    before = (model / "README.md").read_bytes()
    assert cli.main(["card", "--model", str(model), *(flag.format(**files) for flag in flags)]) == 2
    assert message in capsys.readouterr().err
    assert (model / "README.md").read_bytes() == before


def test_a_folder_without_a_card(tmp_path, capsys):
    assert cli.main(["card", "--model", str(tmp_path)]) == 2
    assert "`model` must be the folder of a trained model" in capsys.readouterr().err


def test_rollouts_of_another_policy_are_refused(model, tmp_path, capsys):
    (model / "config.json").write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    for files, code in (
        ({"config.json": digest}, 0),
        ({"config.json": "other"}, 2),
        ({"model.safetensors": digest}, 2),
    ):
        rollout = write(tmp_path / "results.json", ROLLOUT | {"arguments": {"policy_files": files}})
        assert cli.main(["card", "--model", str(model), "--rollout", rollout]) == code
    assert "`rollout` must be of the model in" in (told := capsys.readouterr().err)
    assert "of one with another model.safetensors" in told


def test_a_rate_without_its_interval_is_refused(model, tmp_path, capsys):
    rollout = write(tmp_path / "results.json", {"success": {"push": {"rate": 0.5, "trials": 2}}})
    assert cli.main(["card", "--model", str(model), "--rollout", rollout]) == 2
    assert (
        f"`rollout` must be as `cyclemimic` has written it, got {rollout}: KeyError 'low'" in capsys.readouterr().err
    )
