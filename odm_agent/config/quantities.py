"""Durations and numbers of bytes as people write them; all are integers, nothing is rounded."""

import re
from typing import Final

_SECONDS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)
_BYTES: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE: Final = re.compile(r"(\d+) ?([A-Za-z]+)", re.ASCII)
_PERCENT: Final = re.compile(r"(\d{1,3})%", re.ASCII)
#: A century: whoever writes more has meant something else.
LONGEST_S: Final = 100 * 365 * 86400
LARGEST: Final = 10**18
#: More digits than a number in range has; no more than these are read.
_DIGITS: Final = 20


def seconds(text: str) -> int:
    """A duration in seconds, e.g. of "90s", "15m", "1h30m", "7d"; ValueError says what is wrong."""
    found = _DURATION.fullmatch(text)
    if not found or not text:
        why = "it has no unit" if text.isdecimal() else "it is no duration"
        raise ValueError(f'{_quoted(text)}: {why}; write it like "90s", "15m", "1h30m" or "7d"')
    parts = zip(found.groups(), _SECONDS.values(), strict=True)
    whole = sum(_whole(part) * each for part, each in parts if part)
    if not 0 < whole <= LONGEST_S:
        raise ValueError(f"{_quoted(text)} is out of range; use 1s to {LONGEST_S // 86400}d")
    return whole


def number_of_bytes(text: str) -> int:
    """A number of bytes, e.g. of "500MB" or "10GiB"; ValueError says what is wrong with it."""
    found = _SIZE.fullmatch(text)
    if not found or found[2] not in _BYTES:
        why = "it has no unit" if text.isdecimal() else "it is no number of bytes"
        raise ValueError(f'{_quoted(text)}: {why}; write it like "500MB", "10GB" or "2GiB"')
    whole = _whole(found[1]) * _BYTES[found[2]]
    if not 0 < whole <= LARGEST:
        raise ValueError(f"{_quoted(text)} is out of range; use 1B to 1000000TB")
    return whole


def percent(text: str) -> int:
    """A part in percent, e.g. of "80%"; ValueError says what is wrong with it."""
    found = _PERCENT.fullmatch(text)
    if not found or not 0 < int(found[1]) <= 100:
        why = "is no part of a whole"
        raise ValueError(f'{_quoted(text)} {why}; write it like "80%", at most "100%"')
    return int(found[1])


def _whole(digits: str) -> int:
    """Their number; of too many digits, one that is out of any range."""
    return int(digits.lstrip("0")[:_DIGITS] or "0")


def _quoted(text: str) -> str:
    """What was written, or its beginning, for a message."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
