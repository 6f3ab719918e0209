"""Nexthop objects (linux/nexthop.h), which routes may name instead of saying where they lead.

The kernel says both, unless net.ipv4.nexthop_compat_mode is 0, as routing daemons set it.
"""

import errno
import struct
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from pyroute2.netlink import nlmsg
from pyroute2.netlink.exceptions import NetlinkError

from odm_agent.core.host import Attributes, Hop
from odm_agent.kernel.rtnetlink import Rtnetlink
from odm_agent.kernel.wire import attributes, number

_RTM_GETNEXTHOP: Final = 106
_NHA_ID, _NHA_GROUP, _NHA_OIF, _NHA_GATEWAY, _NHA_ENCAP_TYPE, _NHA_ENCAP = 1, 2, 5, 6, 7, 8
#: What a route calls these two (RTA_*, linux/rtnetlink.h).
_IN_A_ROUTE: Final = {_NHA_ENCAP: 22, _NHA_ENCAP_TYPE: 21}
#: struct nhmsg: family, scope, protocol, reserved, flags.
_HEADER: Final = struct.Struct("=4BI")
#: struct nexthop_grp: number of the object, weight (from 0 on) and its high byte, reserved.
_MEMBER: Final = struct.Struct("=IBBH")
#: Kernels without nexthop objects, or whose IPv4 is off.
_LACKING: Final = frozenset({errno.EOPNOTSUPP, errno.EINVAL})


class _Request(nlmsg):  # type: ignore[misc]
    fields = (
        *(("family", "B"), ("scope", "B"), ("protocol", "B"), ("reserved", "B")),
        ("flags", "I"),
    )


def read(netlink: Rtnetlink, names: Mapping[int, str]) -> dict[int, tuple[Hop, ...]]:
    """The next hops that each object stands for, by its number; none: it refuses."""
    try:
        answer = netlink.dump_packed(_RTM_GETNEXTHOP, _Request())
    except NetlinkError as refusal:
        if refusal.code in _LACKING:
            return {}
        raise
    found = {}
    for packed in answer:
        spelt = attributes(packed, _HEADER.size)
        found[number(spelt.get(_NHA_ID))] = spelt
    return {each: tuple(_hops(spelt, found, names)) for each, spelt in found.items()}


def _hops(
    spelt: Mapping[int, bytes], objects: Mapping[int, Mapping[int, bytes]], names: Mapping[int, str]
) -> Iterator[Hop]:
    if _NHA_GROUP in spelt:
        for member, low, high, _ in _MEMBER.iter_unpack(spelt[_NHA_GROUP]):
            # Replaced meanwhile, if it isn't there: that is told, and all is read again.
            if member in objects:
                yield _hop(objects[member], names, low | high << 8)
    elif _NHA_OIF in spelt:
        yield _hop(spelt, names)


def _hop(spelt: Mapping[int, bytes], names: Mapping[int, str], weight: int = 0) -> Hop:
    gateway = spelt.get(_NHA_GATEWAY)
    carried: Attributes = tuple(
        sorted((kind, spelt[ours]) for ours, kind in _IN_A_ROUTE.items() if ours in spelt)
    )
    interface = names.get(number(spelt.get(_NHA_OIF)), "")
    return Hop(interface, None if gateway is None else ip_address(gateway), weight, carried)
