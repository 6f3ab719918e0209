"""Routes: ours in any table, told by rtm_protocol, and the main table's, to be mirrored.

Metric 0 means the kernel's default, which IPv6 writes as 1024; it reads back as 0.
"""

import errno
import logging
import socket
import struct
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Final

from odm_agent.kernel.wire import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    Message,
    RefusedError,
    Wire,
    attribute,
    attributes,
    number,
    u32,
)
from odm_agent.model import Family, IPAddress, Route, RouteKind

logger = logging.getLogger(__name__)

MAIN_TABLE: Final = 254

_RTM_NEWROUTE: Final = 24
_RTM_DELROUTE: Final = 25
_RTM_GETROUTE: Final = 26
_HEADER: Final = struct.Struct("=BBBBBBBBI")
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_GATEWAY: Final = 5
_RTA_PRIORITY: Final = 6
_RTA_PREFSRC: Final = 7
_RTA_MULTIPATH: Final = 9
_RTA_TABLE: Final = 15
_RTA_VIA: Final = 18
_RTN_UNICAST: Final = 1
_RTM_F_CLONED: Final = 0x200
_RTNH_F_DEAD: Final = 0x1
_RTNH_F_ONLINK: Final = 0x4
_NEXT_HOP: Final = struct.Struct("=HBBi")
_SCOPE_UNIVERSE: Final = 0
_SCOPE_LINK: Final = 253
_SCOPE_HOST: Final = 254
_IPV6_DEFAULT_METRIC: Final = 1024
_KINDS: Final = {
    RouteKind.UNICAST: _RTN_UNICAST,
    RouteKind.LOCAL: 2,
    RouteKind.UNREACHABLE: 7,
}
_KINDS_BACK: Final = {number_: kind for kind, number_ in _KINDS.items()}
_FAMILIES: Final = {socket.AF_INET: Family.IPV4, socket.AF_INET6: Family.IPV6}
_AF: Final = {family: constant for constant, family in _FAMILIES.items()}

#: Errors of a removal that mean that there is nothing (left) to remove.
GONE: Final = frozenset({errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.ENOENT})


def read_ours(wire: Wire, names: Mapping[int, str], protocol: int) -> frozenset[Route]:
    """The routes that carry `protocol`, in all tables; `names` maps interface numbers."""
    return frozenset(
        route for family in Family for route in _dump(wire, names, family, protocol=protocol)
    )


def read_main(wire: Wire, names: Mapping[int, str], protocol: int) -> tuple[Route, ...]:
    """The main table's unicast routes without its default routes and without ours.

    Of a route with several next hops the first that lives stands for all: the right direction
    matters more than the balance. Routes by type of service or source are left out.
    """
    found = {
        route
        for family in Family
        for route in _dump(wire, names, family, table=MAIN_TABLE, unwanted=protocol)
        if route.kind is RouteKind.UNICAST and route.destination is not None
    }
    return tuple(sorted(found, key=repr))


def add(
    wire: Wire, route: Route, index: int | None, names: Mapping[int, str], protocol: int
) -> None:
    """Install a route, or put it in the place of ours with its destination and metric.

    Routes straight to an interface stand beside those to other interfaces (each link has its own
    fe80::/64); the others replace. `index` is the interface's number. Raises RefusedError.
    """
    body = _body(route, index, protocol)
    beside = route.kind is RouteKind.UNICAST and route.gateway is None
    if not beside:
        wire.request(Message(_RTM_NEWROUTE, body, NLM_F_CREATE | NLM_F_REPLACE))
        return
    # IPv4 prepends without the flag; IPv6 has its siblings in order of arrival anyway.
    flags = NLM_F_CREATE | (NLM_F_APPEND if route.family is Family.IPV4 else 0)
    try:
        wire.request(Message(_RTM_NEWROUTE, body, flags))
    except RefusedError as refusal:
        if refusal.errno != errno.EEXIST:
            raise
        if _exists(wire, route, names, protocol):
            return
        # IPv6 takes routes that differ only in their source for the same.
        wire.request(Message(_RTM_DELROUTE, body))
        wire.request(Message(_RTM_NEWROUTE, body, flags))


def remove(
    wire: Wire, route: Route, index: int | None, names: Mapping[int, str], protocol: int
) -> None:
    """Remove exactly this route of ours if it is there; raises RefusedError.

    Looked up first: IPv6 ignores the source in a removal and would take the route's successor.
    """
    if _exists(wire, route, names, protocol):
        wire.request(Message(_RTM_DELROUTE, _body(route, index, protocol)))


def _exists(wire: Wire, route: Route, names: Mapping[int, str], protocol: int) -> bool:
    return route in _dump(wire, names, route.family, protocol=protocol, table=route.table)


