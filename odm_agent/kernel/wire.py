"""Netlink messages and one socket to exchange them with the kernel.

Own and small rather than a library's, because the agent calls it from inside a running event loop,
in which the synchronous interface of pyroute2 0.9 cannot be used, and because packed messages in
batches add a thousand addresses in about a tenth of the time.
"""

import logging
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from odm_agent.errors import KernelError

logger = logging.getLogger(__name__)

NETLINK_ROUTE: Final = 0
NETLINK_SOCK_DIAG: Final = 4

NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
_NLM_F_DUMP_INTR: Final = 0x010
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200

_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_NLMSGERR_ATTR_MSG: Final = 1

_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10
_NETLINK_EXT_ACK: Final = 11
_NETLINK_GET_STRICT_CHK: Final = 12
_SO_RCVBUFFORCE: Final = 33

_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ATTRIBUTE_MASK: Final = 0x3FFF
NLA_F_NESTED: Final = 0x8000

#: Acknowledgements queue in the receive buffer while the kernel works through one send.
_BATCH: Final = 256
_RECEIVE_BUFFER_BYTES: Final = 4 << 20
_TIMEOUT_S: Final = 10.0
_DUMP_ATTEMPTS: Final = 20


class RefusedError(Exception):
    """The kernel answered a request with an errno; the text holds its own words if it has any."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.errno = code


@dataclass(frozen=True, slots=True)
class Message:
    """One request, or one part of an answer; `body` is without the netlink header."""

    kind: int
    body: bytes
    flags: int = 0


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


class Wire:
    """A netlink socket of the network namespace in which it was opened; not for two threads."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._sequence = 0
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
            )
        except OSError as error:
            raise KernelError(
                f"opening a netlink socket (protocol {protocol}) failed: {error.strerror}. "
                "Run on Linux with netlink allowed (systemd: RestrictAddressFamilies=AF_NETLINK)."
            ) from error
        self._socket.settimeout(_TIMEOUT_S)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER_BYTES)
        except PermissionError:
            # Without CAP_NET_ADMIN: reading works with the default buffer, changing is refused.
            logger.debug("netlink receive buffer left at its default", extra={"protocol": protocol})
        for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))

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

    def request(self, message: Message) -> None:
        """Have one change made; raises RefusedError."""
        (refusal,) = self.batch([message])
        if refusal is not None:
            raise refusal

    def batch(self, messages: Sequence[Message]) -> list[RefusedError | None]:
        """Have changes made in this order, all of them even if one fails; what each came to."""
        outcomes: list[RefusedError | None] = []
        for start in range(0, len(messages), _BATCH):
            outcomes += self._send_batch(messages[start : start + _BATCH])
        return outcomes

    def dump(self, message: Message) -> list[Message]:
        """All parts of the answer to a dump, taken again while the kernel's tables move beneath it.

        Raises RefusedError; KernelError if no dump in a row of attempts was consistent.
        """
        for _ in range(_DUMP_ATTEMPTS):
            parts = self._dump_once(message)
            if parts is not None:
                return parts
        raise KernelError(
            f"reading netlink objects (message {message.kind}): the kernel's tables changed during "
            f"each of {_DUMP_ATTEMPTS} attempts. Find out what changes them all the time "
            "(ip monitor); reading is tried again at the next change."
        )

    def get(self, message: Message) -> Message:
        """The one object that was asked for; raises RefusedError (ENODEV and the like)."""
        sequence = self._send([message], NLM_F_REQUEST)
        for kind, answered, flags, body in self._answers():
            if answered != sequence:
                continue
            if kind == _NLMSG_ERROR:
                refusal = _refusal(kind, flags, body)
                if refusal is not None:
                    raise refusal
                continue
            return Message(kind, body)
        raise AssertionError("the answers never end")

    def _send(self, messages: Sequence[Message], flags: int) -> int:
        """Send in one system call; the sequence number of the first message."""
        first = self._sequence + 1
        self._sequence += len(messages)
        self._socket.send(
            b"".join(
                _HEADER.pack(len(m.body) + 16, m.kind, m.flags | flags, first + index, 0) + m.body
                for index, m in enumerate(messages)
            )
        )
        return first

    def _send_batch(self, messages: Sequence[Message]) -> list[RefusedError | None]:
        first = self._send(messages, NLM_F_REQUEST | NLM_F_ACK)
        outcomes: dict[int, RefusedError | None] = {}
        for kind, sequence, flags, body in self._answers():
            if kind == _NLMSG_ERROR and sequence >= first:
                outcomes[sequence] = _refusal(kind, flags, body)
                if len(outcomes) == len(messages):
                    break
        return [outcomes[first + index] for index in range(len(messages))]

    def _dump_once(self, message: Message) -> list[Message] | None:
        """One attempt; None if it was interrupted by a change."""
        sequence = self._send([message], NLM_F_REQUEST | NLM_F_DUMP)
        parts: list[Message] = []
        interrupted = False
        for kind, answered, flags, body in self._answers():
            if answered != sequence:
                continue  # the rest of an earlier dump that was given up
            interrupted |= bool(flags & _NLM_F_DUMP_INTR)
            if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                refusal = _refusal(kind, flags, body)
                if refusal is not None:
                    raise refusal
                break
            parts.append(Message(kind, body))
        return None if interrupted else parts

    def _answers(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, sequence number, flags and body of all that arrives, without end."""
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except TimeoutError as error:
                raise KernelError(
                    f"waiting for the kernel's netlink answer: none within {_TIMEOUT_S:.0f} s. "
                    "The state is unknown until it is read again."
                ) from error
            except OSError as error:
                raise KernelError(
                    f"receiving the kernel's netlink answer failed: {error.strerror}. "
                    "The state is unknown until it is read again."
                ) from error
            offset = 0
            while offset + 16 <= len(data):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
                yield kind, sequence, flags, data[offset + 16 : offset + length]
                offset += (length + 3) & ~3


def _refusal(kind: int, flags: int, body: bytes) -> RefusedError | None:
    """What an acknowledgement or the end of a dump says; None for success."""
    (code,) = struct.unpack_from("=i", body)
    if code >= 0:
        return None
    words = os.strerror(-code)
    if flags & _NLM_F_ACK_TLVS:
        # After the errno of an acknowledgement: the request, only its header if capped.
        skip = 4
        if kind == _NLMSG_ERROR:
            (length,) = struct.unpack_from("=I", body, 4)
            skip += 16 if flags & _NLM_F_CAPPED else (length + 3) & ~3
        text = attributes(body, skip).get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode()
        if text:
            words = f"{words} ({text})"
    return RefusedError(-code, words)
