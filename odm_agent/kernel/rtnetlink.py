"""Requests by rtnetlink: pyroute2's messages, on a socket that waits where it is asked.

pyroute2's own sockets are asyncio inside: each request is a task that a loop runs, whose answer
comes by a queue. The agent has its own loop and asks from a thread, so a request took four changes
of threads and ten times as long as the kernel works on it, while somebody waits for an address.
What is said, and what most answers mean, is pyroute2's all the same.
"""

import errno
import gc
import socket
import struct
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Final, Self, TypeVar

from pyroute2.netlink import (
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NETLINK_ROUTE,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    nlmsg,
)
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from odm_agent.kernel.wire import HEADER, attributes, messages

Message = TypeVar("Message", bound=nlmsg)

#: linux/netlink.h, for which pyroute2 has no constant: refusals don't repeat the request.
_NETLINK_CAP_ACK: Final = 10
#: The kernel answers at once; an answer that never comes must not hold up the caller forever.
_TIMEOUT_S: Final = 30.0
_DUMP_ATTEMPTS: Final = 20
#: Acknowledgements queue in the receive buffer while the kernel works through one send.
_BATCH: Final = 128
#: So much of both queues in the kernel, in bytes.
_QUEUED: Final = 1 << 20
#: No part of an answer is larger, in bytes.
_LARGEST: Final = 1 << 16
#: Where the sequence number is in a message.
_SEQUENCE: Final = struct.Struct("=I")
_SEQUENCE_AT: Final = 8
#: struct nlmsgerr: the errno, below 0, then the header of what was refused; then attributes, of
#: which this one has the kernel's words.
_ERROR: Final = struct.Struct("=i")
_WORDS_AT: Final = _ERROR.size + HEADER.size
_NLMSGERR_ATTR_MSG: Final = 1


