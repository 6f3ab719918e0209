"""Labels of addresses for default selection (`ip addrlabel`, RFC 6724), IPv6 only.

The kernel keeps no protocol number with them; ours are told by the label's value.
"""

import errno
from ipaddress import IPv6Address
from typing import Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELADDRLABEL, RTM_GETADDRLABEL, RTM_NEWADDRLABEL

from odm_agent.kernel.rtnetlink import dump

_AF_INET6: Final = 10
_HOST: Final = 128
#: 8653 and the protocol number: no label that anybody else would choose, nor one of the kernel's.
_BASE: Final = 8653 << 8
_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.EAFNOSUPPORT})
_GONE: Final = frozenset({errno.ESRCH, errno.ENOENT})


class ifaddrlblmsg(nlmsg):  # type: ignore[misc]  # pyroute2 is untyped
    """linux/if_addrlabel.h; pyroute2 doesn't know it."""

    prefix = "IFAL_"
    fields = (
        ("family", "B"),
        ("__reserved", "B"),
        ("prefixlen", "B"),
        ("flags", "B"),
        ("index", "I"),
        ("seq", "I"),
    )
    nla_map = (("IFAL_UNSPEC", "none"), ("IFAL_ADDRESS", "ip6addr"), ("IFAL_LABEL", "uint32"))


async def read(route: AsyncIPRoute, protocol: int) -> frozenset[IPv6Address]:
    """The addresses that have our label; none where the kernel has no IPv6."""
    route.register_policy(RTM_NEWADDRLABEL, ifaddrlblmsg)
    request = ifaddrlblmsg()
    request["family"] = _AF_INET6
    try:
        answer = await dump(route, RTM_GETADDRLABEL, request)
    except NetlinkError as refusal:
        if refusal.code in _UNSUPPORTED:
            return frozenset()
        raise
    return frozenset(
        IPv6Address(each.get_attr("IFAL_ADDRESS"))
        for each in answer
        if each.get_attr("IFAL_LABEL") == _BASE | protocol and each["prefixlen"] == _HOST
    )


async def add(route: AsyncIPRoute, address: IPv6Address, protocol: int) -> None:
    """Give an address our label, which matches no destination; raises NetlinkError."""
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
    await _request(route, address, protocol, RTM_NEWADDRLABEL, flags)


async def remove(route: AsyncIPRoute, address: IPv6Address, protocol: int) -> None:
    """Take our label away if it is there; raises NetlinkError."""
    try:
        await _request(route, address, protocol, RTM_DELADDRLABEL, NLM_F_REQUEST | NLM_F_ACK)
    except NetlinkError as refusal:
        if refusal.code not in _GONE:
            raise


async def _request(
    route: AsyncIPRoute, address: IPv6Address, protocol: int, kind: int, flags: int
) -> None:
    message = ifaddrlblmsg()
    message["family"] = _AF_INET6
    message["prefixlen"] = _HOST
    message["attrs"] = [("IFAL_ADDRESS", str(address)), ("IFAL_LABEL", _BASE | protocol)]
    async for _ in await route.nlm_request(message, kind, flags):
        pass
