"""Listens to the router advertisements of one link, which the kernel handles as ever."""

import os
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from odm_agent.core.errors import KernelError

#: ICMPv6 type of a router advertisement (RFC 4861, section 4.2).
_ADVERTISEMENT: Final = 134
#: How many are taken at once, so that other work gets its turn.
MOST_AT_ONCE: Final = 16
#: A longer one is cut off by the kernel, and dropped here.
_MOST_BYTES: Final = 4096
#: What the kernel keeps for us meanwhile, in bytes; it drops the rest.
_KEPT_BYTES: Final = 1 << 16
#: linux/icmpv6.h: option and length of the filter, one bit for each type that is blocked.
_ICMP6_FILTER: Final = 1
_FILTER: Final = struct.Struct("=8I")
_INT: Final = struct.Struct("=i")
#: Type, code, checksum (the kernel's), and four octets of nothing (section 4.1).
_SOLICITATION: Final = bytes([133, 0, 0, 0, 0, 0, 0, 0])
_ALL_ROUTERS: Final = "ff02::2"


@dataclass(frozen=True, slots=True)
class Heard:
    """An ICMPv6 message, from where it came, and how many hops it had left."""

    data: bytes
    sender: str
    hop_limit: int


class RaSocket:
    """Router advertisements of one interface, in the calling thread's network namespace.

    Opening it takes CAP_NET_RAW. The kernel has checked their checksums. Close it when done.
    """

    def __init__(self, interface: str) -> None:
        """Raises KernelError."""
        self.interface = interface
        try:
            self._index = socket.if_nametoindex(interface)
            self._socket = _opened(interface)
        except OSError as error:
            raise KernelError(
                f"listening to router advertisements on {interface}: {error.strerror}."
                " Without them its addresses have the type of the uplink; it is tried again."
            ) from error

    def fileno(self) -> int:
        """Readable when something has come."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def solicit(self) -> None:
        """Ask routers to say now what they would say some time (RFC 4861, section 6.3.7)."""
        with suppress(OSError):  # they say it anyway
            self._socket.sendto(_SOLICITATION, (_ALL_ROUTERS, 0, 0, self._index))

    def receive(self) -> list[Heard]:
        """What has come, without waiting. Some may be left: the descriptor stays readable."""
        found: list[Heard] = []
        for _ in range(MOST_AT_ONCE):
            try:
                data, notes, flags, sender = self._socket.recvmsg(
                    _MOST_BYTES, socket.CMSG_SPACE(_INT.size)
                )
            except OSError:  # nothing is there any more; or the interface is down, which is told
                break
            limits = [
                _INT.unpack_from(payload)[0]
                for level, kind, payload in notes
                if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_HOPLIMIT)
            ]
            if limits and not flags & socket.MSG_TRUNC:
                found.append(Heard(data, sender[0], limits[0]))
        return found


def _opened(interface: str) -> socket.socket:
    sock = socket.socket(
        socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6
    )
    try:
        blocked = [0xFFFFFFFF] * 8
        blocked[_ADVERTISEMENT >> 5] &= ~(1 << (_ADVERTISEMENT & 31))
        sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, _FILTER.pack(*blocked))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(interface) + b"\0")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KEPT_BYTES)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    except OSError:
        sock.close()
        raise
    return sock
