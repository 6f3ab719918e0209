"""Wait for an address at the agent, or by asking the kernel: what `client` makes setsc() of.

Needs the standard library only. The wire is that of `control/wait_caller.py`.
"""

import asyncio
import os
import socket
import struct
import time
from contextlib import suppress
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

#: Where the agent lets applications wait; ODM_WAIT_SOCKET in the environment names another path.
WAIT_SOCKET: Final = "/run/odm/wait.sock"
#: The option in full (`struct odm_prospect` of the header): the address, the ticket, the state.
PROSPECT: Final = struct.Struct("=32x16sQI4x")
_REQUEST: Final = struct.Struct("=4sIQ")
_ANSWER: Final = struct.Struct("=II")
#: So long the agent lets wait at a time (seconds); who still wants to asks again.
_LONGEST_S: Final = 60.0
#: SO_COOKIE of asm/socket.h, which the socket module has not.
_SO_COOKIE: Final = 57


class State(IntEnum):
    """With which address a socket can count."""

    NONE = 0
    HELD = 1
    OFFERED = 2
    UNTOLD = 3


class Prospect(NamedTuple):
    """What the kernel says of a socket's address, and the ticket by which to wait for one."""

    state: State
    address: IPv4Address | IPv6Address
    ticket: int


class Said(IntEnum):
    """What the agent says to who waits; the last: nothing, as it can't be reached."""

    READY = 0
    UNSUPPORTED = 1
    FAILED = 2
    LATE = 3
    UNKNOWN = 4
    UNREACHABLE = 5


class Deadline:
    """Until when somebody waits; None: for as long as it takes."""

    def __init__(self, timeout_s: float | None) -> None:
        self._until_s = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """Seconds, at most so many as the agent lets wait at a time."""
        if self._until_s is None:
            return _LONGEST_S
        return min(max(self._until_s - time.monotonic(), 0.0), _LONGEST_S)


def prospect(sock: socket.socket, option: int) -> Prospect | None:
    """With which address the socket can count; None: nobody tells."""
    raw = sock.getsockopt(socket.IPPROTO_IPV6, option, PROSPECT.size)
    if len(raw) == PROSPECT.size and PROSPECT.unpack(raw)[2] == State.UNTOLD:
        # An address of its own is made of its cookie, which it has once somebody asked for it.
        sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
        raw = sock.getsockopt(socket.IPPROTO_IPV6, option, PROSPECT.size)
    if len(raw) != PROSPECT.size:
        return None
    packed, ticket, state = PROSPECT.unpack(raw)
    address = IPv6Address(packed)
    return Prospect(State(state), address.ipv4_mapped or address, ticket)


def _request(ticket: int, within_s: float) -> bytes:
    return _REQUEST.pack(b"ODMw", int(within_s * 1000), ticket)


def path() -> str:
    """Where the agent lets applications wait."""
    return os.environ.get("ODM_WAIT_SOCKET", WAIT_SOCKET)


def _answer(raw: bytes) -> tuple[Said, str]:
    if len(raw) < _ANSWER.size:
        return Said.UNREACHABLE, ""
    said, length = _ANSWER.unpack(raw[: _ANSWER.size])
    if said > Said.UNREACHABLE:
        return Said.UNREACHABLE, ""
    return Said(said), raw[_ANSWER.size :][:length].decode(errors="replace")


def wait(ticket: int, within_s: float) -> tuple[Said, str]:
    """What the agent says within this time, with the cause of a failure."""
    raw = b""
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(within_s + 1.0)
        agent.connect(path())
        agent.sendall(_request(ticket, within_s))
        while piece := agent.recv(1024):
            raw += piece
    return _answer(raw)


async def wait_async(ticket: int, within_s: float) -> tuple[Said, str]:
    """The same on an event loop."""
    raw = b""
    with suppress(OSError):
        async with asyncio.timeout(within_s + 1.0):
            reader, writer = await asyncio.open_unix_connection(path())
            try:
                writer.write(_request(ticket, within_s))
                raw = await reader.read(4096)
            finally:
                writer.close()
    return _answer(raw)
