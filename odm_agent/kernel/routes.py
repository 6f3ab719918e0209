"""Routes: ours in any table, told by rtm_protocol, and the main table's, to be mirrored.

Metric 0 means the kernel's default, which IPv6 writes as 1024; it reads back as 0. How a route is
spelt in a message is `routespec`'s.
"""

import errno
import socket
from collections.abc import Collection, Mapping
from typing import Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELROUTE, RTM_GETROUTE, RTM_NEWROUTE
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from odm_agent.core.host import Route, RouteKind
from odm_agent.core.model import Family
from odm_agent.kernel import routespec
from odm_agent.kernel.links import index_of
from odm_agent.kernel.rtnetlink import dump

MAIN_TABLE: Final = 254
_LOCAL_TABLE: Final = 255
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
    """The main table's routes without ours."""
    found = {
        each
        for family in Family
        for each in await _dump(route, names, family, table=MAIN_TABLE, unwanted=protocol)
    }
    return tuple(sorted(found, key=repr))


async def read_tables(
    route: AsyncIPRoute, names: Mapping[int, str], tables: Collection[tuple[Family, int]]
) -> tuple[Route, ...]:
    """All routes of some tables of others; main and local are not read again."""
    return tuple(
        [
            each
            for family, table in sorted(tables)
            if table not in (MAIN_TABLE, _LOCAL_TABLE)
            for each in await _dump(route, names, family, table=table)
        ]
    )


async def add(route: AsyncIPRoute, wanted: Route, protocol: int) -> None:
    """Install a route, or put it in the place of ours with its destination and metric.

    Routes straight to an interface stand beside those to other interfaces (each link has its own
    fe80::/64); the others replace. Raises NetlinkError.
    """
    indexes = await _indexes(route, wanted)

    async def request(kind: int, flags: int) -> None:
        await _request(route, wanted, indexes, protocol, kind, flags)

    if wanted.kind is not RouteKind.UNICAST or wanted.gateway is not None or wanted.hops:
        await request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE)
        return
    try:
        await request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND)
    except NetlinkError as refusal:
        if refusal.code != errno.EEXIST:
            raise
        if await _exists(route, wanted, _names(indexes), protocol):
            return
        # IPv6 takes routes that differ only in their source for the same.
        await request(RTM_DELROUTE, 0)
        await request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_APPEND)


async def remove(route: AsyncIPRoute, unwanted: Route, protocol: int) -> None:
    """Remove exactly this route of ours if it is there; raises NetlinkError.

    Looked up first: IPv6 ignores the source in a removal and would take the route's successor.
    """
    try:
        indexes = await _indexes(route, unwanted)
        if await _exists(route, unwanted, _names(indexes), protocol):
            await _request(route, unwanted, indexes, protocol, RTM_DELROUTE)
    except NetlinkError as refusal:
        if refusal.code not in _GONE:
            raise


async def _request(
    route: AsyncIPRoute,
    about: Route,
    indexes: Mapping[str, int],
    protocol: int,
    kind: int,
    flags: int = 0,
) -> None:
    message = routespec.message(about, indexes, protocol)
    async for _ in await route.nlm_request(message, kind, NLM_F_REQUEST | NLM_F_ACK | flags):
        pass


async def _indexes(route: AsyncIPRoute, wanted: Route) -> dict[str, int]:
    """The numbers of the interfaces that `wanted` names."""
    return {name: await index_of(route, name) for name in sorted(wanted.interfaces)}


def _names(indexes: Mapping[str, int]) -> dict[int, str]:
    """Enough of a map of interfaces to recognise a route when it is read back."""
    return {index: name for name, index in indexes.items()}


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
        routespec.parse(each, family, names)
        for each in answer
        if each["proto"] != unwanted and protocol in (0, each["proto"])
    )
    return [each for each in parsed if each is not None and table in (0, each.table)]
