"""A thing that is wrong with a configuration, before anybody knows on which line."""

import re
from dataclasses import dataclass
from typing import Final

#: Names of classes and prefixes: they become labels, folder names and parts of cgroup names.
NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Problem:
    """`message` says what is wrong and what to do; `where` is the key that it is about."""

    where: tuple[str, ...]
    message: str


def check_name(kind: str, name: str) -> list[Problem]:
    """Whether a class or prefix may be called `name`; `kind` is the section, e.g. "classes"."""
    if NAME.fullmatch(name):
        return []
    advice = "use 1 to 32 of a-z, 0-9, - and _, beginning with a letter or digit"
    return [Problem((kind, name), f"the name {name!r} cannot be used; {advice}")]
