"""Asks a host by one uplink whether it is there: ICMP echo (RFC 792, RFC 4443 section 4.1)."""

import os
import socket
import struct
from contextlib import suppress
from typing import Final

from odm_agent.core.errors import KernelError
from odm_agent.core.model import IPAddress

#: Type, code, checksum, identifier, sequence number.
_HEAD: Final = struct.Struct("!BBHHH")
#: By IP version: the question's type, the answer's, and the raw socket's protocol.
_TYPES: Final = {4: (8, 0, socket.IPPROTO_ICMP), 6: (128, 129, socket.IPPROTO_ICMPV6)}
_AF: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
#: An answer is no longer than what was asked: that, behind a header of IPv4 at its longest.
_MOST_BYTES: Final = 128
#: What the kernel keeps for us meanwhile, in bytes; it drops the rest.
_KEPT_BYTES: Final = 4096
#: linux/socket.h, linux/icmp.h, linux/icmpv6.h: options, and a bit for each type that is blocked.
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1
_ICMP6_FILTER: Final = 1
_TOKEN_BYTES: Final = 16


class EchoSocket:
    """Questions from one address of an interface to one host, in the calling thread's namespace.

    Opening it takes CAP_NET_RAW. Only that host's answers are read. Close it when done.
    """

    def __init__(self, interface: str, source: IPAddress, target: IPAddress) -> None:
        """Raises KernelError."""
        self._question, self._answer, protocol = _TYPES[target.version]
        self._is_ipv4 = target.version == 4
        self._token = os.urandom(_TOKEN_BYTES)
        self._identifier = int.from_bytes(os.urandom(2), "big")
        try:
            self.socket = socket.socket(
                _AF[target.version], socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol
            )
            try:
                self._set_up(interface, source, target)
            except OSError:
                self.socket.close()
                raise
        except OSError as error:
            raise KernelError(
                f"asking {target} by {interface} whether it is there: {error.strerror}."
                " Without answers it is not known whether the uplink is dead; it is tried again."
            ) from error

    def _set_up(self, interface: str, source: IPAddress, target: IPAddress) -> None:
        sock = self.socket
        device = os.fsencode(interface) + b"\0"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _KEPT_BYTES)
        if self._is_ipv4:
            blocked = struct.pack("=I", 0xFFFFFFFF & ~(1 << self._answer))
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, blocked)
        else:
            words = [0xFFFFFFFF] * 8
            words[self._answer >> 5] &= ~(1 << (self._answer & 31))
            sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
        scope = () if self._is_ipv4 else (0, socket.if_nametoindex(interface))
        for call, each in ((sock.bind, source), (sock.connect, target)):
            call((str(each), 0, *(scope if each.is_link_local or not scope else (0, 0))))

    def close(self) -> None:
        """Close it."""
        self.socket.close()

    def ask(self, number: int) -> None:
        """Send a question, and forget what was answered before. Raises OSError."""
        with suppress(OSError):
            for _ in range(_KEPT_BYTES):
                self.socket.recv(_MOST_BYTES)
        self.socket.send(self._message(self._question, number))

    def is_answer(self, data: bytes, number: int) -> bool:
        """Whether what was received answers the question of that number."""
        if self._is_ipv4:  # a raw socket is given the IP header, too
            data = data[(data[0] & 0xF) * 4 :] if data else data
        expected = self._message(self._answer, number)
        return data[:2] + data[4:] == expected[:2] + expected[4:]

    def _message(self, kind: int, number: int) -> bytes:
        number &= 0xFFFF
        message = _HEAD.pack(kind, 0, 0, self._identifier, number) + self._token
        if not self._is_ipv4:  # the kernel adds the checksum, of which the source is part
            return message
        return _HEAD.pack(kind, 0, _checksum(message), self._identifier, number) + self._token


def _checksum(message: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
