"""Application classes of the configuration as what the maps and the agent work with."""

from collections.abc import Callable, Iterable, Iterator

from odm_agent.config.quantities import number_of_bytes, seconds
from odm_agent.config.schema import ClassConfig, Config
from odm_agent.core.model import (
    COSTLY,
    UNCLASSIFIED,
    AddressType,
    Cap,
    ClassPolicy,
    Limit,
    Mode,
    SocketKind,
)


def class_policies(config: Config, id_of: Callable[[str], int]) -> dict[int, ClassPolicy]:
    """The classes of a checked configuration, in its order, after that of unclassified sockets.

    `id_of` gives each name its id, 1 or more.
    """
    unclassified = ClassPolicy(
        id=UNCLASSIFIED,
        name="unclassified",
        mode=_mode(config.unclassified.mode),
        refuse=_kinds(config.unclassified.refuse),
    )
    policies = [_policy(id_of(name), name, each) for name, each in config.classes.items()]
    return {policy.id: policy for policy in [unclassified, *policies]}


def _policy(id_: int, name: str, section: ClassConfig) -> ClassPolicy:
    allow = frozenset(AddressType.from_word(word) for word in section.allow)
    default = AddressType.from_word(section.default) if section.default else None
    return ClassPolicy(
        id=id_,
        name=name,
        allow=allow,
        default=default or AddressType.UNSPECIFIED,
        mode=_mode(section.mode),
        strict=section.strict,
        fail_closed=_fail_closed(section, allow),
        cgroups=tuple(section.cgroups),
        delegated=section.delegated,
        refuse=_kinds(section.refuse),
        caps=frozenset(
            Cap(AddressType.from_word(word), cap.sockets or 0, cap.requests_per_minute or 0)
            for word, cap in section.caps.items()
        ),
        limits=frozenset(limits_of(section)),
        ends_on_handover=section.on_handover == "end",
        follows_by_mptcp=section.mptcp == "endpoints",
    )


def limits_of(section: ClassConfig) -> Iterator[Limit]:
    """How long addresses serve a class, whose entry is checked; ValueError says what is wrong."""
    for word, each in section.lifetimes.items():
        yield Limit(
            AddressType.from_word(word),
            seconds(each.preferred) if each.preferred else 0,
            number_of_bytes(each.budget) if each.budget else 0,
        )


def _kinds(words: Iterable[str]) -> frozenset[SocketKind]:
    return frozenset(SocketKind(word) for word in words)


def _fail_closed(section: ClassConfig, allow: frozenset[AddressType]) -> bool:
    """By default, who may use costly addresses must not get past the policy when it is broken."""
    if section.on_failure is None:
        return bool(allow & COSTLY)
    return section.on_failure == "closed"


def _mode(word: str) -> Mode:
    return Mode[word.upper()]
