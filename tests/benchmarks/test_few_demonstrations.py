# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from cyclemimic import cli
from cyclemimic.data import LatentLabels
from cyclemimic.data.labels.label_writer import shard_name, to_table, write_shard
from cyclemimic.evaluation.intervals import wilson_interval

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "benchmarks" / "few_demonstrations" / "measure.py"


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("few_demonstrations", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        spec.loader.exec_module(module)
        yield module
    del sys.modules[spec.name], sys.modules["success"]


@pytest.fixture
def arguments(measure, monkeypatch, tmp_path):
    def parse(*flags: str):
        monkeypatch.setattr(sys, "argv", ["measure.py", "--output", str(tmp_path), *flags])
        return measure.parse()

    return parse


def test_ten_tasks_and_a_row_for_every_claim(measure):
    assert len(set(measure.TASKS)) == 10 and set(measure.TASKS) <= set(measure.INSTRUCTIONS)
    for number in (1, 5, 20):
        assert {f"{start}-{number}" for start in ("no-videos", "none", "genie", "ac3", "other-bodies")} <= set(
            measure.ROWS
        )
    assert {"ac3-5-latent", "ac3-5-discrete", "none-100"} <= set(measure.ROWS)


@pytest.fixture
def stages(measure, monkeypatch, arguments, tmp_path):
    """Runs one row with further flags, without doing anything; the stages' verbs with their flags, as strings."""
    arms_tokenizer = tmp_path / "arms_tokenizer"

    def run(row: str, *flags: str) -> list[tuple[str, list[str]]]:
        done: list[tuple[str, list[str]]] = []

        def note(verb: str, *given: object) -> None:
            done.append((verb, [str(flag) for flag in given]))
            option = "--output_dir" if "--output_dir" in given else "--output"
            Path(given[given.index(option) + 1]).mkdir()

        def make_start(arguments, labels, seed, folder) -> None:
            done.append(("start", ["--labels", str(labels), "--seed", str(seed)]))
            folder.mkdir()

        monkeypatch.setattr(measure, "cyclemimic", note)
        monkeypatch.setattr(measure, "make_start", make_start)
        arms_tokenizer.mkdir(exist_ok=True)
        of_arms = ("--arms", "arms/Panda", "arms/UR5e", "--arms_tokenizer", str(arms_tokenizer))
        parsed = arguments("--rows", row, *of_arms, *flags)
        measure.run(parsed, measure.ROWS[row], 3, tmp_path / "videos", tmp_path / "demonstrations")
        return done

    return run


def value(flags: list[str], name: str, root: Path) -> str:
    return flags[flags.index(name) + 1].removeprefix(f"{root}/seed-3/")


def test_every_command_line_is_one_of_the_verbs(measure, stages):
    for row in measure.ROWS:
        for verb, flags in stages(row):
            if verb != "start":
                cli.VERBS[verb].parse(flags, f"cyclemimic {verb}")


def test_stages_without_pretraining(stages, tmp_path):
    done = stages("none-5")
    assert [verb for verb, _ in done] == ["train-tokenizer", "label", "label", "start", "finetune", "rollout"]
    tokenizer, _, labels, start, finetune, rollout = (flags for _, flags in done)
    assert value(tokenizer, "--data", tmp_path) == str(tmp_path / "videos")
    assert value(labels, "--data", tmp_path) == str(tmp_path / "demonstrations")
    assert value(start, "--labels", tmp_path) == "ac3/labels"
    assert value(finetune, "--policy", tmp_path) == "start"
    assert value(finetune, "--labels", tmp_path) == "ac3/labels_of_demonstrations"
    assert value(finetune, "--num_episodes", tmp_path) == "50"
    assert value(rollout, "--policy", tmp_path) == "none-5/policy"
    assert stages("none-5") == [], "what is done is not done again"
    assert [verb for verb, _ in stages("ac3-5")] == ["pretrain", "finetune", "rollout"]


def test_no_videos_at_all(stages, tmp_path):
    done = stages("no-videos-5")
    assert [verb for verb, _ in done] == ["train-tokenizer", "label", "label", "start", "finetune", "rollout"]
    finetune = done[-2][1]
    assert value(finetune, "--policy", tmp_path) == "start"
    assert value(finetune, "--labels", tmp_path) == "no-videos/labels_of_demonstrations"


def test_labels_of_one_word_tell_nothing(measure, tmp_path):
    columns = {
        "source": ["drawer"] * 3,
        "episode_index": [0, 0, 1],
        "frame_index": [0, 1, 0],
        "future_index": [2, 3, 2],
        "instruction": ["open"] * 3,
        "codes": np.array([[3, 1], [0, 2], [3, 3]]),
    }
    labels = tmp_path / "labels"
    labels.mkdir()
    write_shard(labels / shard_name(0), to_table(columns, {"num_latent_tokens": 2, "codebook_size": 4}))
    measure.label_alike(labels, tmp_path / "alike")
    alike = LatentLabels.from_folder(tmp_path / "alike")
    assert (alike.codebook_size, alike.num_latent_tokens) == (4, 2)
    assert all(alike.lookup("drawer", *at).tolist() == [0, 0] for at in ((0, 0), (0, 1), (1, 0)))


def test_stages_of_other_bodies(stages, tmp_path):
    done = stages("other-bodies-5")
    assert [verb for verb, _ in done] == ["label", "label", "start", "pretrain", "finetune", "rollout"]
    assert (tmp_path / "seed-3" / "other-bodies" / "tokenizer").is_dir(), "trained before, taken as it is"
    labels, labels_here, _, pretrain, finetune, _ = (flags for _, flags in done)
    for flags in (labels, pretrain):
        first = flags.index("--data") + 1
        assert flags[first : first + 2] == ["arms/Panda", "arms/UR5e"]
    # The arms move more slowly than the robot of the demonstrations.
    assert [value(flags, "--interval_s", tmp_path) for flags in (labels, labels_here)] == ["0.8", "0.15"]
    assert value(pretrain, "--policy", tmp_path) == "start"
    assert value(pretrain, "--labels", tmp_path) == "other-bodies/labels"
    assert value(finetune, "--policy", tmp_path) == "other-bodies/policy"
    assert value(finetune, "--labels", tmp_path) == "other-bodies/labels_of_demonstrations"


def test_latent_tokens_may_be_corrupted_in_fine_tuning(stages, tmp_path):
    (finetune,) = (flags for verb, flags in stages("none-5", "--corrupted_share", "0.3") if verb == "finetune")
    assert value(finetune, "--corrupted_share", tmp_path) == "0.3"


def test_many_demonstrations_are_trained_on_for_longer(stages, tmp_path):
    (finetune,) = (flags for verb, flags in stages("none-100", "--finetuning_steps", "7") if verb == "finetune")
    assert value(finetune, "--max_steps", tmp_path) == "70"
    assert value(finetune, "--output_dir", tmp_path) == "none-100-70-steps/policy.partial"


def test_settings_may_be_chosen_in_other_scenes(measure, stages, arguments, tmp_path):
    stages("none-5")
    ((verb, flags),) = stages("none-5", "--evaluation_seed", "4")
    assert (verb, value(flags, "--seed", tmp_path)) == ("rollout", "4")
    assert value(flags, "--output", tmp_path) == "none-5/rollout-on-seed-4.partial"


def test_rollouts_go_on_where_they_were_stopped(measure, tmp_path):
    def stop(folder):
        (folder / "episodes").mkdir(parents=True)
        raise KeyboardInterrupt

    def go_on(folder):
        assert (folder / "episodes").is_dir()

    with pytest.raises(KeyboardInterrupt):
        measure.once(tmp_path / "rollout", stop, goes_on=True)
    measure.once(tmp_path / "rollout", go_on, goes_on=True)
    assert [path.name for path in tmp_path.iterdir()] == ["rollout"]


@pytest.fixture
def roll_out(tmp_path):
    """Writes what a rollout of two tasks leaves behind: which of the scenes of each succeeded."""

    def write(seed: int, row: str, **successes: tuple[int, ...]) -> None:
        folder = tmp_path / f"seed-{seed}" / row / "rollout"
        folder.mkdir(parents=True)
        trials = [
            {"task": task, "initial_state": state, "success": state in states, "num_steps": 9}
            for task, states in successes.items()
            for state in range(5)
        ]
        (folder / "results.json").write_text(json.dumps({"trials": trials}))

    return write


def test_the_table_counts_what_the_rollouts_wrote(measure, arguments, roll_out):
    roll_out(0, "none-5", door=(0,), drawer=(1,))
    roll_out(0, "ac3-5", door=(0, 1, 2, 3), drawer=(0,))
    roll_out(1, "ac3-5", door=(0, 1, 2, 3, 4), drawer=(1, 2))
    roll_out(0, "none-100-8000-steps", door=(0, 1, 2, 3, 4), drawer=(0, 1, 2, 3, 4))
    summary = measure.summarise(arguments("--rows", "none-5", "ac3-5", "genie-5", "none-100", "--seeds", "0", "1"))
    _, _, *rows = measure.table(summary).splitlines()
    assert rows[:3] == [
        "| none | 5 | act | 800 | 0.20 | 0.20 | 0.06 to 0.51 |",
        "| ac3 | 5 | act | 800 | 0.50, 0.70 | 0.60 | 0.00 to 1.00 |",
        "| none | 100 | act | 8000 | 1.00 | 1.00 | 0.72 to 1.00 |",
    ]
    # Three more doors of ten scenes, in the one seed that both rows have.
    assert rows[6].startswith("| ac3-5 - none-5 | +0.30 |") and rows[6].endswith("| 1 |") and len(rows) == 7
    assert summary["rows"]["ac3-5"]["tasks"]["door"]["mean"] == pytest.approx(0.9)
    assert summary["rows"]["ac3-5"]["tasks"]["drawer"]["mean"] == pytest.approx(0.3)
    assert summary["evaluation_seed"] == 0 and json.loads(json.dumps(summary))["rows"]["none-5"]["mean"] == 0.2


def test_interval_of_a_mean_by_hand(measure):
    """As many trials of one policy, and of three: what these differ by is what counts."""
    successes = (70, 73, 55)
    outcomes = {
        seed: {"door": {scene: scene < number for scene in range(100)}} for seed, number in enumerate(successes)
    }
    found = measure.mean_success(outcomes)
    reach = 4.302653 * 0.01 * np.std(successes, ddof=1) / 3**0.5
    assert found == pytest.approx({"mean": 0.66, "low": 0.66 - reach, "high": 0.66 + reach})
    one = measure.mean_success({0: outcomes[0]})
    assert (one["low"], one["high"]) == pytest.approx(wilson_interval(70, 100))


def test_paired_difference_by_hand(measure):
    def outcomes(successes):
        return {seed: {"door": dict(enumerate(each))} for seed, each in enumerate(successes)}

    hard = np.random.default_rng(0).random((3, 200)) < 0.5
    for num_seeds in (1, 3):
        same = measure.paired_difference(outcomes(hard[:num_seeds]), outcomes(hard[:num_seeds]))
        assert (same.mean, same.low, same.high) == (0, 0, 0), "how hard a scene is plays no part"
        assert same.num_seeds == num_seeds
    # Differences of 0.2, 0.1 and 0.3: mean 0.2, standard deviation 0.1, and Student's 4.303 for two degrees of freedom.
    better = np.zeros((3, 10))
    better[0, :2] = better[1, :1] = better[2, :3] = 1
    found = measure.paired_difference(outcomes(better), outcomes(np.zeros((3, 10))))
    reach = 4.302653 * 0.1 / 3**0.5
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.2 - reach, 0.2 + reach))
    # One seed: a standard error of 0.028 over 200 scenes of which a fifth differ.
    one = measure.paired_difference(outcomes(np.arange(200)[None] < 40), outcomes(np.zeros((1, 200))))
    assert one.mean == pytest.approx(0.2)
    assert (one.low, one.high) == pytest.approx((0.2 - 1.96 * 0.0283, 0.2 + 1.96 * 0.0283), abs=0.01)
    assert measure.paired_difference(outcomes(hard), {7: outcomes(hard)[0]}) is None


