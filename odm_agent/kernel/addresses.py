"""Addresses on interfaces: reading all, adding and removing ours.

Ours are told by IFA_PROTO, which kernels from 5.18 on keep for both families.
"""

import errno
import logging
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, ip_address
from typing import Final

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_OPTIMISTIC,
    IFA_F_PERMANENT,
    IFA_F_SECONDARY,
    IFA_F_TENTATIVE,
    ifaddrmsg,
)
from pyroute2.netlink.rtnl.rtmsg import RT_SCOPE_HOST

from odm_agent.core.host import Address, LocalAddress
from odm_agent.kernel.links import indexes_of
from odm_agent.kernel.packed import PackedMessage
from odm_agent.kernel.rtnetlink import Rtnetlink, change
from odm_agent.kernel.wire import attributes, number

logger = logging.getLogger(__name__)

_FOREVER: Final = 0xFFFFFFFF
#: linux/if_addr.h: struct ifaddrmsg (family, prefix length, flags, scope, interface), attributes.
MESSAGE: Final = struct.Struct("=4BI")
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS, IFA_PROTO = 1, 2, 4, 6, 8, 11
#: struct ifa_cacheinfo: preferred and valid lifetime, and two times that the kernel writes.
_CACHEINFO: Final = struct.Struct("=4I")
_LOOPBACK: Final = "lo"
#: Of so many added addresses it is awaited that they are ready; the kernel comes to the last last.
_MOST_AWAITED: Final = 16
#: What is waited between one question whether they are and the next (seconds).
_PAUSES_S: Final = (0.0, *(0.0001,) * 4, *(0.001,) * 100)
#: linux/if_addr.h; since Linux 5.18.
_IFAPROT_KERNEL_RA: Final = 2
_AF: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
#: Errors of a removal that mean that there is nothing (left) to remove.
_GONE: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})


class _Message(PackedMessage):
    fields = ifaddrmsg.fields


def read(
    netlink: Rtnetlink, names: Mapping[int, str], protocol: int, index: int = 0
) -> list[LocalAddress]:
    """All addresses of the namespace, or of the interface number `index`.

    `names` maps interface numbers to names; addresses of an interface that came after they were
    read are left out (its appearance is an event of its own).
    """
    request = ifaddrmsg()
    request["index"] = index
    found = (_parse(each, names, protocol) for each in netlink.dump_packed(RTM_GETADDR, request))
    return [each for each in found if each is not None]


def add(netlink: Rtnetlink, wanted: Sequence[Address], protocol: int) -> list[NetlinkError | None]:
    """Configure addresses; what each came to.

    What is there already is left alone if it is as wanted, corrected if it is ours, and kept as it
    is if somebody else configured it (it must not vanish when we remove ours). Those about which
    nobody is asked are ready then, unless the kernel is too busy to make them so at once.
    """
    indexes, absent = indexes_of(netlink, [each.interface for each in wanted])
    outcomes = netlink.carry_out(
        (
            absent.get(each.interface) or [_addition(each, indexes, protocol, NLM_F_EXCL)]
            for each in wanted
        ),
    )
    existing = [n for n, refusal in enumerate(outcomes) if _is_there(refusal)]
    found = {
        (local.interface, local.address): local
        for name in {wanted[position].interface for position in existing}
        for local in read(netlink, {indexes[name]: name}, protocol, indexes[name])
    }
    corrections = (
        _correction(each, found.get((each.interface, each.address)), indexes, protocol)
        for each in (wanted[position] for position in existing)
    )
    for position, refusal in zip(existing, netlink.carry_out(corrections), strict=True):
        outcomes[position] = refusal
    done = (each for each, refusal in zip(wanted, outcomes, strict=True) if refusal is None)
    _await_routes(netlink, [each for each in done if _lacks_route(each)][-_MOST_AWAITED:], indexes)
    return outcomes


def remove(
    netlink: Rtnetlink, unwanted: Sequence[Address], _protocol: int
) -> list[NetlinkError | None]:
    """Remove addresses that are there, with exactly these prefix lengths; what each came to."""
    indexes, _ = indexes_of(netlink, [each.interface for each in unwanted])
    steps = (
        [_removal(each, indexes[each.interface])] if each.interface in indexes else []
        for each in unwanted
    )
    return netlink.carry_out(steps, _GONE)


def _is_there(refusal: NetlinkError | None) -> bool:
    return refusal is not None and refusal.code == errno.EEXIST


def _correction(
    wanted: Address, local: LocalAddress | None, indexes: Mapping[str, int], protocol: int
) -> list[nlmsg]:
    """What brings an address that exists to what is wanted; None: it has gone meanwhile."""
    steps: list[nlmsg] = []
    if local is not None and not local.ours:
        logger.warning(
            "address configured by somebody else is left as it is",
            extra={"address": str(wanted.address), "interface": wanted.interface},
        )
        return steps
    if local is not None and local.prefix_length != wanted.prefix_length:
        stale = Address(local.address, local.prefix_length, local.interface)
        steps.append(_removal(stale, indexes[stale.interface]))
    elif local is not None and local.deprecated == wanted.deprecated:
        return steps
    return [*steps, _addition(wanted, indexes, protocol, NLM_F_REPLACE)]


