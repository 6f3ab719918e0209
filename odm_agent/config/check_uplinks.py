"""Whether the uplinks of a configuration name interfaces that can be told apart."""

from collections.abc import Iterator
from typing import Final

from odm_agent.config.check_interfaces import check_pattern, meet
from odm_agent.config.problems import Problem, check_name
from odm_agent.config.schema import Config

#: Codes of neighbour discovery options that are nobody's (RFC 4727, section 5.1).
EXPERIMENTAL_OPTIONS: Final = frozenset({253, 254})


def check_uplinks(config: Config) -> list[Problem]:
    """All problems of `[uplinks]`."""
    problems: list[Problem] = []
    for name, uplink in config.uplinks.items():
        problems += check_name("uplinks", name)
        problems += check_pattern(("uplinks", name, "interface"), uplink.interface)
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


def _named_twice(config: Config) -> Iterator[Problem]:
    """An interface of two uplinks, or of one that is exclusive and of an on-link prefix."""
    named = {name: uplink.interface for name, uplink in config.uplinks.items()}
    for place, (name, pattern) in enumerate(named.items()):
        for other in list(named)[:place]:
            if meet(pattern, named[other]):
                yield Problem(
                    ("uplinks", name, "interface"),
                    f"{pattern!r} may be the interface of uplink {other!r}, too; an address has one"
                    " type, name each interface once",
                )
        for prefix_name, prefix in config.prefixes.items():
            if prefix.placement == "on-link" and meet(pattern, prefix.interface):
                yield Problem(
                    ("uplinks", name, "interface"),
                    f"prefix {prefix_name!r} is on-link there: the addresses that others manage lie"
                    " in its network, and would have two types; name another interface, or leave"
                    " one of the two out",
                )
