"""Interfaces, as the kernel lists them."""

import os
import struct
from collections.abc import Iterable
from typing import Final

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETLINK
from pyroute2.netlink.rtnl.ifinfmsg import (
    IFF_LOWER_UP,
    IFF_NOARP,
    IFF_POINTOPOINT,
    IFF_RUNNING,
    IFF_UP,
    ifinfmsg,
)

from odm_agent.core.host import Link
from odm_agent.kernel.packed import PackedMessage
from odm_agent.kernel.rtnetlink import Rtnetlink

#: What an interface needs to carry packets, and what it is without it (RFC 2863's ifOperStatus, of
#: which IFF_RUNNING says whether it is up or unknown).
_NEEDED: Final = (
    (IFF_UP, "is down (administratively)"),
    (IFF_LOWER_UP, "is down (no carrier)"),
    (IFF_RUNNING, "is down (dormant)"),
)
#: What an interface is to its master where packets still arrive at the interface itself.
_NO_PORTS: Final = frozenset({None, "vrf"})
#: struct ifinfomsg: family and type, interface, flags.
_FIXED_PART: Final = struct.Struct("=IiI")
_IFLA_IFNAME: Final = 3
#: What each namespace begins with, and always has (LOOPBACK_IFINDEX of include/net/flow.h).
_LOOPBACK, _LOOPBACK_INDEX = "lo", 1
#: RFC 8200, section 5.
_LEAST_MTU: Final = 1280


class _Question(PackedMessage):
    fields = ifinfmsg.fields


def read(netlink: Rtnetlink) -> list[Link]:
    """All interfaces of the namespace."""
    return [_parse(each) for each in netlink.dump(RTM_GETLINK, ifinfmsg())]


def has_lost_carrier(netlink: Rtnetlink, index: int) -> bool:
    """Whether the interface of this number is up, and has no carrier; not if there is none."""
    request = _Question()
    request["index"] = index
    try:
        packed = netlink.get_packed(RTM_GETLINK, request)
    except NetlinkError:
        return False
    _, _, flags = _FIXED_PART.unpack_from(packed)
    return bool(flags & IFF_UP and not flags & IFF_LOWER_UP)


def indexes_of(
    netlink: Rtnetlink, names: Iterable[str]
) -> tuple[dict[str, int], dict[str, NetlinkError]]:
    """The numbers of interfaces by name, and the refusals (ENODEV) of those that aren't there."""
    found: dict[str, int] = {}
    refusals: dict[str, NetlinkError] = {}
    for name in sorted(set(names)):
        try:
            found[name] = _index_of(netlink, name)
        except NetlinkError as refusal:
            refusals[name] = refusal
    return found, refusals


def _index_of(netlink: Rtnetlink, name: str) -> int:
    if name == _LOOPBACK:
        return _LOOPBACK_INDEX
    request = _Question()
    request["attrs"] = [(_IFLA_IFNAME, os.fsencode(name) + b"\0")]
    _, index, _ = _FIXED_PART.unpack_from(netlink.get_packed(RTM_GETLINK, request))
    return int(index)


def _parse(message: ifinfmsg) -> Link:
    flags = message["flags"]
    fault = next((what for needed, what in _NEEDED if not flags & needed), "")
    port = (message.get_attr("IFLA_LINKINFO") or ifinfmsg()).get_attr("IFLA_INFO_SLAVE_KIND")
    if not fault and port not in _NO_PORTS:
        fault = f"is a port ({port}), which passes on to others what arrives"
    return Link(
        name=os.fsdecode(message.get_attr("IFLA_IFNAME")),  # bytes, where it is no UTF-8
        index=message["index"],
        up=not fault,
        enabled=bool(flags & IFF_UP),
        fault=fault,
        ipv6_fault=_ipv6_fault(message),
        group=message.get_attr("IFLA_GROUP") or 0,
        peered=bool(flags & (IFF_POINTOPOINT | IFF_NOARP)),
        losses=message.get_attr("IFLA_CARRIER_DOWN_COUNT") or 0,
    )


def _ipv6_fault(message: ifinfmsg) -> str:
    families = message.get_attr("IFLA_AF_SPEC")
    ipv6 = families.get_attr("AF_INET6") if families is not None else None
    if ipv6 is None:
        return f"carries no IPv6 (not set up for it, or its MTU is below {_LEAST_MTU})"
    settings = ipv6.get_attr("IFLA_INET6_CONF")
    disabled = settings is not None and settings["disable_ipv6"]
    return "carries no IPv6 (disable_ipv6 is set)" if disabled else ""
