"""How the kernel spells a route (linux/rtnetlink.h), and how we read it.

Routes are copied from one table to another, so whatever a route carries must come through whole:
attributes that nobody here understands are kept as bytes.

Nexthop objects are read as the next hops that they stand for, and not used for copies: IPv6 keeps
its cached routes in the object, so that a copy would be answered with the original's source.
"""

import logging
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl import rt_type
from pyroute2.netlink.rtnl.rtmsg import (
    IP6_RT_PRIO_USER,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTNH_F_ONLINK,
    rtmsg,
)

from odm_agent.core.host import Attributes, Hop, Route, RouteKind
from odm_agent.core.model import Family, IPAddress, IPNetwork
from odm_agent.kernel.packed import PackedMessage
from odm_agent.kernel.wire import attribute, attribute_list, number

logger = logging.getLogger(__name__)

#: linux/rtnetlink.h; pyroute2 has no constants for these.
_RTM_F_CLONED: Final = 0x200
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY = 1, 2, 4, 5, 6
_RTA_PREFSRC, _RTA_METRICS, _RTA_MULTIPATH, _RTA_FLOW, _RTA_TABLE = 7, 8, 9, 11, 15
_RTA_VIA, _RTA_PREF, _RTA_ENCAP_TYPE, _RTA_ENCAP, _RTA_NH_ID = 18, 20, 21, 22, 30
#: What is carried as it is. The rest is understood, or is about the moment (lifetimes, counters).
_CARRIED: Final = frozenset({_RTA_METRICS, _RTA_FLOW, _RTA_PREF, _RTA_ENCAP_TYPE, _RTA_ENCAP})
#: struct rtmsg: family, prefix lengths, TOS, table, protocol, scope, type, flags.
_FIXED_PART: Final = struct.Struct("=8BI")
#: struct rtnexthop: length, flags, weight, interface.
_NEXT_HOP: Final = struct.Struct("=HBBi")
_MOST_WEIGHT: Final = 255
#: So many addresses and networks are made once for all the routes that name them: each of main's
#: routes stands again in the table of every prefix.
_KEPT: Final = 32_768
_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_KINDS: Final = {rt_type[kind.value]: kind for kind in RouteKind}


class _Message(PackedMessage):
    fields = rtmsg.fields


def message(route: Route, indexes: Mapping[str, int], protocol: int) -> nlmsg:
    """The message that adds, replaces or removes a route; `indexes` are those of its interfaces."""
    built = _Message()
    built["family"] = _AF[route.family]
    built["proto"] = protocol
    built["type"] = rt_type[route.kind.value]
    built["scope"] = _scope(route)
    built["tos"] = route.tos
    if route.destination is not None:
        built["dst_len"] = route.destination.prefixlen
    if route.gateway is not None:
        built["flags"] = RTNH_F_ONLINK  # a delegated prefix's gateway need not be a neighbour
    built["attrs"] = [*_attributes(route, indexes)]
    return built


def _scope(route: Route) -> int:
    if route.family is Family.IPV4:
        if route.kind is RouteKind.LOCAL:
            return int(RT_SCOPE_HOST)
        if route.kind is RouteKind.UNICAST and route.gateway is None and not route.hops:
            return int(RT_SCOPE_LINK)
    return int(RT_SCOPE_UNIVERSE)


def _attributes(route: Route, indexes: Mapping[str, int]) -> Iterator[tuple[int, bytes]]:
    yield _RTA_TABLE, _u32(route.table)
    if route.destination is not None:
        yield _RTA_DST, route.destination.network_address.packed
    if route.source is not None:
        yield _RTA_PREFSRC, route.source.packed
    if route.metric or route.family is Family.IPV6:
        yield _RTA_PRIORITY, _u32(route.metric)
    if route.hops:
        yield _RTA_MULTIPATH, b"".join(_next_hop(hop, route.family, indexes) for hop in route.hops)
    else:
        if route.interface is not None:
            yield _RTA_OIF, _u32(indexes[route.interface])
        if route.gateway is not None:
            yield _via(route.gateway, route.family)
    yield from route.attributes


def _via(gateway: IPAddress, family: Family) -> tuple[int, bytes]:
    if gateway.version == family:
        return _RTA_GATEWAY, gateway.packed
    # IPv4 by way of an IPv6 neighbour (RFC 8950's data plane).
    return _RTA_VIA, struct.pack("=H", _AF[Family.of(gateway)]) + gateway.packed


