"""On which line of a TOML text each key stands (tomllib does not tell)."""

import tomllib
from collections.abc import Iterator
from typing import Final

KeyPath = tuple[str, ...]

#: Ours has three levels; what is deeper is a mistake that is named further up.
_DEEPEST: Final = 8


def lines_of(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key and table of a valid TOML text.

    A statement ends where the lines since the last one are TOML by themselves: that way strings
    and arrays over many lines need no parser of our own.
    """
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    chunk: list[str] = []
    start = 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        chunk.append(line)
        try:
            statement = tomllib.loads("\n".join(chunk))
        except ValueError:
            continue
        paths = list(_paths(statement))
        if chunk[0].lstrip().startswith("["):
            table = paths[-1]
            paths = [table[: n + 1] for n in range(len(table))]
        else:
            paths = [table + path for path in paths]
        for path in paths:
            found.setdefault(path, start)
        chunk, start = [], number + 1
    return found


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """The line of a key, or of the nearest thing around it; 1 for the file as a whole."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return 1


def _paths(value: object, at: KeyPath = ()) -> Iterator[KeyPath]:
    if len(at) >= _DEEPEST:
        return
    if isinstance(value, list):  # an array of tables: its key is all that we name
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*at, key)
            yield from _paths(inner, (*at, key))
