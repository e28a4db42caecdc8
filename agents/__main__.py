"""The command line of `python -m agents`; see `agents.commands`."""

import sys


def run(args: list[str] | None = None) -> None:
    """Run the command line with `args`, by default those of the process."""
    try:
        # Imported here, so that Ctrl-C is one line even while the libraries load, which takes seconds.
        from agents.commands import run as run_command
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    run_command(args)


if __name__ == "__main__":
    run()
