"""Typed prefixes that stand in the configuration: grants that never end."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from odm_agent.config.classes import limits_of
from odm_agent.config.schema import Config, PrefixConfig, UplinkConfig
from odm_agent.config.terms import (
    is_by_class,
    is_per_socket,
    seats_of,
    terms_of,
    wander_of,
    with_room_for_classes,
)
from odm_agent.config.values import gateway_of, network_of, range_of, spans_of
from odm_agent.core.clock import Moment
from odm_agent.core.effects import Request
from odm_agent.core.events import Failed, Failure, Granted, Withdrawn
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.model import (
    ANY,
    TYPES,
    AddressType,
    Family,
    Limit,
    Placement,
    Seat,
    TypedPrefix,
)
from odm_agent.sources.base import Configured, Input, Output, Resumed


class StaticSource:
    """Gives what the configuration names, and nothing on request."""

    name = "static"

    def __init__(self) -> None:
        """Nothing is configured yet."""
        self._given: dict[str, GrantKey] = {}
        self._wants: frozenset[Want] = frozenset()

    def step(self, given: Input, now: Moment) -> Sequence[Output]:
        """A configuration replaces the one before: what is not in it any more is withdrawn."""
        match given:
            case Configured(prefixes):
                before, self._given = self._given, {p.name: _key(p.name) for p in prefixes}
                self._wants = frozenset((p.type, p.family) for p in prefixes)
                gone = [key for name, key in before.items() if name not in self._given]
                return [
                    *(Withdrawn(key) for key in gone),
                    *(Granted(Grant(self._given[p.name], p)) for p in prefixes),
                ]
            case Resumed(leases):
                self._given = {each.grant.prefix.name: each.grant.key for each in leases}
                return []
            case Request(want):
                other = "other " if want in self._wants else ""
                cause = f"no {other}IPv{want[1]} prefix for {want[0].word} is configured"
                return [Failed(want, cause, Failure.UNSUPPORTED)]
            case _:
                return []

    def deadline(self) -> float | None:
        """Never: a configuration changes by reading it again only."""
        return None


def _key(name: str) -> GrantKey:
    return GrantKey(StaticSource.name, name)


def typed_prefixes(
    config: Config,
    id_of: Callable[[str], int],
    by_interface: Collection[str] = (),
    class_ids: Mapping[str, int] = MappingProxyType({}),
) -> tuple[TypedPrefix, ...]:
    """The prefixes of a checked configuration, in its order; `id_of` gives each name its number.

    `class_ids` are those of the classes, by name. `by_interface` are the names of prefixes whose
    first addresses were made with the interface's.
    """
    limits = [
        limit
        for section in config.classes.values()
        if section.mode != "off"
        for limit in limits_of(section)
    ]
    prefixes = [
        replace(
            _typed(
                name,
                with_room_for_classes(config, prefix),
                id_of(name),
                order,
                name in by_interface,
                () if is_by_class(prefix) else limits,
            ),
            seats=_seats(name, prefix, config, id_of, class_ids),
        )
        for order, (name, prefix) in enumerate(config.prefixes.items())
    ]
    uplinks = [
        typed
        for order, (name, uplink) in enumerate(config.uplinks.items(), start=len(prefixes))
        for typed in _managed(name, uplink, id_of, order)
    ]
    return (*prefixes, *uplinks)


def _seats(
    name: str,
    prefix: PrefixConfig,
    config: Config,
    id_of: Callable[[str], int],
    class_ids: Mapping[str, int],
) -> tuple[Seat, ...]:
    """With their numbers. No prefix of the configuration can be called so."""
    return tuple(
        replace(
            seat,
            class_id=class_ids[seat.class_name],
            number=id_of(f"{name}/{seat.class_name}"),
        )
        for seat in seats_of(config, with_room_for_classes(config, prefix))
    )


def _managed(
    name: str, uplink: UplinkConfig, id_of: Callable[[str], int], order: int
) -> Iterator[TypedPrefix]:
    """What an uplink has of each IP version, whatever that is at the moment, with one mark.

    Where its routers may name types, what it has of each other one is a row of its own. No prefix
    of the configuration can be called so.
    """
    first = id_of(f"{name}/ipv4")
    for family, id_ in ((Family.IPV4, first), (Family.IPV6, id_of(f"{name}/ipv6"))):
        typed = _of_family(f"{name}/ipv{family}", uplink, family, id_, first, order)
        yield typed
    if uplink.advertised_types is not None:
        for type_ in TYPES:
            if type_ is not typed.type:
                row = f"{name}/{type_.word}"
                yield replace(typed, id=id_of(row), name=row, type=type_, hinted=True, marked_as=0)


def _of_family(
    name: str, uplink: UplinkConfig, family: Family, id_: int, marked_as: int, order: int
) -> TypedPrefix:
    return TypedPrefix(
        id=id_,
        name=name,
        type=AddressType.from_word(uplink.type),
        network=ANY[family],
        interface=uplink.interface,
        gateway=None,
        placement=Placement.MANAGED,
        spans=(),
        preference=uplink.preference,
        order=order,
        learned_gateway=True,
        pattern=uplink.interface,
        exclusive=uplink.exclusive,
        marked_as=marked_as,
    )


def _typed(
    name: str,
    prefix: PrefixConfig,
    id_: int,
    order: int,
    by_interface: bool,
    limits: Iterable[Limit],
) -> TypedPrefix:
    type_ = AddressType.from_word(prefix.type)
    return TypedPrefix(
        id=id_,
        name=name,
        type=type_,
        network=network_of(prefix),
        interface=prefix.interface,
        gateway=gateway_of(prefix),
        placement=Placement(prefix.placement),
        spans=spans_of(prefix),
        pool=prefix.pool,
        range=range_of(prefix),
        preference=prefix.preference,
        untyped_allowed=prefix.untyped == "allow",
        forwarded=prefix.forwarded == "allow",
        order=order,
        net_iface=prefix.interface if by_interface else "",
        terms=terms_of(prefix, (limit for limit in limits if limit.type is type_)),
        per_socket=is_per_socket(prefix),
        wander_s=wander_of(prefix),
        by_class=is_by_class(prefix),
    )
