"""The command `jaxsim`: all command lines of the project under one name, and `jaxsim doctor`.

`jaxsim prep build ml-100k` is `python -m prep build ml-100k`; `jaxsim train ppo` is `python -m agents train ppo`.
"""

import importlib
import sys
from typing import Any

_USAGE = """\
usage: jaxsim COMMAND ...

An LLM-powered user simulator for recommender systems.

commands:
  doctor      show versions, devices, datasets, and what is missing
  prep        prepare datasets: build, convert, annotate, replies, embed
  train       train a recommender on the simulator, and evaluate it beside the baselines
  evaluate, compare, log, report
              what agents have learned, and what they do
  benchmarks  measure how realistic and how fast the simulator is (in a clone of the repository)

options of a command: jaxsim COMMAND --help"""
# The names below which a module's commands stand. All other names are commands of `agents`.
_GROUPS = {"prep": "prep.commands", "benchmarks": "benchmarks.__main__"}


def run(args: list[str] | None = None) -> None:
    """Run the command line with `args`, by default those of the process.

    Raises:
        SystemExit: see `jaxsim.cli.main`.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE)
        raise SystemExit(0 if words else 2)
    try:
        # Imported here, so that Ctrl-C is one line even while the libraries load, which takes seconds.
        from jaxsim.cli import main

        commands = _commands_for(words[0])
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    main(commands, prog="jaxsim", description="", args=args)


def _commands_for(word: str) -> dict[str, Any]:
    """The commands among which the first word of a command line chooses."""
    from jaxsim.doctor import run_doctor

    if word == "doctor":
        return {"doctor": run_doctor}
    if word not in _GROUPS:
        return {"doctor": run_doctor, **dict.fromkeys(_GROUPS), **_commands_of("agents.commands")}
    try:
        return {word: _commands_of(_GROUPS[word])}
    except ModuleNotFoundError as error:
        package = _GROUPS[word].partition(".")[0]
        if error.name != package:
            raise
        print(
            f"error: {package} is not installed: it is not in the package; clone the repository, "
            "and run the command there",
            file=sys.stderr,
        )
        raise SystemExit(2) from None


def _commands_of(module: str) -> dict[str, Any]:
    commands: dict[str, Any] = importlib.import_module(module).COMMANDS
    return commands
