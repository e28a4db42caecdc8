"""`python -m jaxsim`, which is the command `jaxsim`; see `jaxsim.console`."""

from jaxsim.console import run

if __name__ == "__main__":
    run()