def test_other_scenes_are_not_compared(measure):
    one, other = ({0: {"door": dict.fromkeys(range(first, 5), True)}} for first in (0, 1))
    with pytest.raises(ValueError, match="only where they played the same scenes, which seed 0 did not"):
        measure.paired_difference(one, other)


def test_a_stage_is_made_once_and_whole(measure, tmp_path, capsys):
    def fail(folder):
        folder.mkdir()
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        measure.once(tmp_path / "stage", fail)
    assert not (tmp_path / "stage").exists()
    assert measure.once(tmp_path / "stage", lambda folder: folder.mkdir()) == tmp_path / "stage"
    measure.once(tmp_path / "stage", fail)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rows", "other-bodies-5"], "--arms must be given"),
        (["--rows", "other-bodies-5", "--arms", "arms"], "--arms_tokenizer must be given"),
        (["--rows", "none-100", "--demonstrations", "20"], "--demonstrations must be as many"),
        (["--finetuning_steps", "9"], "holds another run, whose `finetuning_steps` is 800 instead of 9"),
    ],
)
def test_bad_input(arguments, capsys, flags, message):
    arguments("--rows", "none-5")
    with pytest.raises(SystemExit):
        arguments(*flags)
    assert message in capsys.readouterr().err


def test_rows_and_seeds_join_a_folder_and_arms_are_asked_after_where_they_are_used(arguments, capsys):
    arms = ("--arms", "arms", "--arms_tokenizer", "tokenizer")
    arguments("--rows", "none-5")
    arguments("--rows", "ac3-1", "--seeds", "7", "--evaluation_seed", "1")
    arguments("--rows", "other-bodies-5", *arms)
    arguments("--rows", "ac3-5", "--arms", "others")
    with pytest.raises(SystemExit):
        arguments("--rows", "other-bodies-5", *arms[:2], "--arms_tokenizer", "another")
    assert "whose `arms_tokenizer` is 'tokenizer' instead of 'another'" in capsys.readouterr().err
