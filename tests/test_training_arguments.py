# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, field, fields

import pytest

from cyclemimic.training_arguments import parse_training_arguments, show_own_help


@dataclass
class ToyArguments:
    output_dir: str = field(metadata={"help": "where results go"})
    learning_rate: float = 1e-3
    max_steps: int = 100
    shuffle: bool = True
    tasks: list[str] = field(default_factory=lambda: ["reach"])
    run_name: str | None = "toy"

    def __post_init__(self):
        if self.max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1, got {self.max_steps}.")


@dataclass
class ToyDataArguments:
    data_dir: str = "data"


def parse(*argv: str) -> ToyArguments:
    return parse_training_arguments([ToyArguments, ToyDataArguments], argv, prog="cyclemimic toy")[0]


@pytest.fixture
def config_file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "toy.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_flags_alone():
    arguments = parse("--output_dir", "out", "--learning-rate", "2e-4", "--no_shuffle", "--tasks", "push", "reach")
    assert arguments == ToyArguments("out", 2e-4, 100, False, ["push", "reach"], "toy")


def test_file_alone(config_file):
    # YAML 1.1 reads `2e-4` as a string; the flag's type makes a number of it.
    text = "output_dir: out\nlearning_rate: 2e-4\nshuffle: false\ntasks: [push, reach]\nrun_name: null\n"
    assert parse("--config", config_file(text)) == ToyArguments("out", 2e-4, 100, False, ["push", "reach"], None)


@pytest.mark.parametrize("joint", [" ", "="])
def test_flags_override_the_file(config_file, joint):
    path = config_file("output_dir: out\nmax_steps: 5\nrun_name: null\nshuffle: false\n")
    arguments = parse("--max_steps", "7", *f"--config{joint}{path}".split(" "), "--shuffle", "--run_name", "x")
    assert arguments == ToyArguments("out", max_steps=7, shuffle=True, run_name="x")


def test_file_fills_every_dataclass(config_file):
    path = config_file("output_dir: out\ndata_dir: videos\n")
    kinds = [ToyArguments, ToyDataArguments]
    assert parse_training_arguments(kinds, ["--config", path])[1] == ToyDataArguments("videos")


def test_empty_list_in_the_file(config_file):
    assert parse("--config", config_file("output_dir: out\ntasks: []\n")).tasks == []


def test_training_arguments_take_numbers_and_mappings(config_file, tmp_path):
    from transformers import TrainingArguments

    path = config_file(
        f"output_dir: {tmp_path}\nuse_cpu: true\nlearning_rate: 1e-4\nlr_scheduler_type: cosine_with_min_lr\n"
        "lr_scheduler_kwargs:\n  min_lr: 1.0e-6\n"
    )
    (arguments,) = parse_training_arguments([TrainingArguments], ["--config", path, "--max_steps", "3"])
    assert arguments.learning_rate == 1e-4
    assert arguments.max_steps == 3
    assert arguments.lr_scheduler_kwargs == {"min_lr": 1e-6}


@pytest.mark.parametrize("kind", ["LatentActionTokenizerTrainingArguments", "CycleMimicTrainingArguments"])
def test_logs_go_to_several_places(kind, config_file, tmp_path):
    import cyclemimic

    path = config_file(f"output_dir: {tmp_path}\nuse_cpu: true\nreport_to: [tensorboard, trackio]\n")
    for flags in (["--config", path], ["--output_dir", str(tmp_path), "--report_to", "tensorboard", "trackio"]):
        (arguments,) = parse_training_arguments([getattr(cyclemimic, kind)], flags)
        assert arguments.report_to == ["tensorboard", "trackio"]
    assert getattr(cyclemimic, kind)(str(tmp_path), report_to="none").report_to == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "output_dir: o\nlearning_rte: 1\n",
            r"toy.yaml: unknown key 'learning_rte' \(did you mean 'learning_rate'\?\)",
        ),
        ("output_dir: o\nxyz: 1\n", "toy.yaml: unknown key 'xyz'$"),
        ("- output_dir\n", "must hold a mapping of argument names to values, got list"),
        ("", "must hold a mapping of argument names to values, got NoneType"),
        ("output_dir: [\n", "toy.yaml is not valid YAML"),
        ("output_dir: o\nmax_steps: 0\n", "`max_steps` must be at least 1, got 0"),
    ],
)
def test_faulty_file(config_file, text, message):
    with pytest.raises(ValueError, match=message):
        parse("--config", config_file(text))


