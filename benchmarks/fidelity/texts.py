"""Estimates as text."""

from benchmarks.fidelity.bootstrap import Estimate

_NOTHING = "-"


def number(estimate: Estimate | None, form: str = ".3f") -> str:
    """The value of an estimate; a dash if there is none."""
    if estimate is None or estimate["value"] is None:
        return _NOTHING
    return format(estimate["value"], form)


def interval(estimate: Estimate | None, form: str = ".3f") -> str:
    """The ends of the interval of an estimate; a dash if there is none."""
    if estimate is None or estimate["low"] is None or estimate["high"] is None:
        return _NOTHING
    return f"{estimate['low']:{form}} to {estimate['high']:{form}}"


def with_interval(estimate: Estimate | None, form: str = ".3f") -> str:
    """The value of an estimate with its interval in brackets, if it has one."""
    ends = interval(estimate, form)
    return number(estimate, form) + ("" if ends == _NOTHING else f" ({ends})")
