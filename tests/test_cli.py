# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import os
from dataclasses import make_dataclass

import pytest

from cyclemimic import cli
from cyclemimic.commands.faults import FaultsFound


@pytest.fixture
def verb(monkeypatch):
    """Makes the given function the verb `toy`."""

    def install(run):
        monkeypatch.setitem(cli.VERBS, "toy", cli.Verb("a toy", lambda argv, prog: (list(argv), prog), run))

    return install


def test_help_lists_every_verb_without_heavy_imports(run_python):
    # One process, so that a module is laid on the first verb that imports it.
    program = """
import contextlib, io, json, sys
from cyclemimic import cli
seen = set()
for verb in ("", *cli.VERBS):
    code = None
    with contextlib.redirect_stdout(io.StringIO()) as text:
        try:
            cli.main([*filter(None, [verb]), "--help"])
        except SystemExit as error:
            code = error.code
    heavy = {"torch", "transformers", "numpy", "PIL"} & set(sys.modules) - seen
    seen |= heavy
    print(json.dumps([verb, code, sorted(heavy), text.getvalue().splitlines()]))
"""
    helps = {}
    for line in run_python(program).stdout.splitlines():
        verb, code, heavy, helps[verb] = json.loads(line)
        assert (code, heavy) == (0, []), verb
    assert list(helps) == ["", *cli.VERBS]
    for verb in cli.VERBS:
        assert any(line.startswith(f"  {verb} ") for line in helps[""])
        assert helps[verb][0].startswith(f"usage: cyclemimic {verb} ")


def test_runs_as_a_module(run_python):
    process = run_python("--version", module="cyclemimic.cli")
    assert process.stdout.startswith("cyclemimic 0.")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "cyclemimic: error: the following arguments are required: VERB"),
        (["dmo"], "invalid choice: 'dmo' (choose from"),
        (["demo", "--quik"], "cyclemimic demo: error: unrecognized argument --quik (did you mean '--quick'?)"),
        (["demo", "--seed", "x"], "cyclemimic demo: error: argument --seed: invalid int value: 'x'"),
    ],
)
def test_faulty_command_line(capsys, argv, message):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_verb_gets_its_arguments_and_prints_what_it_returns(verb, capsys):
    seen = []

    def run(arguments):
        seen.append(arguments)
        return "Saved: x"

    verb(run)
    assert cli.main(["toy", "--debug", "x"]) == 0
    assert seen == [(["--debug", "x"], "cyclemimic toy")]
    assert capsys.readouterr().out == "Saved: x\n"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("`fps` must be\n  positive, got 0"), "`fps` must be positive, got 0"),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.mp4"),
            "No such file or directory: 'a.mp4'",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/x"),
            "no space left on device: out/x; free some disk, or write to another one",
        ),
        # safetensors, and torch.save
        (
            RuntimeError(f"while serializing: {os.strerror(errno.ENOSPC)} (os error 28)"),
            "no space left on device; free some disk, or write to another one",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
            "no space left on device; free some disk, or write to another one",
        ),
    ],
)
def test_bad_input_is_one_line(verb, capsys, monkeypatch, error, message):
    def run(arguments):
        raise error

    verb(run)
    monkeypatch.delenv("CYCLEMIMIC_DEBUG", raising=False)
    assert cli.main(["toy"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cyclemimic toy: error: ")
    assert message in line


def test_faults_found_are_a_report_and_one_line(verb, capsys):
    def run(arguments):
        raise FaultsFound("2 of 9 are broken", "first\nsecond")

    verb(run)
    assert cli.main(["toy"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("first\nsecond\n", "cyclemimic toy: error: 2 of 9 are broken\n")


def test_error_of_a_strict_dataclass_is_one_line(verb, capsys):
    from huggingface_hub.dataclasses import strict

    # Not a class statement: annotations that are strings, as in this file, are not checked.
    config = strict(make_dataclass("Config", [("size", int, 1)]))
    verb(lambda arguments: config(size="big"))
    assert cli.main(["toy"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "'size' expected int, got str" in line


def test_fault_of_the_program_keeps_its_traceback(verb):
    verb(lambda arguments: {}["absent"])
    with pytest.raises(KeyError):
        cli.main(["toy"])


@pytest.mark.parametrize(("flags", "variable"), [(["--debug"], "0"), ([], "1")])
def test_debugging_shows_the_traceback(verb, monkeypatch, flags, variable):
    def run(arguments):
        raise ValueError("bad input")

    verb(run)
    monkeypatch.setenv("CYCLEMIMIC_DEBUG", variable)
    with pytest.raises(ValueError, match="bad input"):
        cli.main([*flags, "toy"])


def test_interruption(verb, capsys):
    def run(arguments):
        raise KeyboardInterrupt

    verb(run)
    assert cli.main(["toy"]) == 130
    assert capsys.readouterr().err == "cyclemimic toy: interrupted\n"
