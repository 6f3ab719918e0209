"""A DHCPv6 client that says just what a test tells it to: the servers' examiner (RFC 8415).

It shares nothing with the agent's client, keeps no state but its DUID, and never acts by itself.
"""

import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv6Address, IPv6Network
from typing import Final, Self

from tests.lab.netns import NetNs

_SERVERS: Final = "ff02::1:2"
_CLIENT_PORT, _SERVER_PORT = 546, 547
_ANSWER_S: Final = 1.0
_TRIES: Final = 3
NOTHING: Final = IPv6Network("::/64")


class Message(IntEnum):
    """Message types (RFC 8415, 7.3)."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11


class Option(IntEnum):
    """Option codes (RFC 8415, 21), and the stand-in for the type."""

    CLIENT_ID = 1
    SERVER_ID = 2
    ORO = 6
    PREFERENCE = 7
    ELAPSED = 8
    STATUS = 13
    RAPID_COMMIT = 14
    IA_PD = 25
    IAPREFIX = 26
    TYPE = 65001


class Status(IntEnum):
    """Status codes (RFC 8415, 21.13)."""

    SUCCESS = 0
    UNSPEC_FAIL = 1
    NO_BINDING = 3
    NO_PREFIX_AVAIL = 6


class Layout(Enum):
    """Where the type is asked for."""

    DRAFT = "inside IAPREFIX"
    TOP = "at the top level"


@dataclass(frozen=True)
class Wish:
    """One IA_PD of a message. `type` None: no word of a type. `prefix` is a hint, or one held."""

    iaid: int
    type: int | None = None
    prefix: IPv6Network = NOTHING
    layout: Layout = Layout.DRAFT

    def encoded(self) -> bytes:
        """As an option. Lifetimes, T1 and T2 are 0, as a client's should be."""
        inner = b""
        if self.type is not None and self.layout is Layout.DRAFT:
            inner = _option(Option.TYPE, bytes([self.type]))
        prefix = struct.pack("!IIB", 0, 0, self.prefix.prefixlen)
        body = _option(Option.IAPREFIX, prefix + self.prefix.network_address.packed + inner)
        return _option(Option.IA_PD, struct.pack("!III", self.iaid, 0, 0) + body)


@dataclass(frozen=True)
class Delegated:
    """A prefix in an answer. Lifetimes in seconds; both 0: it is taken away."""

    prefix: IPv6Network
    preferred: int
    valid: int


@dataclass(frozen=True)
class Answer:
    """What a server said: of the whole message, and of all its IA_PDs together."""

    message: Message
    server: bytes
    type: int | None
    preference: int | None
    rapid: bool
    status: int
    prefixes: tuple[Delegated, ...]

    @property
    def given(self) -> list[IPv6Network]:
        """The prefixes that live."""
        return [each.prefix for each in self.prefixes if each.valid]

    @property
    def prefix(self) -> IPv6Network:
        """The one prefix that lives."""
        (one,) = self.given
        return one

    @property
    def withdrawn(self) -> list[IPv6Network]:
        """The prefixes with lifetimes 0."""
        return [each.prefix for each in self.prefixes if not each.valid]


class Probe:
    """A client on an interface of a namespace."""

    def __init__(self, netns: NetNs, interface: str, duid: bytes | None = None) -> None:
        self.duid = duid or b"\0\4" + os.urandom(16)
        self._index = netns.call(socket.if_nametoindex, interface)
        self._socket = netns.call(socket.socket, socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        self._socket.bind(("::", _CLIENT_PORT))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def obtain(self, *wishes: Wish) -> Answer:
        """Solicit with Rapid Commit: a Reply, or an Advertise that says why there is none."""
        return self._told(Message.SOLICIT, _option(Option.RAPID_COMMIT), *wishes)

    def solicit(self, *wishes: Wish) -> Answer:
        """Solicit without Rapid Commit."""
        return self._told(Message.SOLICIT, b"", *wishes)

    def request(self, server: bytes, *wishes: Wish) -> Answer:
        """Ask a server for what it has advertised."""
        return self._told(Message.REQUEST, _option(Option.SERVER_ID, server), *wishes)

    def renew(self, server: bytes, *wishes: Wish) -> Answer:
        """Ask the server that gave a prefix to prolong it."""
        return self._told(Message.RENEW, _option(Option.SERVER_ID, server), *wishes)

    def rebind(self, *wishes: Wish) -> Answer:
        """Ask any server to prolong a prefix."""
        return self._told(Message.REBIND, b"", *wishes)

    def release(self, server: bytes, *wishes: Wish) -> Answer:
        """Give a prefix back."""
        return self._told(Message.RELEASE, _option(Option.SERVER_ID, server), *wishes)

    def _told(self, message: Message, options: bytes, *wishes: Wish) -> Answer:
        top = next((each.type for each in wishes if each.layout is Layout.TOP), None)
        if top is not None:
            options += _option(Option.TYPE, bytes([top]))
        options += _option(Option.ORO, struct.pack("!H", Option.TYPE))
        return self.exchange(message, options + b"".join(each.encoded() for each in wishes))

    def exchange(self, message: Message, options: bytes) -> Answer:
        """Send a message with these options and our DUID; TimeoutError if nobody answers."""
        transaction, began_s = os.urandom(3), time.monotonic()
        for _ in range(_TRIES):
            elapsed = struct.pack("!H", min(0xFFFF, int((time.monotonic() - began_s) * 100)))
            self._socket.sendto(
                bytes([message])
                + transaction
                + _option(Option.CLIENT_ID, self.duid)
                + _option(Option.ELAPSED, elapsed)
                + options,
                (_SERVERS, _SERVER_PORT, 0, self._index),
            )
            if (answer := self._hear(transaction)) is not None:
                return answer
        raise TimeoutError(f"no server answered a {message.name}")

    def _hear(self, transaction: bytes) -> Answer | None:
        until_s = time.monotonic() + _ANSWER_S
        while (left_s := until_s - time.monotonic()) > 0:
            self._socket.settimeout(left_s)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                return None
            if data[1:4] == transaction:
                return _parsed(data)
        return None


def _option(code: Option, data: bytes = b"") -> bytes:
    return struct.pack("!HH", code, len(data)) + data


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        code, length = struct.unpack_from("!HH", data)
        yield code, data[4 : 4 + length]
        data = data[4 + length :]


def _parsed(data: bytes) -> Answer:
    top = list(_options(data[4:]))
    single = dict(top)
    within = [each for code, body in top if code == Option.IA_PD for each in _options(body[12:])]
    status = [body for code, body in [*top, *within] if code == Option.STATUS]
    type_, preference = single.get(Option.TYPE), single.get(Option.PREFERENCE)
    return Answer(
        Message(data[0]),
        single[Option.SERVER_ID],
        type_[0] if type_ else None,
        preference[0] if preference else None,
        Option.RAPID_COMMIT in single,
        max((int.from_bytes(each[:2]) for each in status), default=Status.SUCCESS),
        tuple(_delegated(body) for code, body in within if code == Option.IAPREFIX),
    )


def _delegated(body: bytes) -> Delegated:
    preferred, valid, length = struct.unpack_from("!IIB", body)
    return Delegated(IPv6Network((IPv6Address(body[9:25]), length)), preferred, valid)