class Rtnetlink:
    """A socket of the network namespace of the thread that makes this; raises OSError.

    Whatever asks raises NetlinkError if the kernel refuses, and OSError if the exchange fails
    (TimeoutError: there was no answer). Not for several threads at once.
    """

    def __init__(self) -> None:
        self._sequence = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE
        )
        try:
            self._socket.settimeout(_TIMEOUT_S)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _QUEUED)
            for option in (NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK, _NETLINK_CAP_ACK):
                self._socket.setsockopt(SOL_NETLINK, option, 1)
            self._socket.connect((0, 0))  # the kernel; nobody else can answer
        except BaseException:
            self.close()
            raise

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
        """Close the socket; may be called twice."""
        self._socket.close()

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Around all that is asked. Whatever goes wrong within, the next exchange begins anew."""
        try:
            yield
        except NetlinkError:
            raise  # that was an answer
        except OSError:
            self._forget()
            raise
        except Exception as error:  # of an answer that pyroute2 doesn't understand, say
            self._forget()
            raise OSError(errno.EPROTO, repr(error)) from error

    def dump(self, kind: int, request: Message) -> list[Message]:
        """All objects that the kernel has for `request`, which it filters (strict checking).

        Taken again while its tables move beneath the dump; NetlinkDumpInterrupted if none of many
        attempts was consistent.
        """
        return [_read(type(request), body) for body in self.dump_packed(kind, request)]

    def dump_packed(self, kind: int, request: nlmsg) -> list[bytes]:
        """The same as bytes, from behind the netlink header on.

        For what there may be thousands of: pyroute2 takes ten times as long to unpack an object as
        we.
        """
        packed = _packed(_asking(request, kind, NLM_F_DUMP))
        for _ in range(_DUMP_ATTEMPTS):
            parts = self._dumped(packed)
            if parts is not None:
                return parts
        raise NetlinkDumpInterrupted(
            errno.EINTR,
            f"the kernel's tables changed during each of {_DUMP_ATTEMPTS} attempts to read them",
        )

    def get_packed(self, kind: int, request: nlmsg) -> bytes:
        """The one object that the kernel has for `request`, as `dump_packed` gives them."""
        (sequence,) = self._send([_packed(_asking(request, kind))])
        answered, _, body = next(self._answers({sequence}))
        if (refusal := _refusal(answered, body)) is not None:
            raise refusal
        return body

    def carry_out(
        self, steps: Iterable[Sequence[nlmsg] | NetlinkError], tolerated: Collection[int] = ()
    ) -> list[NetlinkError | None]:
        """Have the kernel do what the messages of each step ask for, in order; what each came to.

        That is the first refusal, or None; errors in `tolerated` are none. A step that is a refusal
        already is passed over. Many are sent together, so a step goes on after a refusal; of steps
        that are made one by one, no more messages exist at a time.
        """
        outcomes: list[NetlinkError | None] = []
        batch: list[bytearray] = []
        places: list[int] = []

        def send() -> None:
            for place, refusal in zip(places, self._changed(batch), strict=True):
                if refusal is not None and refusal.code not in tolerated:
                    outcomes[place] = outcomes[place] or refusal
            batch.clear()
            places.clear()

        for place, step in enumerate(steps):
            outcomes.append(step if isinstance(step, NetlinkError) else None)
            if not isinstance(step, NetlinkError):
                batch += map(_packed, step)
                places += [place] * len(step)
            if len(batch) >= _BATCH:
                send()
                # Messages hold each other in circles: the fewer there are, the shorter all wait.
                gc.collect(1)
        if batch:
            send()
        return outcomes

    def _changed(self, packed: Sequence[bytearray]) -> list[NetlinkError | None]:
        """Send requests together, and hear of each whether it was refused."""
        sequences = self._send(packed)
        answers = self._answers({*sequences})
        outcomes = [next(answers) for _ in sequences]
        return [_refusal(kind, body) for kind, _, body in outcomes]

    def _dumped(self, packed: bytearray) -> list[bytes] | None:
        """One attempt; None if it was interrupted by a change."""
        (sequence,) = self._send([packed])
        parts: list[bytes] = []
        interrupted = False
        for kind, flags, body in self._answers({sequence}):
            interrupted |= bool(flags & NLM_F_DUMP_INTR)
            if (refusal := _refusal(kind, body)) is not None:
                raise refusal
            if kind in (NLMSG_DONE, NLMSG_ERROR):
                break
            parts.append(body)
        return None if interrupted else parts

    def _send(self, packed: Sequence[bytearray]) -> list[int]:
        """Send messages together; the numbers by which they are answered, in their order."""
        sequences: list[int] = []
        for each in packed:
            self._sequence = (self._sequence + 1) & 0xFFFFFFFF
            _SEQUENCE.pack_into(each, _SEQUENCE_AT, self._sequence)
            sequences.append(self._sequence)
        self._socket.send(b"".join(packed))
        return sequences

    def _answers(self, sequences: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """Kind, flags and body of what comes to these, without end, in the kernel's order.

        What else comes is the rest of what was given up.
        """
        while True:
            for kind, flags, answered, body in messages(self._socket.recv(_LARGEST)):
                if answered in sequences:
                    yield kind, flags, body

    def _forget(self) -> None:
        """Take away what is left of answers: while a dump is not read, there can be no other."""
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                try:
                    self._socket.recv(_LARGEST)
                except BlockingIOError:
                    raise
                except OSError:  # messages were lost, which is told once
                    pass
        self._socket.settimeout(_TIMEOUT_S)


def change(message: Message, kind: int, flags: int = 0) -> Message:
    """`message` as a request that the kernel acknowledges; `kind` is RTM_NEW... or RTM_DEL..."""
    return _asking(message, kind, NLM_F_ACK | flags)


def _asking(message: Message, kind: int, flags: int = 0) -> Message:
    message["header"] = {"type": kind, "flags": NLM_F_REQUEST | flags}
    return message


def _packed(message: nlmsg) -> bytearray:
    message.encode()
    packed: bytearray = message.data
    return packed


def _read(kind: type[Message], body: bytes) -> Message:
    """What pyroute2 makes of an answer."""
    message: Message = kind(HEADER.pack(HEADER.size + len(body), 0, 0, 0, 0) + body)
    message.decode()
    return message


def _refusal(kind: int, body: bytes) -> NetlinkError | None:
    """What the kernel has against a request; None: nothing."""
    if kind not in (NLMSG_ERROR, NLMSG_DONE) or len(body) < _ERROR.size:
        return None
    (code,) = _ERROR.unpack_from(body)
    if code >= 0:
        return None
    words = attributes(body, _WORDS_AT if kind == NLMSG_ERROR else _ERROR.size)
    told = words.get(_NLMSGERR_ATTR_MSG, b"").rstrip(b"\0").decode(errors="replace")
    return NetlinkError(-code, told or None)
