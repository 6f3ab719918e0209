"""Text of others, made fit for people and programs: the one place that escapes.

The kernel gives names as bytes. In Python, bytes that are no UTF-8 stand as lone surrogates, so
that a name still matches its pattern and can be looked up. Names are kept so until they leave: in
an answer, a log line, a notification, on a terminal.
"""

import os
import re
from pathlib import Path
from typing import Any, Final

#: The surrogates that stand for single bytes (PEP 383).
_BYTES: Final = range(0xDC80, 0xDD00)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def kernel_lines(path: Path) -> list[str]:
    """The lines of a file in /proc in which others' names stand as the bytes that they are.

    Raises OSError.
    """
    return os.fsdecode(path.read_bytes()).split("\n")  # splitlines() knows more line ends


def mount_point(field: str) -> str:
    """A path as it stands in /proc/PID/mountinfo, where blanks are octal numbers."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def printable(name: str) -> str:
    r"""A name with all that is not printable escaped: `\xff`, `\u202e`; it is one line.

    A name that is printable stays as it is, a backslash in it, too.
    """
    if name.isprintable():
        return name
    return "".join(each if each.isprintable() else _escaped(each) for each in name)


def printable_lines(text: str) -> str:
    """The same for a text of our own, which may have many lines."""
    if text.isprintable():
        return text
    return "\n".join(map(printable, text.split("\n")))


def printable_values(value: Any) -> Any:
    """The same for every text in lists and dictionaries (keys, too) that JSON is made of."""
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, dict):
        return {printable_values(key): printable_values(each) for key, each in value.items()}
    if isinstance(value, list):
        return [printable_values(each) for each in value]
    return value


def _escaped(character: str) -> str:
    code = ord(character)
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def bar(used: float, whole: float, width: int = 10) -> str:
    """How much of something is used, e.g. `####------`; never full before it is."""
    filled = width if used >= whole else int(width * used / whole)
    return "#" * filled + "-" * (width - filled)


def bytes_words(count: int) -> str:
    """A number of bytes for people, in the units of the configuration: `12.3 MB`."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def duration_words(seconds: float) -> str:
    """A duration for people, in its two largest units: `1d 4h`, `12m 5s`."""
    left, words = int(seconds), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        if left >= size:
            words.append(f"{left // size}{unit}")
            left %= size
    return " ".join(words[:2]) or "0s"
