"""All command lines under one name, and examples that are valid."""

import shlex
import sys
from collections.abc import Iterator, Mapping

import pytest

import agents.commands
import benchmarks.__main__
import prep.commands
from jaxsim import console
from jaxsim.cli import _description, _parse, example_of
from jaxsim.doctor import run_doctor


def leaves(commands, prog) -> Iterator[tuple[str, object]]:
    for name, command in commands.items():
        if isinstance(command, Mapping):
            yield from leaves(command, f"{prog} {name}")
        else:
            yield f"{prog} {name}", command


COMMANDS = {
    **dict(leaves({"doctor": run_doctor}, "jaxsim")),
    **dict(leaves(agents.commands.COMMANDS, "python -m agents")),
    **dict(leaves(prep.commands.COMMANDS, "python -m prep")),
    **dict(leaves(benchmarks.__main__.COMMANDS, "python -m benchmarks")),
}


def test_every_command_has_an_example_that_it_takes():
    assert len(COMMANDS) > 30
    for prog, command in COMMANDS.items():
        words = example_of(command)
        assert words is not None, f"{prog}: no example in the docstring"
        _parse(command, prog, shlex.split(words))  # an InputError if an option does not exist
        assert f"Example: {prog} {words}" in _description(command, prog)


def output_of(args, capsys):
    with pytest.raises(SystemExit) as stop:
        console.run(args)
    return stop.value.code, *capsys.readouterr()


def test_the_usage_names_the_commands_of_agents(capsys):
    for args, code in ((["--help"], 0), ([], 2)):
        assert output_of(args, capsys)[:2] == (code, console._USAGE + "\n")
    for name in (*agents.commands.COMMANDS, "doctor", "prep", "benchmarks"):
        assert name in console._USAGE


@pytest.mark.parametrize(
    ("args", "usage"),
    [
        (["train", "ppo", "--help"], "usage: jaxsim train ppo"),
        (["prep", "build", "--help"], "usage: jaxsim prep build"),
        (["prep"], "usage: jaxsim prep COMMAND"),
        (["benchmarks", "seeds", "--help"], "usage: jaxsim benchmarks seeds"),
    ],
)
def test_commands_are_those_of_the_packages(args, usage, capsys):
    _, out, _ = output_of(args, capsys)
    assert out.startswith(usage)


def test_an_unknown_command_is_one_line(capsys):
    code, out, err = output_of(["tain"], capsys)
    assert (code, out) == (2, "")
    assert err.startswith(
        "error: jaxsim: unknown command 'tain'; known: doctor, prep, benchmarks, train"
    )


def test_benchmarks_are_in_the_repository_only(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "benchmarks", None)  # as if it were not there
    monkeypatch.delitem(sys.modules, "benchmarks.__main__")

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="benchmarks")

    monkeypatch.setattr(console.importlib, "import_module", missing)
    code, out, err = output_of(["benchmarks", "table2"], capsys)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "clone the repository" in err
