"""The command-line manners that `prep`, `agents` and `benchmarks` share.

Settings are typed function parameters or dataclasses, turned into options by tyro. A user's mistake is one line
on standard error and exit code 2: never a traceback.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

import tyro

from jaxsim.errors import InputError

Commands = Mapping[str, "Callable[..., Any] | Commands"]


def main(commands: Commands, prog: str, description: str, args: list[str] | None = None) -> None:
    """Run the command that the first words of the command line name.

    Args:
        commands: name to function, or to a further level of commands. A function's typed parameters become its
            options.
        prog: how the program is called, for the usage text.
        description: one sentence on what the program is for.
        args: arguments to parse in place of `sys.argv[1:]`.

    Raises:
        SystemExit: code 2 for unusable input or an unusable file (one line on standard error), 130 when
            interrupted.
    """
    rest = list(sys.argv[1:] if args is None else args)
    try:
        chosen: Callable[..., Any] | Commands = commands
        while isinstance(chosen, Mapping):
            if not rest or rest[0] in ("-h", "--help"):
                print(_usage(chosen, prog, description))
                raise SystemExit(0 if rest else 2)
            name = rest.pop(0)
            if name not in chosen:
                raise InputError(f"{prog}: unknown command {name!r}; known: {', '.join(chosen)}")
            chosen, prog = chosen[name], f"{prog} {name}"
        _parse(chosen, prog, rest)()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {error.filename or 'disk'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _parse(function: Callable[..., Any], prog: str, args: list[str]) -> Callable[[], Any]:
    """The function, bound to the arguments that the command line gives it."""

    @functools.wraps(function)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **kwargs)

    call, unknown = tyro.cli(bind, prog=prog, args=args, return_unknown_args=True)
    if unknown:
        options = tyro.extras.get_parser(bind)._option_string_actions
        known = ", ".join(name for name in options if name.startswith("--"))
        raise InputError(f"{prog}: unknown option {unknown[0]!r}; known: {known}")
    return call


def _usage(commands: Commands, prog: str, description: str) -> str:
    lines = [f"usage: {prog} COMMAND ...", "", description, "", "commands:"]
    for name, command in commands.items():
        summary = f"{' | '.join(command)}" if isinstance(command, Mapping) else _summary(command)
        lines.append(f"  {name:12s} {summary}")
    return "\n".join([*lines, "", f"options of a command: {prog} COMMAND --help"])


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
