"""Labels of addresses for default selection (`ip addrlabel`, RFC 6724), IPv6 only.

The kernel keeps no protocol number with them; ours are told by the label's value.
"""

import errno
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from pyroute2.netlink import NLM_F_CREATE, NLM_F_REPLACE, nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELADDRLABEL, RTM_GETADDRLABEL, RTM_NEWADDRLABEL

from odm_agent.core.host import AddressLabel
from odm_agent.kernel.rtnetlink import Rtnetlink, change

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


def read(
    netlink: Rtnetlink, names: Mapping[int, str], protocol: int
) -> tuple[frozenset[IPv6Address], tuple[AddressLabel, ...]]:
    """The addresses that have our label, and all other entries in the order in which they are
    asked; none where the kernel has no IPv6. `names` maps interface numbers."""
    request = ifaddrlblmsg()
    request["family"] = _AF_INET6
    try:
        answer = netlink.dump(RTM_GETADDRLABEL, request)
    except NetlinkError as refusal:
        if refusal.code in _UNSUPPORTED:
            return frozenset(), ()
        raise
    ours, others = set(), []
    for each in answer:
        address, label = IPv6Address(each.get_attr("IFAL_ADDRESS")), each.get_attr("IFAL_LABEL")
        if label == _BASE | protocol and each["prefixlen"] == _HOST:
            ours.add(address)
        elif not each["index"] or each["index"] in names:
            network = IPv6Network((address, each["prefixlen"]))
            others.append(AddressLabel(network, label, names.get(each["index"])))
    return frozenset(ours), tuple(others)


def add(
    netlink: Rtnetlink, wanted: Sequence[IPv6Address], protocol: int
) -> list[NetlinkError | None]:
    """Give addresses our label, which matches no destination; what each came to."""
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return netlink.carry_out(
        [[_message(each, protocol, RTM_NEWADDRLABEL, flags)] for each in wanted]
    )


def remove(
    netlink: Rtnetlink, unwanted: Sequence[IPv6Address], protocol: int
) -> list[NetlinkError | None]:
    """Take our label from addresses that have it; what each came to."""
    return netlink.carry_out(
        [[_message(each, protocol, RTM_DELADDRLABEL)] for each in unwanted], _GONE
    )


def _message(address: IPv6Address, protocol: int, kind: int, flags: int = 0) -> ifaddrlblmsg:
    message = ifaddrlblmsg()
    message["family"] = _AF_INET6
    message["prefixlen"] = _HOST
    message["attrs"] = [("IFAL_ADDRESS", str(address)), ("IFAL_LABEL", _BASE | protocol)]
    return change(message, kind, flags)
