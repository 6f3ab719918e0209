"""What an application does with sockets, seen from both ends. Called inside a `Place`."""

import ctypes
import errno
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from typing import Final

from odm_agent.core.model import AddressType, Family
from tests.lab.host import CORRESPONDENT
from tests.lab.peer import IPPROTO_MPTCP, MPTCP_PORT, plain
from tests.lab.place import Ready

#: IPPROTO_IPV6 option of RFC 5014, extended by the on-demand field (RFC 8653, appendix A).
IPV6_ADDR_PREFERENCES: Final = 72
TYPE_SHIFT: Final = 16
TYPE_MASK: Final = 7 << TYPE_SHIFT
PORT: Final = 7001
_PATIENCE_S: Final = 2.0
_libc: Final = ctypes.CDLL(None, use_errno=True)


class Kind(Enum):
    """A kind of socket and the way it sends: (family, type, protocol, connects, mapped)."""

    TCP6 = (socket.AF_INET6, socket.SOCK_STREAM, 0, True, False)
    TCP4 = (socket.AF_INET, socket.SOCK_STREAM, 0, True, False)
    TCP_MAPPED = (socket.AF_INET6, socket.SOCK_STREAM, 0, True, True)
    MPTCP6 = (socket.AF_INET6, socket.SOCK_STREAM, IPPROTO_MPTCP, True, False)
    MPTCP4 = (socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP, True, False)
    UDP6 = (socket.AF_INET6, socket.SOCK_DGRAM, 0, True, False)
    UDP4 = (socket.AF_INET, socket.SOCK_DGRAM, 0, True, False)
    UDP_MAPPED = (socket.AF_INET6, socket.SOCK_DGRAM, 0, True, True)
    SENDTO6 = (socket.AF_INET6, socket.SOCK_DGRAM, 0, False, False)
    SENDTO4 = (socket.AF_INET, socket.SOCK_DGRAM, 0, False, False)
    SENDTO_MAPPED = (socket.AF_INET6, socket.SOCK_DGRAM, 0, False, True)

    @property
    def af(self) -> socket.AddressFamily:
        """The socket's address family."""
        return self.value[0]

    @property
    def stream(self) -> bool:
        """TCP or MPTCP."""
        return self.value[1] is socket.SOCK_STREAM

    @property
    def mptcp(self) -> bool:
        """MPTCP."""
        return int(self.value[2]) == IPPROTO_MPTCP

    @property
    def connects(self) -> bool:
        """Whether it names its destination by connect(), not by sendto()."""
        return self.value[3]

    @property
    def mapped(self) -> bool:
        """IPv4 through an IPv6 socket (RFC 4291, 2.5.5.2)."""
        return self.value[4]

    @property
    def family(self) -> Family:
        """The IP version on the wire."""
        return Family.IPV6 if self.af == socket.AF_INET6 and not self.mapped else Family.IPV4

    @property
    def port(self) -> int:
        """The correspondent's port for this kind."""
        return MPTCP_PORT if self.mptcp else PORT

    def spell(self, address: str) -> str:
        """An address of the wire's family as this kind of socket writes it."""
        return f"::ffff:{address}" if self.mapped else address

    @property
    def destination(self) -> tuple[str, int]:
        """The correspondent."""
        return self.spell(CORRESPONDENT[self.family]), self.port

    @property
    def wildcard(self) -> str:
        """The unspecified address of the socket's family."""
        return "::" if self.af == socket.AF_INET6 else "0.0.0.0"

    def open(self) -> socket.socket:
        """A new socket; nothing waits longer than a test can bear."""
        sock = socket.socket(*self.value[:3])
        sock.settimeout(_PATIENCE_S)
        return sock


@dataclass(frozen=True)
class Exchange:
    """One question and answer: the name of the socket, and the caller as the peer saw it."""

    local: str
    seen: str


def ask(sock: socket.socket, type: AddressType, flags: int = 0) -> None:
    """Ask for a type: unmodified setsockopt."""
    sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, type << TYPE_SHIFT | flags)


def asked(sock: socket.socket) -> int:
    """The option's value, read back."""
    return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES)


def exchange(sock: socket.socket, kind: Kind, to: tuple[str, int] | None = None) -> Exchange:
    """Call the correspondent (or `to`) and hear from it who called; OSError as it comes."""
    destination = to or kind.destination
    if kind.connects:
        sock.connect(destination)
        if not kind.stream:
            sock.send(b"hello")
        text = sock.recv(4096)
    else:
        sock.sendto(b"hello", destination)
        text = sock.recv(4096)
    return Exchange(plain(sock.getsockname()[0]), text.decode().split()[0])


def call(
    kind: Kind,
    type: AddressType = AddressType.UNSPECIFIED,
    *,
    bind: tuple[str, int] | None = None,
    to: tuple[str, int] | None = None,
) -> Exchange:
    """A whole application: a socket, perhaps a type, perhaps a bind, then an exchange."""
    with kind.open() as sock:
        if type:
            ask(sock, type)
        if bind is not None:
            sock.bind(bind)
        return exchange(sock, kind, to)


def talker(kind: Kind) -> Callable[[Ready], None]:
    """An application with one connection, that sends all the time; it is ready with its source."""

    def talk(ready: Ready) -> None:
        with kind.open() as sock:
            ready(exchange(sock, kind).seen)
            while True:
                sock.send(b"x")
                time.sleep(0.05)

    return talk


def disconnect(sock: socket.socket) -> None:
    """connect() to AF_UNSPEC, which the socket module can't spell."""
    unspecified = bytes(16)  # sa_family 0
    if _libc.connect(sock.fileno(), unspecified, len(unspecified)):
        raise OSError(ctypes.get_errno(), "connect(AF_UNSPEC)")


def source_cmsg(address: str) -> list[tuple[int, int, bytes]]:
    """The control message that names a datagram's source (IP_PKTINFO, IPV6_PKTINFO)."""
    packed = ip_address(address).packed
    if len(packed) == 16:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("@16sI", packed, 0))]
    return [(socket.IPPROTO_IP, 8, struct.pack("@I4s4s", 0, packed, bytes(4)))]


def outcome(action: Callable[[], object]) -> str:
    """What an application would be told: "ok", the errno's word, or "timeout"."""
    try:
        action()
    except TimeoutError as error:
        return errno.errorcode[error.errno] if error.errno else "timeout"
    except OSError as error:
        return errno.errorcode[error.errno] if error.errno else repr(error)
    return "ok"