def _dump(
    wire: Wire,
    names: Mapping[int, str],
    family: Family,
    *,
    protocol: int = 0,
    table: int = 0,
    unwanted: int = -1,
) -> list[Route]:
    """Routes filtered by the kernel (0: no filter), without those of protocol `unwanted`."""
    body = _HEADER.pack(_AF[family], 0, 0, 0, 0, protocol, 0, 0, 0)
    if table:
        body += u32(_RTA_TABLE, table)
    try:
        answer = wire.dump(Message(_RTM_GETROUTE, body))
    except RefusedError as refusal:
        if refusal.errno == errno.ENOENT:
            return []  # the table does not exist: nothing was ever put into it
        raise
    parsed = (
        _parse(part.body, names)
        for part in answer
        if part.kind == _RTM_NEWROUTE
        and part.body[5] != unwanted
        and (not protocol or part.body[5] == protocol)
    )
    return [route for route in parsed if route is not None and table in (0, route.table)]


def _body(route: Route, index: int | None, protocol: int) -> bytes:
    length = route.destination.prefixlen if route.destination is not None else 0
    scope, flags = _SCOPE_UNIVERSE, 0
    if route.family is Family.IPV4:
        if route.kind is RouteKind.LOCAL:
            scope = _SCOPE_HOST
        elif route.kind is RouteKind.UNICAST and route.gateway is None:
            scope = _SCOPE_LINK
    if route.gateway is not None:
        # A delegated prefix's gateway need not be in a network that the host has an address in.
        flags = _RTNH_F_ONLINK
    body = _HEADER.pack(
        *(_AF[route.family], length, 0, 0, 0, protocol, scope, _KINDS[route.kind], flags)
    )
    if route.destination is not None:
        body += attribute(_RTA_DST, route.destination.network_address.packed)
    if index is not None:
        body += u32(_RTA_OIF, index)
    if route.gateway is not None:
        body += _gateway_attribute(route.family, route.gateway)
    if route.source is not None:
        body += attribute(_RTA_PREFSRC, route.source.packed)
    metric = route.metric or (_IPV6_DEFAULT_METRIC if route.family is Family.IPV6 else 0)
    return body + u32(_RTA_PRIORITY, metric) + u32(_RTA_TABLE, route.table)


def _gateway_attribute(family: Family, gateway: IPAddress) -> bytes:
    if gateway.version == family:
        return attribute(_RTA_GATEWAY, gateway.packed)
    # IPv4 by way of an IPv6 neighbour (RFC 8950's data plane).
    return attribute(_RTA_VIA, struct.pack("=H", _AF[Family.of(gateway)]) + gateway.packed)


def _parse(body: bytes, names: Mapping[int, str]) -> Route | None:
    """The route, or None for kinds and conditions that the model has no words for."""
    constant, length, source_length, tos, table, _, _, kind, flags = _HEADER.unpack_from(body)
    if kind not in _KINDS_BACK or flags & _RTM_F_CLONED or constant not in _FAMILIES:
        return None
    family, found = _FAMILIES[constant], attributes(body, _HEADER.size)
    destination = found.get(_RTA_DST)
    network = None if destination is None else ip_network((ip_address(destination), length))
    index, gateway = _next_hop(found)
    interface = names.get(index) if index is not None else None
    unreachable = _KINDS_BACK[kind] is RouteKind.UNREACHABLE
    if source_length or tos or (interface is None and not unreachable):
        logger.debug(
            "route not understood, left out",
            extra={"destination": str(network), "table": table, "interface": index},
        )
        return None
    metric = number(found.get(_RTA_PRIORITY))
    if family is Family.IPV6 and metric == _IPV6_DEFAULT_METRIC:
        metric = 0
    source = found.get(_RTA_PREFSRC)
    return Route(
        table=number(found.get(_RTA_TABLE), table),
        family=family,
        destination=network if length else None,
        kind=_KINDS_BACK[kind],
        # IPv6 shows its unreachable routes on `lo`.
        interface=None if unreachable else interface,
        gateway=gateway,
        source=None if source is None else ip_address(source),
        metric=metric,
    )


def _next_hop(found: dict[int, bytes]) -> tuple[int | None, IPAddress | None]:
    """Interface number and gateway; of several next hops those of the first that is not dead."""
    hops = found.get(_RTA_MULTIPATH)
    while hops is not None and len(hops) >= _NEXT_HOP.size:
        length, flags, _, index = _NEXT_HOP.unpack_from(hops)
        rest = hops[(length + 3) & ~3 :]
        if not flags & _RTNH_F_DEAD or len(rest) < _NEXT_HOP.size:
            return index, _gateway(attributes(hops[:length], _NEXT_HOP.size))
        hops = rest
    return (number(found[_RTA_OIF]) if _RTA_OIF in found else None), _gateway(found)


def _gateway(found: dict[int, bytes]) -> IPAddress | None:
    if _RTA_GATEWAY in found:
        return ip_address(found[_RTA_GATEWAY])
    return ip_address(found[_RTA_VIA][2:]) if _RTA_VIA in found else None
