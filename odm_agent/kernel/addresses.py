"""Addresses on interfaces: reading all, adding and removing ours.

Ours are told by IFA_PROTO, which kernels from 5.18 on keep for both families.
"""

import errno
import logging
import socket
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, ip_address
from typing import Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NLM_F_REQUEST,
)
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETADDR, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_OPTIMISTIC,
    IFA_F_PERMANENT,
    IFA_F_TENTATIVE,
    ifaddrmsg,
)
from pyroute2.netlink.rtnl.rtmsg import RT_SCOPE_HOST

from odm_agent.core.host import Address, LocalAddress
from odm_agent.core.model import IPAddress
from odm_agent.kernel.links import index_of
from odm_agent.kernel.rtnetlink import dump

logger = logging.getLogger(__name__)

#: Acknowledgements queue in the receive buffer while the kernel works through one send.
_BATCH: Final = 128
_FOREVER: Final = 0xFFFFFFFF
#: linux/if_addr.h; since Linux 5.18.
_IFAPROT_KERNEL_RA: Final = 2
_AF: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
#: Errors of a removal that mean that there is nothing (left) to remove.
_GONE: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})


async def read(
    route: AsyncIPRoute, names: Mapping[int, str], protocol: int, index: int = 0
) -> list[LocalAddress]:
    """All addresses of the namespace, or of the interface number `index`.

    `names` maps interface numbers to names; addresses of an interface that came after they were
    read are left out (its appearance is an event of its own).
    """
    request = ifaddrmsg()
    request["index"] = index
    return [
        _parse(each, names[each["index"]], protocol)
        for each in await dump(route, RTM_GETADDR, request)
        if each["index"] in names and each["family"] in _AF.values()
    ]


async def add(
    route: AsyncIPRoute, wanted: Sequence[Address], protocol: int
) -> list[NetlinkError | None]:
    """Configure addresses, all of them even if one fails; what each came to.

    Raises NetlinkError (ENODEV) before it configures any if there is no such interface.

    What is there already is left alone if it is as wanted, corrected if it is ours, and kept as it
    is if somebody else configured it (it must not vanish when we remove ours).
    """
    indexes = {name: await index_of(route, name) for name in {each.interface for each in wanted}}
    outcomes = await _add_new(route, wanted, indexes, protocol)
    existing = [
        position
        for position, refusal in enumerate(outcomes)
        if refusal is not None and refusal.code == errno.EEXIST
    ]
    found = {
        (local.interface, local.address): local
        for name in {wanted[position].interface for position in existing}
        for local in await read(route, {indexes[name]: name}, protocol, indexes[name])
    }
    for position in existing:
        each = wanted[position]
        local = found.get((each.interface, each.address))
        outcomes[position] = await _settle(route, each, local, indexes[each.interface], protocol)
    return outcomes


async def remove(route: AsyncIPRoute, address: Address) -> None:
    """Remove an address if it is there, with exactly this prefix length; raises NetlinkError."""
    try:
        await route.addr(
            "delete",
            index=await index_of(route, address.interface),
            address=str(address.address),
            prefixlen=address.prefix_length,
        )
    except NetlinkError as refusal:
        if refusal.code not in _GONE:
            raise


async def _settle(
    route: AsyncIPRoute, wanted: Address, local: LocalAddress | None, index: int, protocol: int
) -> NetlinkError | None:
    """Bring an address that exists to what is wanted."""
    if local is None:
        # Gone between the two requests: one more try without any reading.
        return await _put(route, wanted, index, protocol, NLM_F_REPLACE)
    if not local.ours:
        logger.warning(
            "address configured by somebody else is left as it is",
            extra={"address": str(wanted.address), "interface": wanted.interface},
        )
        return None
    if local.prefix_length != wanted.prefix_length:
        stale = Address(local.address, local.prefix_length, local.interface)
        try:
            await remove(route, stale)
        except NetlinkError as refusal:
            return refusal
    elif local.deprecated == wanted.deprecated:
        return None
    return await _put(route, wanted, index, protocol, NLM_F_REPLACE)


