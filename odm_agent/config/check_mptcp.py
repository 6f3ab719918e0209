"""Whether classes whose MPTCP connections are to follow a handover can have that."""

from collections.abc import Iterator
from typing import Final

from odm_agent.config.problems import Problem
from odm_agent.config.schema import ClassConfig, Config
from odm_agent.core.handover import waits
from odm_agent.core.model import TYPES

#: The types whose addresses are given up by a handover.
_GIVEN_UP: Final = tuple(type_.word for type_ in TYPES if not waits(type_))


def check_mptcp(config: Config) -> list[Problem]:
    """All problems of `mptcp`."""
    wanting = {name: each for name, each in config.classes.items() if each.mptcp is not None}
    found = [problem for name, each in wanting.items() for problem in _class(name, each)]
    return [*found, *_lenient(config)] if wanting else found


def _class(name: str, section: ClassConfig) -> Iterator[Problem]:
    where = ("classes", name, "mptcp")
    if not set(section.allow).intersection(_GIVEN_UP):
        yield Problem(
            where,
            f"only addresses of these types are followed by others: {', '.join(_GIVEN_UP)}; allow"
            " one of them to the class, or leave this out",
        )
    if "mptcp" in section.refuse:
        yield Problem(where, "the class is refused MPTCP sockets; leave one of the two out")
    if section.caps or section.lifetimes:
        yield Problem(
            where,
            "subflows that the kernel opens can't be told apart from the class's own sockets by"
            " caps and lifetimes; leave these out, or this",
        )


def _lenient(config: Config) -> Iterator[Problem]:
    """An endpoint is for all connections of the host: what only counts would let them go out."""
    modes: dict[tuple[str, ...], str] = {("unclassified",): config.unclassified.mode}
    modes |= {("classes", name): each.mode for name, each in config.classes.items()}
    for where, mode in modes.items():
        if mode != "enforce":
            yield Problem(
                (*where, "mode"),
                f"{mode} would let MPTCP connections leave by the endpoints of classes with"
                ' mptcp = "endpoints"; enforce, or leave that out',
            )
