"""How long a prefix's addresses serve, and how often another prefix serves first, as its entry in
the configuration says.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import msgspec

from odm_agent.config.classes import limits_of
from odm_agent.config.quantities import number_of_bytes, percent, seconds
from odm_agent.config.schema import Config, PrefixConfig
from odm_agent.config.values import network_of, room
from odm_agent.core.lifetimes import Terms
from odm_agent.core.model import Limit, Seat, is_one_lease

#: Types that are renewed without being asked (RFC 8653, section 5), and how often: as long as a
#: temporary address is preferred by default (RFC 8981, section 3.8).
RENEWED: Final = ("nonpersistent", "graceful-replacement")
RENEWED_S: Final = 86400
NEVER: Final = "never"
#: The part of a budget at which a successor is made, where the entry says nothing.
WARNED: Final = "80%"


def is_per_socket(prefix: PrefixConfig) -> bool:
    """Whether sockets are to have addresses of their own."""
    return prefix.sharing == "socket"


def is_by_class(prefix: PrefixConfig) -> bool:
    """Whether classes are to have addresses of their own."""
    return prefix.sharing == "class"


def classes_of(config: Config, prefix: PrefixConfig) -> list[str]:
    """The classes that may use the prefix's type, in the order of the file."""
    return [
        name
        for name, section in config.classes.items()
        if prefix.type in section.allow and section.mode != "off"
    ]


def with_room_for_classes(config: Config, prefix: PrefixConfig) -> PrefixConfig:
    """An entry whose pool is as large as it has to be: where each class has an address of its own,
    of as many as there are classes.
    """
    if not is_by_class(prefix):
        return prefix
    return msgspec.structs.replace(prefix, pool=max(1, len(classes_of(config, prefix))))


def seats_of(config: Config, prefix: PrefixConfig) -> tuple[Seat, ...]:
    """What each class has in a checked entry, without numbers; none where addresses are shared.

    Only its own lifetime holds for a class's own address.
    """
    if not is_by_class(prefix):
        return ()
    return tuple(
        Seat(
            name,
            terms=terms_of(
                prefix,
                (e for e in limits_of(config.classes[name]) if e.type.word == prefix.type),
            ),
        )
        for name in classes_of(config, prefix)
    )


def ends_as_one(prefix: PrefixConfig) -> bool:
    """Whether the addresses of a prefix end together, with no successor."""
    return not is_by_class(prefix) and is_one_lease(prefix.pool, is_per_socket(prefix))


def has_successor(prefix: PrefixConfig) -> bool:
    """Whether the prefix can give another address while its pool is in use."""
    return not ends_as_one(prefix) and room(prefix, network_of(prefix)) > prefix.pool


def terms_of(prefix: PrefixConfig, limits: Iterable[Limit] = ()) -> Terms:
    """The terms of a checked entry; ValueError says what is wrong with one that is not.

    `limits` are those of the classes that share its addresses: the shortest one holds for all.
    """
    terms = _terms(prefix)
    for limit in limits if has_successor(prefix) else ():
        terms = _limited(terms, limit, prefix)
    return terms


def _limited(terms: Terms, limit: Limit, prefix: PrefixConfig) -> Terms:
    if limit.longest_s:
        ends = (limit.longest_s, terms.preferred_s, terms.valid_s)
        terms = replace(terms, preferred_s=min(each for each in ends if each is not None))
    if limit.bytes:
        budget = limit.bytes if terms.budget is None else min(limit.bytes, terms.budget)
        terms = replace(terms, budget=budget, warn=_warn(budget, prefix))
    return terms


def _terms(prefix: PrefixConfig) -> Terms:
    valid_s = _or_none(prefix.valid)
    rotate_s: int | None = None
    if prefix.rotate is not None:
        rotate_s = None if prefix.rotate == NEVER else seconds(prefix.rotate)
    elif prefix.type in RENEWED and has_successor(prefix):
        rotate_s = RENEWED_S if valid_s is None else min(RENEWED_S, valid_s // 2)
    budget = None if prefix.budget is None else number_of_bytes(prefix.budget)
    free = room(prefix, network_of(prefix)) - prefix.pool - 1
    return Terms(
        preferred_s=_or_none(prefix.preferred),
        valid_s=valid_s,
        rotate_s=rotate_s,
        budget=budget,
        warn=None if budget is None else _warn(budget, prefix),
        hard=prefix.hard,
        linger=max(1, min(max(prefix.linger, prefix.pool), free)),
        reuse_s=_or_none(prefix.reuse) or 0,
    )


def wander_of(prefix: PrefixConfig) -> int | None:
    """How often another prefix stands first (seconds), of a checked entry; None: it stays."""
    return _or_none(prefix.wander)


def _warn(budget: int, prefix: PrefixConfig) -> int:
    return max(1, budget * percent(prefix.warn or WARNED) // 100)


def _or_none(duration: str | None) -> int | None:
    return None if duration is None else seconds(duration)
