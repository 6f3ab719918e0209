"""Addresses on interfaces: reading all, adding and removing ours.

Ours are told by IFA_PROTO, which kernels from 5.18 on keep for both families.
"""

import errno
import logging
import socket
import struct
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Interface, ip_address
from typing import Final

from odm_agent.kernel.wire import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    RefusedError,
    Wire,
    attribute,
    attributes,
    number,
    u32,
)
from odm_agent.model import Address, IPAddress, LocalAddress

logger = logging.getLogger(__name__)

_RTM_NEWADDR: Final = 20
_RTM_DELADDR: Final = 21
_RTM_GETADDR: Final = 22
_HEADER: Final = struct.Struct("=BBBBi")
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_BROADCAST: Final = 4
_IFA_CACHEINFO: Final = 6
_IFA_FLAGS: Final = 8
_IFA_PROTO: Final = 11
_IFA_F_NODAD: Final = 0x02
_IFA_F_OPTIMISTIC: Final = 0x04
_IFA_F_DADFAILED: Final = 0x08
_IFA_F_DEPRECATED: Final = 0x20
_IFA_F_TENTATIVE: Final = 0x40
_IFA_F_NOPREFIXROUTE: Final = 0x200
_FOREVER: Final = 0xFFFFFFFF
_SCOPE_GLOBAL: Final = 0
_SCOPE_HOST: Final = 254

#: Errors of a removal that mean that there is nothing (left) to remove.
GONE: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENODEV, errno.ENXIO})


def read(wire: Wire, names: Mapping[int, str], protocol: int, index: int = 0) -> list[LocalAddress]:
    """All addresses of the namespace, or of the interface number `index`.

    `names` maps interface numbers to names; addresses of an interface that came after they were
    read are left out (its appearance is an event of its own).
    """
    answer = wire.dump(Message(_RTM_GETADDR, _HEADER.pack(0, 0, 0, 0, index)))
    parsed = (_parse(part.body, names, protocol) for part in answer if part.kind == _RTM_NEWADDR)
    return [address for address in parsed if address is not None]


def add(
    wire: Wire, wanted: Sequence[Address], indexes: Mapping[str, int], protocol: int
) -> list[RefusedError | None]:
    """Configure addresses in one batch; what each came to.

    What is there already is left alone if it is as wanted, corrected if it is ours, and kept as it
    is if somebody else configured it (it must not vanish when we remove ours).
    """
    outcomes = wire.batch(
        [_request(each, indexes, protocol, NLM_F_CREATE | NLM_F_EXCL) for each in wanted]
    )
    existing = [
        position
        for position, refusal in enumerate(outcomes)
        if refusal is not None and refusal.errno == errno.EEXIST
    ]
    found = {
        (local.interface, local.address): local
        for name in {wanted[position].interface for position in existing}
        for local in read(wire, {indexes[name]: name}, protocol, indexes[name])
    }
    for position in existing:
        each = wanted[position]
        outcomes[position] = _settle(
            wire, each, found.get((each.interface, each.address)), indexes, protocol
        )
    return outcomes


def remove(wire: Wire, address: Address, index: int) -> None:
    """Remove an address; raises RefusedError, also when it is not there (see GONE)."""
    packed = address.address.packed
    kind = _IFA_LOCAL if address.address.version == 4 else _IFA_ADDRESS
    body = _header(address, 0, index) + attribute(kind, packed)
    wire.request(Message(_RTM_DELADDR, body))


def _settle(
    wire: Wire,
    wanted: Address,
    local: LocalAddress | None,
    indexes: Mapping[str, int],
    protocol: int,
) -> RefusedError | None:
    """Bring an address that exists to what is wanted."""
    if local is None:
        # Gone between the two requests: one more try without any reading.
        (outcome,) = wire.batch([_request(wanted, indexes, protocol, NLM_F_CREATE | NLM_F_REPLACE)])
        return outcome
    if not local.ours:
        logger.warning(
            "address configured by somebody else is left as it is",
            extra={"address": str(wanted.address), "interface": wanted.interface},
        )
        return None
    if local.prefix_length != wanted.prefix_length:
        stale = Address(local.address, local.prefix_length, local.interface)
        try:
            remove(wire, stale, indexes[wanted.interface])
        except RefusedError as refusal:
            if refusal.errno not in GONE:
                return refusal
    elif local.deprecated == wanted.deprecated:
        return None
    (outcome,) = wire.batch([_request(wanted, indexes, protocol, NLM_F_CREATE | NLM_F_REPLACE)])
    return outcome


def _request(wanted: Address, indexes: Mapping[str, int], protocol: int, flags: int) -> Message:
    packed = wanted.address.packed
    behaviour = _IFA_F_NOPREFIXROUTE
    if not wanted.dad:
        behaviour |= _IFA_F_NODAD
    body = _header(wanted, behaviour & 0xFF, indexes[wanted.interface])
    if wanted.address.version == 4:
        body += attribute(_IFA_LOCAL, packed)
    body += attribute(_IFA_ADDRESS, packed) + u32(_IFA_FLAGS, behaviour)
    body += attribute(_IFA_PROTO, bytes([protocol]))
    preferred_s = 0 if wanted.deprecated else _FOREVER
    body += attribute(_IFA_CACHEINFO, struct.pack("=IIII", preferred_s, _FOREVER, 0, 0))
    return Message(_RTM_NEWADDR, body, flags)


def _header(address: Address, flags: int, index: int) -> bytes:
    if address.address.version == 4:
        # Scope host: usable when asked for by bind or route, never the kernel's own default source
        # (IPv4 has no other way to say so; it ignores preferred lifetimes).
        return _HEADER.pack(socket.AF_INET, address.prefix_length, flags, _SCOPE_HOST, index)
    return _HEADER.pack(socket.AF_INET6, address.prefix_length, flags, _SCOPE_GLOBAL, index)


def _parse(body: bytes, names: Mapping[int, str], protocol: int) -> LocalAddress | None:
    family, prefix_length, flags, _, index = _HEADER.unpack_from(body)
    name = names.get(index)
    if name is None or family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = attributes(body, _HEADER.size)
    # Of a point-to-point address IFA_ADDRESS is the peer's.
    address: IPAddress = ip_address(found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, b"")))
    flags = number(found.get(_IFA_FLAGS), flags)
    failed = bool(flags & _IFA_F_DADFAILED)
    tentative = bool(flags & _IFA_F_TENTATIVE) and not flags & _IFA_F_OPTIMISTIC
    return LocalAddress(
        address=address,
        prefix_length=prefix_length,
        interface=name,
        ours=number(found.get(_IFA_PROTO)) == protocol,
        ready=not tentative and not failed,
        failed=failed,
        deprecated=bool(flags & _IFA_F_DEPRECATED),
        broadcast=_broadcast(address, prefix_length, found.get(_IFA_BROADCAST)),
    )


def _broadcast(address: IPAddress, length: int, configured: bytes | None) -> IPv4Address | None:
    """The subnet's broadcast address: the kernel treats the last one so also if none is set."""
    if not isinstance(address, IPv4Address):
        return None
    if configured is not None:
        return IPv4Address(configured)
    return IPv4Interface((address, length)).network.broadcast_address if length < 31 else None