async def _add_new(
    route: AsyncIPRoute, wanted: Sequence[Address], indexes: Mapping[str, int], protocol: int
) -> list[NetlinkError | None]:
    """Configure addresses that should not be there yet; what each came to."""
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    outcomes: list[NetlinkError | None] = []
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        batch = [_request(each, indexes[each.interface], protocol, flags) for each in part]
        answers = route.nlm_request_batch(batch, noraise=True)
        done = {answer["header"]["sequence_number"] async for answer in answers}
        for each, message in zip(part, batch, strict=True):
            # Refusals are left out of a batch's answers: ask again, for the reason.
            outcomes.append(
                None
                if message["header"]["sequence_number"] in done
                else await _put(route, each, indexes[each.interface], protocol, NLM_F_EXCL)
            )
    return outcomes


async def _put(
    route: AsyncIPRoute, wanted: Address, index: int, protocol: int, mode: int
) -> NetlinkError | None:
    """Configure one address; `mode` says what if it is there (NLM_F_EXCL or NLM_F_REPLACE)."""
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | mode
    request = _request(wanted, index, protocol, flags)
    try:
        async for _ in await route.nlm_request(request, RTM_NEWADDR, flags):
            pass
    except NetlinkError as refusal:
        return refusal
    return None


def _request(wanted: Address, index: int, protocol: int, flags: int) -> ifaddrmsg:
    """The message, not left to addr("add"): that can't be batched and takes twice the time."""
    message = ifaddrmsg()
    message["header"] = {"type": RTM_NEWADDR, "flags": flags}
    message["family"] = _AF[wanted.address.version]
    message["prefixlen"] = wanted.prefix_length
    message["index"] = index
    if wanted.address.version == 4:
        # Scope host: usable when asked for by bind or route, never the kernel's own default source
        # (IPv4 has no other way to say so; it ignores preferred lifetimes).
        message["scope"] = RT_SCOPE_HOST
    lifetimes = {"ifa_preferred": 0 if wanted.deprecated else _FOREVER, "ifa_valid": _FOREVER}
    message["attrs"] = [
        ("IFA_LOCAL", str(wanted.address)),
        ("IFA_ADDRESS", str(wanted.address)),
        ("IFA_FLAGS", IFA_F_NOPREFIXROUTE | (0 if wanted.dad else IFA_F_NODAD)),
        ("IFA_PROTO", protocol),
        ("IFA_CACHEINFO", lifetimes),
    ]
    return message


def _parse(message: ifaddrmsg, interface: str, protocol: int) -> LocalAddress:
    # Once and for all: get_attr() goes through the attributes each time.
    found = dict(message["attrs"])
    # Of a point-to-point address IFA_ADDRESS is the peer's.
    address = ip_address(found.get("IFA_LOCAL") or found["IFA_ADDRESS"])
    flags = found.get("IFA_FLAGS", message["flags"])
    failed = bool(flags & IFA_F_DADFAILED)
    tentative = bool(flags & IFA_F_TENTATIVE) and not flags & IFA_F_OPTIMISTIC
    return LocalAddress(
        address=address,
        prefix_length=message["prefixlen"],
        interface=interface,
        ours=found.get("IFA_PROTO") == protocol,
        ready=not tentative and not failed,
        failed=failed,
        deprecated=bool(flags & IFA_F_DEPRECATED),
        from_network=_is_from_network(found.get("IFA_PROTO"), flags),
        broadcast=_broadcast(address, message["prefixlen"], found.get("IFA_BROADCAST")),
    )


def _is_from_network(origin: int | None, flags: int) -> bool:
    """Told by the kernel's own mark of autoconfiguration, or by lifetimes: a lease runs out."""
    return origin == _IFAPROT_KERNEL_RA or not flags & IFA_F_PERMANENT


def _broadcast(address: IPAddress, length: int, configured: str | None) -> IPv4Address | None:
    """The subnet's broadcast address: the kernel treats the last one so also if none is set."""
    if not isinstance(address, IPv4Address):
        return None
    if configured is not None:
        return IPv4Address(configured)
    return IPv4Interface((address, length)).network.broadcast_address if length < 31 else None
