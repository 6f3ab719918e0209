"""The port on which a DHCPv6 client talks to the servers and relays of one link (RFC 8415, 7.2).

What neighbours send is bounded in size and in number, and what does not come from a server's port
and a link-local address is thrown away.
"""

import errno
import os
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from odm_agent.core.errors import KernelError
from odm_agent.kernel import sock_diag
from odm_agent.kernel.wire import Wire
from odm_agent.text import printable

#: UDP ports of clients, and of servers and relays.
CLIENT: Final = 546
SERVER: Final = 547
#: How many datagrams are taken at once, so that other work gets its turn.
MOST_AT_ONCE: Final = 16
#: A larger datagram is no answer to a client that asks for one prefix at a time.
_MOST_BYTES: Final = 4096
#: What the kernel keeps for us meanwhile, in bytes; it drops the rest, and counts that.
_KEPT_BYTES: Final = 1 << 16
#: asm-generic/socket.h; Python has no name for it.
_SO_RXQ_OVFL: Final = 40
_COUNT: Final = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class Datagram:
    """What came; `sender` is a link-local address with its zone."""

    data: bytes
    sender: str


class DhcpPort:
    """UDP port 546 of one interface, in the calling thread's network namespace.

    Opening it takes CAP_NET_BIND_SERVICE. Close it when done.
    """

    def __init__(self, interface: str, index: int) -> None:
        """`index` is that of the interface. Raises KernelError: somebody else has the port, say."""
        self.interface, self.index = interface, index
        #: What was thrown away, by what was wrong with it.
        self.dropped: Counter[str] = Counter()
        self._overflows = 0
        if (other := holder_of_port(index, os.getpid())) is not None:
            raise KernelError(
                f"opening the DHCPv6 client's port (UDP {CLIENT}) on {interface}: {other} has it,"
                " and only one client can ask there; stop it on this interface (DHCPv6Client=no in"
                " systemd-networkd), or name another interface in the delegation"
            )
        try:
            self._socket = _opened(interface, index)
        except OSError as error:
            raise KernelError(
                f"opening the DHCPv6 client's port (UDP {CLIENT}) on {interface}: {error.strerror}."
                f" {_remedy(error)}"
            ) from error

    def fileno(self) -> int:
        """Readable when something has come."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def send(self, data: bytes, to: str) -> None:
        """Send a datagram to a server's port, from a link-local address. Raises KernelError."""
        try:
            self._socket.sendto(data, (to, SERVER, 0, self.index))
        except OSError as error:
            raise KernelError(
                f"sending to {to} on {self.interface}: {error.strerror}. It is tried again."
            ) from error

    def receive(self) -> list[Datagram]:
        """What has come, without waiting. Some may be left: the descriptor stays readable."""
        found: list[Datagram] = []
        for _ in range(MOST_AT_ONCE):
            try:
                data, notes, flags, sender = self._socket.recvmsg(
                    _MOST_BYTES, socket.CMSG_SPACE(_COUNT.size)
                )
            except OSError:  # nothing is there any more; or the interface is down, which is told
                break
            self._note_overflow(notes)
            if flags & socket.MSG_TRUNC:
                self.dropped["too-large"] += 1
            elif sender[1] != SERVER or not _is_link_local(sender[0]) or sender[3] != self.index:
                self.dropped["not-from-a-server"] += 1
            else:
                found.append(Datagram(data, f"{sender[0]}%{self.interface}"))
        return found

    def _note_overflow(self, notes: list[tuple[int, int, bytes]]) -> None:
        for level, kind, payload in notes:
            if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                (overflows,) = _COUNT.unpack_from(payload)
                self.dropped["too-many"] += (overflows - self._overflows) % (1 << 32)
                self._overflows = overflows


def holder_of_port(index: int, ours: int) -> str | None:
    """Who else listens on the client's port of an interface; None: nobody that can be seen.

    Who listens on that port of all interfaces may ask on others only, and is let be. `ours` is the
    pid of the agent.
    """
    with Wire() as wire:
        for info, _ in sock_diag.described(wire, "udp"):
            if info.local_port != CLIENT or info.interface != index:
                continue
            if not isinstance(info.local, IPv6Address):
                continue
            pid, name = sock_diag.owners([info.inode]).get(info.inode, (0, ""))
            if pid != ours:
                return f"{printable(name)} (pid {pid})" if pid else "another process"
    return None


def _opened(interface: str, index: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Clients of other interfaces that are bound to none must not keep us out, nor we them.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, os.fsencode(interface) + b"\0")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KEPT_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
        sock.bind(("::", CLIENT))
    except OSError:
        sock.close()
        raise
    return sock


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            "A client of all interfaces has it and shares it with nobody; have it listen on its own"
            " ones only, or stop it."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return "The agent gave up the right to when it started without a delegation; restart it."
    return "It is tried again."


def _is_link_local(text: str) -> bool:
    return IPv6Address(text.partition("%")[0]).is_link_local
