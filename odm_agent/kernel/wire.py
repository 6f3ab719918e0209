"""Netlink packing and dumps for sock_diag, of which pyroute2 knows too little (`sock_diag`), and
for generic netlink (`mptcp`), of which its sockets bring an event loop each.

All other messages are pyroute2's, but for what is unpacked of addresses, routes and news. Its
sock_diag request holds no attributes, by which alone the kernel is asked for socket storages and
for protocols above 255 (MPTCP); and its sock_diag socket does not see the kernel's refusals.
"""

import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

from pyroute2.netlink import (
    NETLINK_SOCK_DIAG,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
)
from pyroute2.netlink.diag import SOCK_DIAG_BY_FAMILY

from odm_agent.core.errors import KernelError

_TIMEOUT_S: Final = 10.0
_DUMP_ATTEMPTS: Final = 20
#: struct nlmsghdr: length, type, flags, sequence number, port.
HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ATTRIBUTE_MASK: Final = 0x3FFF


class RefusedError(Exception):
    """The kernel answered a request with an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.errno = code


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(len(payload) + 4, kind) + payload + bytes(-len(payload) % 4)


def u32(kind: int, value: int) -> bytes:
    """An attribute that holds a 32-bit number in host order."""
    return attribute(kind, struct.pack("=I", value))


def number(payload: bytes | None, absent: int = 0) -> int:
    """The value of a numeric attribute of 1 to 8 bytes in host order."""
    return absent if payload is None else int.from_bytes(payload, sys.byteorder)


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from `offset` to the end, by type without the flag bits; the last one wins."""
    return dict(attribute_list(data, offset))


def attribute_list(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Like `attributes`, for nests that repeat a type."""
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & _ATTRIBUTE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, sequence number and body of each; one whose length can't be is the last."""
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, at)
        yield kind, flags, sequence, data[at + HEADER.size : at + length]
        if length < HEADER.size:
            return
        at += (length + 3) & ~3


class Wire:
    """A netlink socket of the network namespace in which it was opened; not for two threads."""

    def __init__(self, protocol: int = NETLINK_SOCK_DIAG) -> None:
        self._sequence = 0
        self._what = "sock_diag" if protocol == NETLINK_SOCK_DIAG else "netlink"
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
            )
        except OSError as error:
            raise KernelError(
                f"opening a {self._what} socket failed: {error.strerror}. "
                "Run on Linux with netlink allowed (systemd: RestrictAddressFamilies=AF_NETLINK)."
            ) from error
        self._socket.settimeout(_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def dump(
        self, request: bytes, kind: int = SOCK_DIAG_BY_FAMILY, doing: str = "listing sockets"
    ) -> list[bytes]:
        """All that `request` names, taken again while the kernel's tables move beneath it.

        Raises RefusedError; KernelError if no dump in a row of attempts was consistent.
        """
        for _ in range(_DUMP_ATTEMPTS):
            with _explained(doing, "Nothing was changed; try again."):
                parts = self._dumped(kind, request)
            if parts is not None:
                return parts
        raise KernelError(
            f"{doing}: the kernel's tables changed during each of {_DUMP_ATTEMPTS} "
            "attempts. Try again when fewer sockets come and go."
        )

    def tell(self, kind: int, request: bytes, doing: str, otherwise: str) -> None:
        """Send a message that is acknowledged; raises RefusedError, KernelError.

        `doing` and `otherwise` are for people: what it does, and what holds if that fails.
        """
        self.tell_by(self._send, kind, request, doing, otherwise)

    def tell_by(
        self,
        send: Callable[[bytes], object],
        kind: int,
        request: bytes,
        doing: str,
        otherwise: str,
    ) -> None:
        """The same for a message that somebody else sends by this socket."""
        with _explained(doing, otherwise):
            send(self._message(kind, NLM_F_REQUEST | NLM_F_ACK, request))
            for answered_kind, _, answered, body in self._answers():
                if answered == self._sequence and answered_kind == NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", body)
                    if code < 0:
                        raise RefusedError(-code)
                    return

    def _send(self, message: bytes) -> None:
        self._socket.send(message)

    def _message(self, kind: int, flags: int, request: bytes) -> bytes:
        self._sequence += 1
        return HEADER.pack(len(request) + HEADER.size, kind, flags, self._sequence, 0) + request

    def _dumped(self, kind_asked: int, request: bytes) -> list[bytes] | None:
        """One attempt; None if it was interrupted by a change."""
        self._send(self._message(kind_asked, NLM_F_REQUEST | NLM_F_DUMP, request))
        parts: list[bytes] = []
        interrupted = False
        for kind, flags, answered, body in self._answers():
            if answered != self._sequence:
                continue  # the rest of an earlier dump that was given up
            interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                (code,) = struct.unpack_from("=i", body)
                if code < 0:
                    raise RefusedError(-code)
                break
            parts.append(body)
        return None if interrupted else parts

    def _answers(self) -> Iterator[tuple[int, int, int, bytes]]:
        """All `messages` that arrive, without end."""
        while True:
            yield from messages(self._socket.recv(1 << 18))


@contextmanager
def _explained(doing: str, otherwise: str) -> Iterator[None]:
    """What the system says of the netlink socket is a KernelError that says what was being done."""
    try:
        yield
    except OSError as error:
        raise KernelError(f"{doing}: {error.strerror or error}. {otherwise}") from error