@pytest.mark.parametrize(
    ("text", "argv", "message"),
    [
        ("output_dir: o\nmax_steps: many\n", [], "argument --max_steps/--max-steps: invalid int value: 'many'"),
        ("max_steps: 3\n", [], "the following arguments are required: --output_dir"),
        ("output_dir: o\n", ["--max_step", "3"], "unrecognized argument --max_step (did you mean '--max_steps'?)"),
        ("output_dir: o\n", ["--config"], "argument --config: expected one argument"),
    ],
)
def test_faulty_value(config_file, capsys, text, argv, message):
    with pytest.raises(SystemExit) as exit_:
        parse("--config", config_file(text), *argv)
    assert exit_.value.code == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("cyclemimic toy: error: ") and message in error


def test_absent_file(capsys):
    with pytest.raises(ValueError, match="`config` must be a YAML file, got absent.yaml: No such file or directory"):
        parse("--config", "absent.yaml")


def test_help_lists_the_fields_whatever_the_file(capsys):
    with pytest.raises(SystemExit) as exit_:
        parse("--config", "absent.yaml", "--help")
    assert exit_.value.code == 0
    assert "--learning_rate" in capsys.readouterr().out


def test_help_puts_what_every_trainer_takes_last(capsys):
    from cyclemimic import LatentActionTokenizerTrainingArguments

    with pytest.raises(SystemExit):
        parse_training_arguments([LatentActionTokenizerTrainingArguments, ToyDataArguments], ["--help"])
    own, trainers = capsys.readouterr().out.split("\narguments of transformers' Trainer:\n")
    for flag in ("--data_dir", "--interval_s", "--config"):
        assert f"  {flag} " in own and f"  {flag} " not in trainers
    assert "  --learning_rate " in trainers and "  --learning_rate " not in own


def test_token_has_no_place_in_arguments_that_are_saved(tmp_path):
    from transformers import TrainingArguments

    flags = ["--output_dir", str(tmp_path), "--hub_token", "hf_marked"]
    with pytest.raises(ValueError, match="`hub_token` must be left out") as raised:
        parse_training_arguments([TrainingArguments], flags)
    assert "hf_marked" not in str(raised.value)


@dataclass
class DescribedArguments:
    output_dir: str = field(metadata={"help": "where"})
    tasks: list[str] | None = field(default=None, metadata={"help": "which"})
    share: float = field(default=0.0, metadata={"help": "how much"})
    quietly: bool = field(default=False, metadata={"help": "how"})


def test_own_help(capsys):
    show_own_help([DescribedArguments], ["--share", "1"], "cyclemimic toy", "Plays.")
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit) as exit_:
        show_own_help([DescribedArguments], ["--config", "absent.yaml", "-h"], "cyclemimic toy", "Plays.")
    assert exit_.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "Plays.",
        "--output_dir OUTPUT_DIR where (required)",
        "--tasks TASKS [TASKS ...] which --share",
        "(default: 0.0)",
    ):
        assert part in text
    assert "--help_all lists them" in text


@pytest.mark.parametrize("name", ["LatentActionTokenizerTraining", "CycleMimicTraining"])
def test_own_fields_are_all_that_trainer_lacks(name):
    from transformers import TrainingArguments

    import cyclemimic
    from cyclemimic.trainers import training_fields

    def names(kind):
        return [each.name for each in fields(kind)]

    whole, own = getattr(cyclemimic, f"{name}Arguments"), getattr(training_fields, f"{name}Fields")
    assert [each for each in names(whole) if each not in names(TrainingArguments)] == names(own)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps:", "`max_steps` must have a value, got none; leave out the key for the default"),
        ("tasks: [push, null]", "`tasks` must have a value, got none"),
        ("max_steps: 3\nmax_steps: 4", "'max_steps' stands in it more than once"),
    ],
)
def test_a_value_that_is_missing_or_a_key_that_stands_twice(config_file, text, message):
    with pytest.raises(ValueError, match=message):
        parse("--config", config_file(f"output_dir: out\n{text}\n"))


@pytest.mark.parametrize(
    ("text", "read"),
    [("run_name: 2024_05_01", "20240501"), ("run_name: 1:30", "90"), ("tasks: [push, 1.5]", "1.5")],
)
def test_text_that_yaml_reads_as_a_number_is_asked_for_in_quotes(config_file, text, read):
    name = text.split(":")[0]
    with pytest.raises(ValueError, match=f"`{name}` must be text, got {read}, as YAML reads it; put it in quotes"):
        parse("--config", config_file(f"output_dir: out\n{text}\n"))
    arguments = parse("--config", config_file("output_dir: out\nrun_name: '2024_05_01'\n"))
    assert arguments.run_name == "2024_05_01"


def test_words_that_yaml_takes_for_truth_values(config_file):
    arguments = parse("--config", config_file("output_dir: out\nrun_name: no\nshuffle: no\n"))
    assert (arguments.run_name, arguments.shuffle) == ("no", False)
