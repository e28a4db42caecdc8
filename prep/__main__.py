"""The command line of `python -m prep`; see `prep.commands`."""

import sys


def run(args: list[str] | None = None) -> None:
    """Run the command line with `args`, by default those of the process."""
    try:
        # Here, so that Ctrl-C is one line even while the libraries are loaded, which takes seconds.
        from prep.commands import run as run_command
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    run_command(args)


if __name__ == "__main__":
    run()
