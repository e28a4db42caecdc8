"""How long a server asks to wait, as the headers of its answers say."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_REMAINING, _RESET = "x-ratelimit-remaining", "x-ratelimit-reset"
_DURATION = re.compile(
    r"(?:(?P<d>\d+)d)?(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?"
)
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3}
_EPOCH_S, _EPOCH_MS = 1e9, 1e12  # larger numbers are no durations but times since 1970


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait before a refused request is sent again; None if the server does not say.

    Args:
        headers: of a response, found whatever their case; `retry-after-ms` or `retry-after`, which is a number
            of seconds or a date.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1e3
    value = headers.get("retry-after", "")
    seconds = _seconds(value)
    return _until_date(value) if seconds is None else seconds


def until_reset(headers: Mapping[str, str]) -> float:
    """Seconds until the server takes requests again; 0 if it does so now, or does not say.

    Args:
        headers: of a response; where an `x-ratelimit-remaining-*` is 0, the `x-ratelimit-reset-*` of the same
            name says when it is filled up.
    """
    waits = [0.0]
    for name, remaining in headers.items():
        if name.lower().startswith(_REMAINING) and _number(remaining) == 0:
            reset = headers.get(_RESET + name[len(_REMAINING) :], "")
            waits.append(_seconds(reset) or 0.0)
    return max(waits)


def _seconds(text: str) -> float | None:
    """Read 6, 1.5s, 20ms, 1m30s, or a time since 1970 in seconds or milliseconds."""
    number = _number(text)
    if number is not None:
        epoch = number / 1e3 if number >= _EPOCH_MS else number
        return max(epoch - time.time(), 0.0) if number >= _EPOCH_S else number
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not any(match.groups()):
        return None
    return sum(float(value) * _UNITS[unit] for unit, value in match.groupdict("0").items())


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\s*\d{1,15}(\.\d+)?\s*", text) else None


def _until_date(text: str) -> float | None:
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None