def _addition(wanted: Address, indexes: Mapping[str, int], protocol: int, mode: int) -> nlmsg:
    """The message that configures an address; `mode` says what if it is there (EXCL, REPLACE)."""
    message = _named(wanted, indexes[wanted.interface])
    if wanted.address.version == 4:
        # Scope host: usable when asked for by bind or route, never the kernel's own default source
        # (IPv4 has no other way to say so; it ignores preferred lifetimes).
        message["scope"] = RT_SCOPE_HOST
    preferred = 0 if wanted.deprecated else _FOREVER
    message["attrs"] += [
        (IFA_FLAGS, _u32(IFA_F_NOPREFIXROUTE | _without_detection(wanted))),
        (IFA_PROTO, bytes([protocol])),
        (IFA_CACHEINFO, _CACHEINFO.pack(preferred, _FOREVER, 0, 0)),
    ]
    return change(message, RTM_NEWADDR, NLM_F_CREATE | mode)


def _lacks_route(added: Address) -> bool:
    """Whether the kernel has yet to make the route by which packets to an address arrive."""
    return added.address.version == 6 and added.interface == _LOOPBACK


def _await_routes(netlink: Rtnetlink, added: Sequence[Address], indexes: Mapping[str, int]) -> None:
    """Wait until none of these addresses is tentative, or has gone, but not for long.

    It takes a tenth of a millisecond. Who read all addresses before would find these tentative, and
    look again only when the kernel tells of them.
    """
    for pause_s in _PAUSES_S:
        added = [each for each in added if _is_tentative(netlink, each, indexes[each.interface])]
        if not added:
            return
        time.sleep(pause_s)


def _is_tentative(netlink: Rtnetlink, address: Address, index: int) -> bool:
    question = _Message()
    question["family"] = _AF[address.address.version]
    question["index"] = index
    question["attrs"] = [(IFA_ADDRESS, address.address.packed)]
    try:
        packed = netlink.get_packed(RTM_GETADDR, question)
    except NetlinkError:  # it is not there any more
        return False
    _, _, flags, _, _ = MESSAGE.unpack_from(packed)
    return bool(flags & IFA_F_TENTATIVE)


def _without_detection(wanted: Address) -> int:
    """The flag for an address that nobody is asked about.

    On `lo` nobody ever is, and without the flag the kernel says that the address is tentative until
    it has the route by which packets to it arrive; it makes that in a moment of its own.
    """
    return 0 if wanted.dad or wanted.interface == _LOOPBACK else IFA_F_NODAD


def _removal(unwanted: Address, index: int) -> nlmsg:
    return change(_named(unwanted, index), RTM_DELADDR)


def _named(address: Address, index: int) -> nlmsg:
    message = _Message()
    message["family"] = _AF[address.address.version]
    message["prefixlen"] = address.prefix_length
    message["index"] = index
    packed = address.address.packed
    message["attrs"] = [(IFA_LOCAL, packed), (IFA_ADDRESS, packed)]
    return message


def _parse(packed: bytes, names: Mapping[int, str], protocol: int) -> LocalAddress | None:
    family, length, short_flags, _, index = MESSAGE.unpack_from(packed)
    if index not in names or family not in _AF.values():
        return None
    found = attributes(packed, MESSAGE.size)
    # Of a point-to-point address IFA_ADDRESS is the peer's.
    address = ip_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
    flags = number(found.get(IFA_FLAGS), short_flags)
    origin = number(found.get(IFA_PROTO))
    failed = bool(flags & IFA_F_DADFAILED)
    tentative = bool(flags & IFA_F_TENTATIVE) and not flags & IFA_F_OPTIMISTIC
    born, renewed = dates(found)
    return LocalAddress(
        address=address,
        prefix_length=length,
        interface=names[index],
        ours=origin == protocol,
        ready=not tentative and not failed,
        failed=failed,
        deprecated=bool(flags & IFA_F_DEPRECATED),
        from_network=_is_from_network(origin, flags),
        broadcasts=_broadcasts(found, length),
        secondary=bool(flags & IFA_F_SECONDARY),
        born=born,
        renewed=renewed,
    )


def dates(found: Mapping[int, bytes]) -> tuple[int, int]:
    """Since when an address is there, and since when its lifetime counts (1/100 s since the boot),
    by the attributes of its message; zeros: it does not say.
    """
    told = found.get(IFA_CACHEINFO, b"")
    if len(told) != _CACHEINFO.size:
        return 0, 0
    _, _, born, renewed = _CACHEINFO.unpack(told)
    return born, renewed


def _is_from_network(origin: int, flags: int) -> bool:
    """Told by the kernel's own mark of autoconfiguration, or by lifetimes: a lease runs out."""
    return origin == _IFAPROT_KERNEL_RA or not flags & IFA_F_PERMANENT


def _broadcasts(found: Mapping[int, bytes], length: int) -> tuple[IPv4Address, ...]:
    """The broadcast address that is set, and the last one of the subnet, which the kernel takes for
    one whatever is set (fib_add_ifaddr); of a point-to-point address that is the peer's subnet."""
    subnet = ip_address(found.get(IFA_ADDRESS) or found[IFA_LOCAL])
    if not isinstance(subnet, IPv4Address):
        return ()
    last = [IPv4Interface((subnet, length)).network.broadcast_address] if length < 31 else []
    configured = [IPv4Address(found[IFA_BROADCAST])] if IFA_BROADCAST in found else []
    return tuple(dict.fromkeys([*configured, *last]))


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)
