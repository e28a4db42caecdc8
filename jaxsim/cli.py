"""The command line of `prep`, `agents` and `benchmarks`.

Commands are functions with typed parameters or dataclasses, which tyro turns into options. A user's mistake is one
line on standard error and exit code 2, never a traceback.

The words that name a command are read here, not by tyro's subcommands. tyro builds the options of every command
before it reads the first word. When an option is mistyped it then suggests those of all commands at once, and it
reports an unknown command as an unrecognised option.
"""

import contextlib
import functools
import gc
import inspect
import io
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import jax
import tyro

from jaxsim.compilation_cache import use_compilation_cache
from jaxsim.errors import InputError
from jaxsim.out_of_memory import describe_out_of_memory, is_out_of_memory
from jaxsim.tables import format_table

Commands = Mapping[str, "Callable[..., Any] | Commands"]
_OBJECTS_BETWEEN_COLLECTIONS = 50_000  # Python's own number is 700
_EXAMPLE = "\nExample:\n"
_AGAIN = "no file is left half written; run the same command again"
_LESS_MEMORY = (
    "ask for less at a time (sessions, batches, seeds), or end other programs that use the device"
)


def main(commands: Commands, prog: str, description: str, args: list[str] | None = None) -> None:
    """Run the command that the first words of the command line name.

    Args:
        commands: name to function, or to a further level of commands. A function's typed parameters become its
            options.
        prog: how users call the program, for the usage text.
        description: one sentence on what the program is for.
        args: arguments to parse in place of `sys.argv[1:]`. Then the process is the caller's, and nothing of it is
            changed. Otherwise compiled programs are kept, see `jaxsim.compilation_cache`.

    Raises:
        SystemExit: code 2 for unusable input or an unusable file (one line on standard error), 130 when
            interrupted. The message of a KeyboardInterrupt that a command raises itself says how to go on.
    """
    rest = list(sys.argv[1:] if args is None else args)
    try:
        command: Callable[..., Any] | Commands = commands
        while isinstance(command, Mapping):
            if not rest or rest[0] in ("-h", "--help"):
                print(_usage(command, prog, description))
                raise SystemExit(0 if rest else 2)
            name = rest.pop(0)
            if name not in command:
                raise InputError(f"{prog}: unknown command {name!r}; known: {', '.join(command)}")
            command, prog = command[name], f"{prog} {name}"
        bound = _parse(command, prog, rest)
        if args is None:
            _prepare_process()
        bound()
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"error: {describe_out_of_memory(error)}: {_LESS_MEMORY}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        print(f"error: {error.filename or 'disk'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop if stop.args else _AGAIN}", file=sys.stderr)
        raise SystemExit(130) from None


def _prepare_process() -> None:
    """What makes a command start faster."""
    use_compilation_cache()
    # What the imports made stays to the end, and tracing makes many objects and little garbage. Collections that
    # leave out the one and are rarer during the other save a tenth of the time until a training begins.
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)


def _parse(function: Callable[..., Any], prog: str, args: list[str]) -> Callable[[], Any]:
    """The function, bound to the arguments on the command line.

    Raises:
        InputError: tyro refuses them; its framed message becomes one line.
    """

    # tyro calls what it parses, and would take an error of the command itself for one of its arguments.
    @functools.wraps(function)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **kwargs)

    message, help_text = io.StringIO(), io.StringIO()
    # tyro colours what goes to a terminal, and does not know https://no-color.org.
    plain = contextlib.redirect_stdout(help_text) if os.environ.get("NO_COLOR") else nullcontext()
    try:
        with contextlib.redirect_stderr(message), plain:
            return tyro.cli(bind, prog=prog, args=args, description=_description(function, prog))
    except SystemExit as stop:
        print(help_text.getvalue(), end="")
        if not stop.code:  # --help
            raise
        raise InputError(_one_line(message.getvalue())) from None


def _description(function: Callable[..., Any], prog: str) -> str | None:
    """What `--help` says first: the docstring up to its sections, and its "Example:" as users type it.

    Returns:
        None for a function without an example, which tyro describes by itself.
    """
    words = example_of(function)
    if words is None:
        return None
    text, _, _ = (inspect.getdoc(function) or "").partition(_EXAMPLE)
    return f"{text.strip()}\n\nExample: {prog} {words}"


def example_of(function: Callable[..., Any]) -> str | None:
    """The arguments in the section "Example:" of a command's docstring; None without one."""
    _, found, rest = (inspect.getdoc(function) or "").partition(_EXAMPLE)
    return rest.partition("\n")[0].strip() if found else None


def _one_line(message: str) -> str:
    """The text of a message that tyro prints in a frame: its sections, without title and lines of the frame."""
    sections: list[list[str]] = [[]]
    for line in message.splitlines():
        text = line.strip().strip("│|").strip()
        if text.startswith(("╭", "╰", "+")):  # the frame's top, with the title, and its bottom
            continue
        if set(text) <= set("─-"):  # a rule between sections, or nothing
            sections.append([])
        else:
            sections[-1].append(text)
    return "; ".join(" ".join(lines).rstrip(".") for lines in sections if lines)


def _usage(commands: Commands, prog: str, description: str) -> str:
    rows = [
        (f"  {name}", " | ".join(command) if isinstance(command, Mapping) else _summary(command))
        for name, command in commands.items()
    ]
    table = format_table(("commands:", ""), rows, left=(0, 1))
    options = f"options of a command: {prog} COMMAND --help"
    return "\n".join([f"usage: {prog} COMMAND ...", "", description, "", table, "", options])


def _summary(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n")[0]
