"""Routes: ours in any table, told by rtm_protocol, and the main table's, to be mirrored.

Metric 0 means the kernel's default, which IPv6 writes as 1024; it reads back as 0.
"""

import errno
import logging
import socket
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETROUTE, rt_type
from pyroute2.netlink.rtnl.rtmsg import (
    IP6_RT_PRIO_USER,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTNH_F_DEAD,
    RTNH_F_ONLINK,
    rtmsg,
)

from odm_agent.host import Route, RouteKind
from odm_agent.kernel.links import index_of
from odm_agent.kernel.rtnetlink import dump
from odm_agent.model import Family, IPAddress

logger = logging.getLogger(__name__)

MAIN_TABLE: Final = 254

#: linux/rtnetlink.h; pyroute2 has no constant for it.
_RTM_F_CLONED: Final = 0x200
_KINDS: Final = {rt_type[kind.value]: kind for kind in RouteKind}
_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}

#: Errors of a removal that mean that there is nothing (left) to remove.
_GONE: Final = frozenset({errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.ENOENT})


async def read_ours(
    route: AsyncIPRoute, names: Mapping[int, str], protocol: int
) -> frozenset[Route]:
    """The routes that carry `protocol`, in all tables; `names` maps interface numbers."""
    return frozenset(
        [each for family in Family for each in await _dump(route, names, family, protocol=protocol)]
    )


async def read_main(
    route: AsyncIPRoute, names: Mapping[int, str], protocol: int
) -> tuple[Route, ...]:
    """The main table's unicast routes without its default routes and without ours.

    Of a route with several next hops the first that lives stands for all: the right direction
    matters more than the balance. Routes by type of service or source are left out.
    """
    found = {
        each
        for family in Family
        for each in await _dump(route, names, family, table=MAIN_TABLE, unwanted=protocol)
        if each.kind is RouteKind.UNICAST and each.destination is not None
    }
    return tuple(sorted(found, key=repr))


async def add(route: AsyncIPRoute, wanted: Route, protocol: int) -> None:
    """Install a route, or put it in the place of ours with its destination and metric.

    Routes straight to an interface stand beside those to other interfaces (each link has its own
    fe80::/64); the others replace. Raises NetlinkError.
    """
    names = await _names(route, wanted)
    arguments = _arguments(wanted, names, protocol)
    beside = wanted.kind is RouteKind.UNICAST and wanted.gateway is None
    if not beside:
        await route.route("replace", **arguments)
        return
    try:
        await route.route("append", **arguments)
    except NetlinkError as refusal:
        if refusal.code != errno.EEXIST:
            raise
        if await _exists(route, wanted, names, protocol):
            return
        # IPv6 takes routes that differ only in their source for the same.
        await route.route("delete", **arguments)
        await route.route("append", **arguments)


async def remove(route: AsyncIPRoute, unwanted: Route, protocol: int) -> None:
    """Remove exactly this route of ours if it is there; raises NetlinkError.

    Looked up first: IPv6 ignores the source in a removal and would take the route's successor.
    """
    try:
        names = await _names(route, unwanted)
        if await _exists(route, unwanted, names, protocol):
            await route.route("delete", **_arguments(unwanted, names, protocol))
    except NetlinkError as refusal:
        if refusal.code not in _GONE:
            raise


async def _names(route: AsyncIPRoute, wanted: Route) -> dict[int, str]:
    """Enough of a map of interfaces to recognise `wanted` when it is read back."""
    if wanted.interface is None:
        return {}
    return {await index_of(route, wanted.interface): wanted.interface}


async def _exists(
    route: AsyncIPRoute, wanted: Route, names: Mapping[int, str], protocol: int
) -> bool:
    return wanted in await _dump(route, names, wanted.family, protocol=protocol, table=wanted.table)


