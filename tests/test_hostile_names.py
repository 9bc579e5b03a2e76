# SPDX-License-Identifier: Apache-2.0
"""Names in data that look like paths lead nowhere: what is written stays in the folder that was asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from cyclemimic import cli
from cyclemimic.data import DataError, LeRobotWriter, encode_video
from cyclemimic.evaluation.rollout import Trial, TrialResult
from cyclemimic.evaluation.rollout_folder import RolloutFolder

HOSTILE = "../../outside/x"
TINY = {
    **{"image_size": 32, "patch_size": 8, "vision_config": None, "hidden_size": 32, "num_attention_heads": 2},
    **{"num_encoder_layers": 1, "num_decoder_layers": 1, "num_discriminator_layers": 1, "codebook_dim": 8},
}
TIMES = ["--interval_s", "0.3", "--min_interval_s", "0.3"]


@pytest.fixture
def mixture(square_data, tmp_path) -> Path:
    """A data set whose body and instructions look like paths, under a name that does, too."""
    import pyarrow
    import pyarrow.parquet as parquet

    data = shutil.copytree(square_data, tmp_path / "in" / "data")
    info = json.loads((data / "meta" / "info.json").read_text())
    (data / "meta" / "info.json").write_text(json.dumps(info | {"robot_type": HOSTILE}))
    tasks = data / "meta" / "tasks.parquet"
    table = parquet.read_table(tasks)
    column = next(name for name in table.column_names if name != "task_index")
    words = pyarrow.array([f"{HOSTILE} {index}" for index in range(len(table))])
    parquet.write_table(table.set_column(table.column_names.index(column), column, words), tasks)
    path = tmp_path / "in" / "mixture.yaml"
    path.write_text(yaml.safe_dump({"sources": [{"path": str(data), "weight": 1.0, "name": HOSTILE}]}))
    return path


def files_of(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_verbs_write_into_their_folder_alone(mixture, tmp_path, monkeypatch):
    work = tmp_path / "work" / "here"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    before = files_of(tmp_path)
    data = ["--data", str(mixture)]
    tokenizer, device = ["--tokenizer", "out/tokenizer"], ["--device", "cpu"]
    training = "--max_steps 1 --per_device_train_batch_size 4 --use_cpu true --save_strategy no".split()
    fields = ["--tokenizer_config", json.dumps(TINY)]
    tiny = "--tiny --tiny_image_size 32 --tiny_hidden_size 32 --tiny_num_layers 1".split()
    demonstrations = str(mixture.parent / "data")
    finetuned = ["--policy", "out/policy", *tokenizer, *TIMES, "--dataset_name", HOSTILE]
    for argv in (
        ["inspect", demonstrations, "--output", "out/inspect"],
        ["train-tokenizer", *data, *fields, *TIMES, *training, "--output_dir", "out/tokenizer"],
        ["label", *data, *tokenizer, *TIMES, *device, "--output", "out/labels"],
        ["gallery", *data, *tokenizer, *TIMES, *device, "--output", "out/gallery"],
        ["evaluate-tokenizer", *data, *tokenizer, *TIMES, *device, "--output", "out/quality"],
        ["pretrain", *data, *tiny, "--labels", "out/labels", *training, "--output_dir", "out/policy"],
        ["finetune", "--data", demonstrations, *finetuned, *training, "--output_dir", "out/acting"],
    ):
        assert cli.main(argv) == 0, argv
    made = files_of(tmp_path) - before
    assert made and all(path.startswith("work/here/out/") for path in made)
    folders = {"inspect", "tokenizer", "labels", "gallery", "quality", "policy", "acting"}
    assert {path.split("/")[3] for path in made} == folders


def test_films_of_tasks(tmp_path):
    folder = RolloutFolder(tmp_path / "a" / "run", {}, fps=10)
    folder.start()
    frames = [np.full((32, 32, 3), value, dtype=np.uint8) for value in (0, 80)]
    trial = Trial(HOSTILE, 0, filmed=True)
    folder.save(TrialResult(trial, success=True, num_steps=2, frames=list(frames)))
    assert files_of(tmp_path) == {
        *("a/run/settings.json", "a/run/seconds.json", "a/run/episodes/-outside-x_0.json"),
        "a/run/clips/-outside-x_0.mp4",
    }
    described = folder.finished([trial])[trial]
    assert len(folder.load_clip(described).frames) == 2
    encode_video(tmp_path / "secret.mp4", frames, fps=10)
    with pytest.raises((DataError, OSError)):
        folder.load_clip(described | {"film": "../../secret.mp4"})


@pytest.mark.parametrize("camera", [HOSTILE, "..", "a/b"])
def test_data_sets_of_a_camera(tmp_path, camera):
    with pytest.raises(ValueError, match="`camera` must be a name without slashes"):
        LeRobotWriter(tmp_path / "data", 10, "robot", ["x"], camera=camera)
    assert files_of(tmp_path) == set()
