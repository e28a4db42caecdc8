"""The command line: typed options, and one line for every mistake."""

import re
import subprocess
import sys
from typing import Literal

import pytest

import jaxsim
from jaxsim.cli import main
from tests.paths import ROOT


def test_a_users_mistake_is_one_line_and_exit_code_2(tmp_path, capsys):
    def load(folder: str) -> None:
        jaxsim.load_dataset(folder)

    with pytest.raises(SystemExit) as caught:
        main({"load": load}, "program", "Loads.", ["load", "--folder", str(tmp_path / "no\nwhere")])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_unknown_commands_name_the_known_ones(capsys):
    with pytest.raises(SystemExit) as caught:
        main({"a": {"b": lambda: None}}, "program", "Does.", ["a", "c"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: program a: unknown command 'c'; known: b\n"


def test_commands_get_their_typed_options(capsys):
    def add(first: int, second: int = 2) -> None:
        """Add two numbers."""
        print(first + second)

    main({"add": add}, "program", "Adds.", ["add", "--first", "3"])
    assert capsys.readouterr().out == "5\n"
    with pytest.raises(SystemExit) as caught:
        main({"add": add}, "program", "Adds.", ["--help"])
    assert caught.value.code == 0
    assert "Add two numbers." in capsys.readouterr().out


def test_no_traceback_from_a_real_command_line(tmp_path):
    words = ["train", "dqn", "--dataset", str(tmp_path / "none"), "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "agents", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def repeat(word: str, times: int = 2, sign: Literal["comma", "space"] = "space") -> None:
    """Print a word several times.

    Args:
        word: what to print.
        times: how often, a number whose explanation is so long that tyro breaks it into several lines of text.
        sign: between the words.
    """
    print((", " if sign == "comma" else " ").join([word] * times))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        pytest.param([], "Missing from program repeat: --word", id="missing"),
        pytest.param(["--word"], "Missing value for argument '--word'", id="no value"),
        pytest.param(["--word", "a", "--times", "b"], "--times.*'b'.*--times INT", id="type"),
        pytest.param(["--word", "a", "--sign", "dot"], "'dot'.*'comma', 'space'", id="choice"),
        pytest.param(["--word", "a", "--time", "3"], "--time, 3; .*--times", id="unknown"),
        pytest.param(["--word", "a", "extra"], "extra", id="extra"),
    ],
)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_options_that_tyro_refuses_are_one_line(monkeypatch, capsys, args, words, columns):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as caught:
        main({"repeat": repeat}, "program", "Repeats.", ["repeat", *args])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not set(err) & set("│─╭╮╰╯")
    assert re.search(words, err)
    assert "program repeat --help" in err


def test_an_error_of_the_command_is_not_one_of_its_options(capsys):
    def fail(word: str) -> None:
        raise ValueError(word)

    with pytest.raises(ValueError, match="own"):
        main({"fail": fail}, "program", "Fails.", ["fail", "--word", "own"])


def test_without_a_command_the_usage_lists_them(capsys):
    for args, code in (([], 2), (["--help"], 0)):
        with pytest.raises(SystemExit) as caught:
            main({"repeat": repeat, "more": {"repeat": repeat}}, "program", "Repeats.", args)
        assert caught.value.code == code
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "usage: program COMMAND ..."
        assert "  repeat   Print a word several times." in lines
        assert "  more     repeat" in lines


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ((), "interrupted: no file is left half written; run the same command again\n"),
        (("run it with --resume",), "interrupted: run it with --resume\n"),
    ],
)
def test_an_interrupt_is_one_line_that_says_how_to_go_on(said, line, capsys):
    def wait() -> None:
        raise KeyboardInterrupt(*said)

    with pytest.raises(SystemExit) as caught:
        main({"wait": wait}, "program", "Waits.", ["wait"])
    assert caught.value.code == 130
    assert capsys.readouterr().err == line


def test_no_color_leaves_out_colours(monkeypatch, capsys):
    def count(number: int = 1) -> None:
        """Count."""

    monkeypatch.setenv("TERM", "xterm")
    for value, coloured in (("", True), ("1", False)):
        monkeypatch.setenv("NO_COLOR", value)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        with pytest.raises(SystemExit) as caught:
            main({"count": count}, "program", "Counts.", ["count", "--help"])
        assert caught.value.code == 0
        printed = capsys.readouterr().out
        assert ("\x1b[" in printed) == coloured
        assert "--number" in printed