def _next_hop(hop: Hop, family: Family, indexes: Mapping[str, int]) -> bytes:
    inner, flags = list(hop.attributes), 0
    if hop.gateway is not None:
        inner.append(_via(hop.gateway, family))
        flags = RTNH_F_ONLINK
    packed = b"".join(attribute(kind, value) for kind, value in inner)
    length = _NEXT_HOP.size + len(packed)
    return _NEXT_HOP.pack(length, flags, hop.weight, indexes[hop.interface]) + packed


def protocol_of(packed: bytes) -> int:
    """Whose route it is (rtm_protocol)."""
    return packed[5]


def parse(
    packed: bytes,
    family: Family,
    names: Mapping[int, str],
    objects: Mapping[int, tuple[Hop, ...]],
) -> Route | None:
    """The route, or None for kinds and conditions that the model has no words for.

    `packed` begins behind the netlink header; `objects` are the nexthop objects that it may name.
    """
    _, dst_len, src_len, tos, table, _, _, number_of_kind, flags = _FIXED_PART.unpack_from(packed)
    kind = _KINDS.get(number_of_kind)
    if kind is None or flags & _RTM_F_CLONED:
        return None
    spelt = dict(attribute_list(packed, _FIXED_PART.size))
    hops = _where(spelt, names, objects) if kind.sends else ()
    alone = hops[0] if len(hops) == 1 else Hop("")
    metric = number(spelt.get(_RTA_PRIORITY))
    route = Route(
        table=number(spelt.get(_RTA_TABLE), table),
        family=family,
        destination=_network(spelt.get(_RTA_DST), dst_len),
        kind=kind,
        # IPv6 shows routes that send nothing on `lo`.
        interface=alone.interface or None,
        gateway=alone.gateway,
        source=_address(spelt.get(_RTA_PREFSRC)),
        metric=0 if family is Family.IPV6 and metric == IP6_RT_PRIO_USER else metric,
        tos=tos,
        hops=hops if len(hops) > 1 else (),
        only_from=_network(spelt.get(_RTA_SRC), src_len),
        attributes=tuple(sorted({*_carried(spelt), *alone.attributes})) if kind.sends else (),
    )
    if kind.sends and "" in ({hop.interface for hop in hops} or {""}):
        logger.debug("route over an unknown interface, left out", extra={"route": str(route)})
        return None
    return route


def _where(
    spelt: Mapping[int, bytes],
    names: Mapping[int, str],
    objects: Mapping[int, tuple[Hop, ...]],
) -> tuple[Hop, ...]:
    """The next hops, as the route says them, or the object that it names."""
    if _RTA_MULTIPATH in spelt:
        return _merged(_hops(spelt[_RTA_MULTIPATH], names))
    if _RTA_OIF in spelt:
        return (Hop(names.get(number(spelt[_RTA_OIF]), ""), _gateway(spelt)),)
    return _merged(objects.get(number(spelt.get(_RTA_NH_ID)), ()))


def _merged(hops: Iterable[Hop]) -> tuple[Hop, ...]:
    """One of each, with the weight of all: objects may be alike, IPv6 routes refuse such hops."""
    weights: dict[Hop, int] = {}
    for hop in hops:
        key = replace(hop, weight=0)
        weights[key] = weights.get(key, -1) + hop.weight + 1
    return tuple(replace(hop, weight=min(each, _MOST_WEIGHT)) for hop, each in weights.items())


def _hops(data: bytes, names: Mapping[int, str]) -> Iterator[Hop]:
    offset = 0
    while offset + _NEXT_HOP.size <= len(data):
        length, _, weight, index = _NEXT_HOP.unpack_from(data, offset)
        spelt = dict(attribute_list(data[: offset + length], offset + _NEXT_HOP.size))
        yield Hop(names.get(index, ""), _gateway(spelt), weight, _carried(spelt))
        offset += (length + 3) & ~3


def _carried(spelt: Mapping[int, bytes]) -> Attributes:
    """What is copied as it is, without a router preference that says nothing."""
    return tuple(
        (kind, value)
        for kind, value in sorted(spelt.items())
        if kind in _CARRIED and (kind != _RTA_PREF or number(value))
    )


def _gateway(spelt: Mapping[int, bytes]) -> IPAddress | None:
    if _RTA_VIA in spelt:
        return _address(spelt[_RTA_VIA][2:])
    return _address(spelt.get(_RTA_GATEWAY))


@lru_cache(_KEPT)
def _address(packed: bytes | None) -> IPAddress | None:
    return None if packed is None else ip_address(packed)


@lru_cache(_KEPT)
def _network(packed: bytes | None, length: int) -> IPNetwork | None:
    return None if packed is None or not length else ip_network((packed, length))


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)
