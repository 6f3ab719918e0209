"""What becomes of the address that a socket has: what `client` makes its notices of.

Needs the standard library only. The kernel tells it (`struct odm_address_notice` of the header).
"""

import errno
import socket
import struct
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from odm_agent.core.model import AddressType

#: value, state, type, preferred and valid until (nanoseconds), address, successor.
_NOTICE: Final = struct.Struct("=4xBB2xQQ16s16s24x")
#: SO_COOKIE of asm/socket.h, which the socket module has not.
_SO_COOKIE: Final = 57
# How a kernel without the option for this kind of socket says so.
_UNKNOWN: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)


class AddressState(Enum):
    """What a socket's address is to it (RFC 4862, section 2)."""

    #: The socket has no address yet.
    UNBOUND = 1
    #: Sockets are given it.
    PREFERRED = 2
    #: It goes on, but sockets are given others.
    DEPRECATED = 3
    #: No packet leaves from it any more.
    OVER = 4


@dataclass(frozen=True, slots=True)
class Notice:
    """What becomes of the address of a socket.

    Dates are seconds of CLOCK_BOOTTIME, None if no end is known. The successor is what the socket
    would be given now, None while its address is preferred, or if there is none.
    """

    state: AddressState
    type: AddressType
    address: IPv4Address | IPv6Address | None
    successor: IPv4Address | IPv6Address | None
    preferred_until_s: float | None
    valid_until_s: float | None


def read(sock: socket.socket, option: int) -> Notice | None:
    """The notice of a socket; None: it is none of ours, or nobody enforces types here."""
    # An address of the socket's own is made of its cookie, which it has once somebody asked for it.
    sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    try:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, option, _NOTICE.size)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    if len(raw) != _NOTICE.size:
        return None
    state, type_, preferred_ns, valid_ns, address, successor = _NOTICE.unpack(raw)
    if not state:
        return None
    return Notice(
        AddressState(state),
        AddressType(type_),
        _address(address),
        _address(successor),
        _seconds(preferred_ns),
        _seconds(valid_ns),
    )


def _address(packed: bytes) -> IPv4Address | IPv6Address | None:
    """None for the wildcard of either family."""
    address = IPv6Address(packed)
    found = address.ipv4_mapped or address
    return None if found.is_unspecified else found


def _seconds(boot_ns: int) -> float | None:
    return boot_ns / 1e9 if boot_ns else None