async def _dump(
    route: AsyncIPRoute,
    names: Mapping[int, str],
    family: Family,
    *,
    protocol: int = 0,
    table: int = 0,
    unwanted: int = -1,
) -> list[Route]:
    """Routes filtered by the kernel (0: no filter), without those of protocol `unwanted`.

    Not by route("dump"): that has the kernel send all and filters here, which is slow, since each
    address has its routes in the table `local`.
    """
    request = rtmsg()
    request["family"] = _AF[family]
    request["proto"] = protocol
    if table:
        request["attrs"] = [("RTA_TABLE", table)]
    try:
        answer = await dump(route, RTM_GETROUTE, request)
    except NetlinkError as refusal:
        if refusal.code == errno.ENOENT:
            return []  # the table does not exist: nothing was ever put into it
        raise
    parsed = (
        _parse(each, family, names)
        for each in answer
        if each["proto"] != unwanted and protocol in (0, each["proto"])
    )
    return [each for each in parsed if each is not None and table in (0, each.table)]


def _arguments(wanted: Route, names: Mapping[int, str], protocol: int) -> dict[str, Any]:
    scope = RT_SCOPE_UNIVERSE
    if wanted.family is Family.IPV4:
        if wanted.kind is RouteKind.LOCAL:
            scope = RT_SCOPE_HOST
        elif wanted.kind is RouteKind.UNICAST and wanted.gateway is None:
            scope = RT_SCOPE_LINK
    # What is None is left out of the message.
    return {
        "family": _AF[wanted.family],
        "table": wanted.table,
        "dst": None if wanted.destination is None else str(wanted.destination),
        "type": wanted.kind.value,
        "scope": scope,
        "proto": protocol,
        "oif": next(iter(names), None),
        "prefsrc": None if wanted.source is None else str(wanted.source),
        "priority": wanted.metric or None if wanted.family is Family.IPV4 else wanted.metric,
        **_by_gateway(wanted.family, wanted.gateway),
    }


def _by_gateway(family: Family, gateway: IPAddress | None) -> dict[str, Any]:
    if gateway is None:
        return {}
    # A delegated prefix's gateway need not be in a network that the host has an address in.
    flags = {"flags": RTNH_F_ONLINK}
    if gateway.version == family:
        return {"gateway": str(gateway), **flags}
    # IPv4 by way of an IPv6 neighbour (RFC 8950's data plane).
    return {"via": {"family": _AF[Family.of(gateway)], "addr": str(gateway)}, **flags}


def _parse(found: rtmsg, family: Family, names: Mapping[int, str]) -> Route | None:
    """The route, or None for kinds and conditions that the model has no words for."""
    kind = _KINDS.get(found["type"])
    if kind is None or found["flags"] & _RTM_F_CLONED:
        return None
    table = found.get_attr("RTA_TABLE", found["table"])
    destination = found.get_attr("RTA_DST")
    network = None if destination is None else ip_network((destination, found["dst_len"]))
    hop = _next_hop(found)
    interface = names.get(hop["oif"] if hop is not found else found.get_attr("RTA_OIF", 0))
    unreachable = kind is RouteKind.UNREACHABLE
    if found["src_len"] or found["tos"] or (interface is None and not unreachable):
        logger.debug(
            "route not understood, left out",
            extra={"destination": str(network), "table": table, "interface": interface},
        )
        return None
    metric = found.get_attr("RTA_PRIORITY", 0)
    if family is Family.IPV6 and metric == IP6_RT_PRIO_USER:
        metric = 0
    source = found.get_attr("RTA_PREFSRC")
    return Route(
        table=table,
        family=family,
        destination=network if found["dst_len"] else None,
        kind=kind,
        # IPv6 shows its unreachable routes on `lo`.
        interface=None if unreachable else interface,
        gateway=_gateway(hop),
        source=None if source is None else ip_address(source),
        metric=metric,
    )


def _next_hop(found: rtmsg) -> nlmsg:
    """What says interface and gateway: of several next hops the first that is not dead."""
    hops = found.get_attr("RTA_MULTIPATH")
    if not hops:
        return found
    return next((hop for hop in hops if not hop["flags"] & RTNH_F_DEAD), hops[-1])


def _gateway(hop: nlmsg) -> IPAddress | None:
    gateway = hop.get_attr("RTA_GATEWAY")
    if gateway is None and (via := hop.get_attr("RTA_VIA")):
        gateway = via["addr"]
    return None if gateway is None else ip_address(gateway)
