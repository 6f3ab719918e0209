"""Whether the uplinks of a configuration name interfaces that can be told apart."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Final

from odm_agent.config.check_prefixes import can_be_interface
from odm_agent.config.problems import Problem, check_name
from odm_agent.config.schema import Config
from odm_agent.policy.globs import is_glob

#: Codes of neighbour discovery options that are nobody's (RFC 4727, section 5.1).
EXPERIMENTAL_OPTIONS: Final = frozenset({253, 254})
#: The longest glob; a name has 15 bytes (IFNAMSIZ), a set of characters takes some more.
_LONGEST: Final = 64


def check_uplinks(config: Config) -> list[Problem]:
    """All problems of `[uplinks]`."""
    problems: list[Problem] = []
    for name, uplink in config.uplinks.items():
        problems += check_name("uplinks", name)
        problems += _interface(name, uplink.interface)
        problems += _advertised(name, uplink.advertised_types)
    return [*problems, *_named_twice(config)]


def _advertised(name: str, code: int | None) -> Iterator[Problem]:
    if code is not None and code not in EXPERIMENTAL_OPTIONS:
        yield Problem(
            ("uplinks", name, "advertised_types"),
            f"{code} has, or may get, another meaning in router advertisements; no code is assigned"
            " to types of prefixes, so use one of those for experiments, 253 or 254, as the routers"
            " do",
        )


def _interface(name: str, pattern: str) -> Iterator[Problem]:
    where = ("uplinks", name, "interface")
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


def _named_twice(config: Config) -> Iterator[Problem]:
    """An interface of two uplinks, or of one that is exclusive and of an on-link prefix."""
    named = {name: uplink.interface for name, uplink in config.uplinks.items()}
    for place, (name, pattern) in enumerate(named.items()):
        for other in list(named)[:place]:
            if _meet(pattern, named[other]):
                yield Problem(
                    ("uplinks", name, "interface"),
                    f"{pattern!r} may be the interface of uplink {other!r}, too; an address has one"
                    " type, name each interface once",
                )
        for prefix_name, prefix in config.prefixes.items():
            if prefix.placement == "on-link" and _meet(pattern, prefix.interface):
                yield Problem(
                    ("uplinks", name, "interface"),
                    f"prefix {prefix_name!r} is on-link there: the addresses that others manage lie"
                    " in its network, and would have two types; name another interface, or leave"
                    " one of the two out",
                )


def _meet(one: str, other: str) -> bool:
    """Whether two names or globs surely have a name in common."""
    return one == other or fnmatchcase(one, other) or fnmatchcase(other, one)
