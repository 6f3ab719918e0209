"""Whether names and globs of interfaces can be some, and whether two of them mean the same one."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from odm_agent.config.check_prefixes import can_be_interface
from odm_agent.config.problems import Problem
from odm_agent.policy.globs import is_glob

#: The longest glob; a name has 15 bytes (IFNAMSIZ), a set of characters takes some more.
_LONGEST: Final = 64


def check_pattern(where: tuple[str, ...], pattern: str) -> Iterator[Problem]:
    """Whether packets could leave by an interface of a name, or by one that fits a glob."""
    if not is_glob(pattern):
        if not can_be_interface(pattern):
            yield Problem(
                where,
                f"{pattern!r} cannot be an interface; use its name as `ip link` shows it (1 to 15"
                ' bytes), or a glob like "wl*"',
            )
        elif pattern == "lo":
            yield Problem(where, "nothing leaves by lo; name the interface towards a gateway")
        return
    odd = any(c in "/:" or c.isspace() or not c.isprintable() for c in pattern)
    if odd or len(pattern.encode()) > _LONGEST:
        yield Problem(
            where,
            f"{pattern[:_LONGEST]!r} fits no interface's name; use a glob of such names, like"
            ' "wl*" or "enp[0-9]*"',
        )
    elif not pattern.strip("*"):
        yield Problem(
            where,
            f"{pattern!r} fits every interface, bridges and tunnels of others too; use a glob that"
            ' says which kind is meant, like "wl*" or "en*"',
        )


def meet(one: str, other: str) -> bool:
    """Whether two names or globs surely have a name in common."""
    return one == other or fnmatchcase(one, other) or fnmatchcase(other, one)
