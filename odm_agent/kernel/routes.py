"""Routes: ours in any table, told by rtm_protocol, and the main table's, to be mirrored.

Metric 0 means the kernel's default, which IPv6 writes as 1024; it reads back as 0. How a route is
spelt in a message is `routespec`'s.
"""

import errno
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pyroute2.netlink import NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from odm_agent.core.host import Hop, Route, RouteKind
from odm_agent.core.model import Family
from odm_agent.kernel import neighbours, routespec
from odm_agent.kernel.links import indexes_of
from odm_agent.kernel.rtnetlink import Rtnetlink, change

Objects = Mapping[int, tuple[Hop, ...]]

MAIN_TABLE: Final = 254
_LOCAL_TABLE: Final = 255
_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}

#: Errors of a removal that mean that there is nothing (left) to remove.
_GONE: Final = frozenset({errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.ENOENT})


def read_ours(netlink: Rtnetlink, names: Mapping[int, str], protocol: int) -> frozenset[Route]:
    """The routes that carry `protocol`, in all tables; `names` maps interface numbers."""
    return frozenset(
        [each for family in Family for each in _dump(netlink, names, family, protocol=protocol)]
    )


def read_main(
    netlink: Rtnetlink, names: Mapping[int, str], objects: Objects, protocol: int
) -> tuple[Route, ...]:
    """The main table's routes without ours; `objects` are the nexthop objects (`nexthops.read`)."""
    found = {
        each
        for family in Family
        for each in _dump(netlink, names, family, objects, table=MAIN_TABLE, unwanted=protocol)
    }
    return tuple(sorted(found, key=repr))


def read_tables(
    netlink: Rtnetlink,
    names: Mapping[int, str],
    objects: Objects,
    tables: Collection[tuple[Family, int]],
) -> tuple[Route, ...]:
    """All routes of some tables of others; main and local are not read again."""
    return tuple(
        [
            each
            for family, table in sorted(tables)
            if table not in (MAIN_TABLE, _LOCAL_TABLE)
            for each in _dump(netlink, names, family, objects, table=table)
        ]
    )


def add(netlink: Rtnetlink, wanted: Sequence[Route], protocol: int) -> list[NetlinkError | None]:
    """Install routes, or put them in the place of ours with their destination and metric.

    Routes straight to an interface stand beside those to other interfaces (each link has its own
    fe80::/64); the others replace. What each came to.
    """
    indexes, absent = indexes_of(netlink, _interfaces(wanted))
    outcomes = netlink.carry_out(
        (
            _refused(each, absent) or [_addition(each, indexes, protocol, _mode(each))]
            for each in wanted
        ),
    )
    existing = [
        position
        for position, refusal in enumerate(outcomes)
        if refusal is not None
        and refusal.code == errno.EEXIST
        and _mode(wanted[position]) == NLM_F_APPEND
    ]
    there = _standing(netlink, [wanted[n] for n in existing], indexes, protocol)
    corrections = (
        [
            # IPv6 takes routes that differ only in their source for the same.
            change(routespec.message(each, indexes, protocol), RTM_DELROUTE),
            _addition(each, indexes, protocol, NLM_F_APPEND),
        ]
        if each not in there
        else []
        for each in (wanted[position] for position in existing)
    )
    for position, refusal in zip(existing, netlink.carry_out(corrections), strict=True):
        outcomes[position] = refusal
    return outcomes


def remove(
    netlink: Rtnetlink, unwanted: Sequence[Route], protocol: int
) -> list[NetlinkError | None]:
    """Remove exactly these routes of ours if they are there; what each came to.

    Looked up first, each table once: IPv6 ignores the source in a removal and would take the
    route's successor. What still waits for a gateway on a link that is lost is given up with it.
    """
    indexes, _ = indexes_of(netlink, _interfaces(unwanted))
    there = _standing(netlink, unwanted, indexes, protocol)
    steps = (
        [change(routespec.message(each, indexes, protocol), RTM_DELROUTE)] if each in there else []
        for each in unwanted
    )
    outcomes = netlink.carry_out(steps, _GONE)
    neighbours.give_up(
        netlink,
        {
            (indexes[each.interface], each.gateway)
            for each in there.intersection(unwanted)
            if each.interface in indexes and each.gateway is not None
        },
    )
    return outcomes


def _mode(wanted: Route) -> int:
    alone = wanted.kind is not RouteKind.UNICAST or wanted.gateway is not None or wanted.hops
    return int(NLM_F_REPLACE if alone else NLM_F_APPEND)


def _addition(wanted: Route, indexes: Mapping[str, int], protocol: int, mode: int) -> nlmsg:
    return change(routespec.message(wanted, indexes, protocol), RTM_NEWROUTE, NLM_F_CREATE | mode)


def _interfaces(about: Iterable[Route]) -> set[str]:
    return {name for each in about for name in each.interfaces}


def _refused(wanted: Route, absent: Mapping[str, NetlinkError]) -> NetlinkError | None:
    return next((absent[name] for name in sorted(wanted.interfaces) if name in absent), None)


def _standing(
    netlink: Rtnetlink, about: Sequence[Route], indexes: Mapping[str, int], protocol: int
) -> set[Route]:
    """The routes of ours in the tables of those in question, by these interfaces."""
    names = {index: name for name, index in indexes.items()}
    tables = {(each.family, each.table) for each in about}
    return {
        found
        for family, table in sorted(tables)
        for found in _dump(netlink, names, family, protocol=protocol, table=table)
    }


def _dump(
    netlink: Rtnetlink,
    names: Mapping[int, str],
    family: Family,
    objects: Objects = MappingProxyType({}),
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
        answer = netlink.dump_packed(RTM_GETROUTE, request)
    except NetlinkError as refusal:
        if refusal.code == errno.ENOENT:
            return []  # the table does not exist: nothing was ever put into it
        raise
    parsed = (
        routespec.parse(each, family, names, objects)
        for each in answer
        if (owner := routespec.protocol_of(each)) != unwanted and protocol in (0, owner)
    )
    return [each for each in parsed if each is not None and table in (0, each.table)]
